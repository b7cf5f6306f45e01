"""Where a job runs: its host, the connections to it, and the limits that apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a job needs of the world outside it."""

    host: Host
    pool: Pool
    limits: Limits
    redactor: Redactor
