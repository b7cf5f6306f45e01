"""Where a job runs: its host, the connections to it, and the limits that apply."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a job needs of the world outside it.

    Attributes:
        keep: Returns when a job's record is on disk; None: it is no table's.
        check: Asks the rules in force now whether the job may still go there; None:
            they were asked just now.
    """

    host: Host
    pool: Pool
    limits: Limits
    redactor: Redactor
    keep: Callable[[Job], Awaitable[None]] | None = None
    check: Callable[[], Awaitable[None]] | None = None

    async def lease(self) -> Lease:
        """Return a lease on a connection there, if the job may still go there.

        Raises:
            DaemonError: A rule forbids it by now, or the host can't be had.
        """
        if self.check is not None:
            await self.check()
        return await self.pool.lease(self.host)
