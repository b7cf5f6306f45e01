"""What makes a call that is repeated the same one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.forward.forward import Forward
    from holdfast_daemon.forward.wish import Wish
    from holdfast_daemon.hosts.host import Host


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request_id was used for."""

    wish: Wish
    host: Host
    forward: Forward
    at: float
