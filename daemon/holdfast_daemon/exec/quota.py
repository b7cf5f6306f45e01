"""How many jobs may run: per host and in all. Sans-I/O."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holdfast_daemon.errors import LimitError, Reason

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

# So many jobs or hosts are named in a refusal.
_NAMED = 5


def check(running: Mapping[str, Host], host: Host, limits: Limits) -> None:
    """Check that one more job may run on `host`; `running` are hosts by job id.

    Raises:
        LimitError: It may not.
    """
    if len(running) >= limits.jobs_running:
        on = Counter(other.shown for other in running.values())
        uses = _some([f"{count} on {name}" for name, count in on.most_common()])
        raise LimitError(
            Reason.LIMIT_REACHED,
            f"{len(running)} jobs run already, and the limit jobs_running is"
            f" {limits.jobs_running}: {uses}",
            hint="Stop a job, or raise limits.jobs_running.",
            metadata=_told("jobs_running", limits.jobs_running, uses),
        )
    here = [name for name, other in running.items() if other.server == host.server]
    if len(here) >= limits.jobs_per_host:
        uses = _some(here)
        raise LimitError(
            Reason.LIMIT_REACHED,
            f"{len(here)} jobs run on {host.shown} already, and the limit"
            f" jobs_per_host is {limits.jobs_per_host}: {uses}",
            hint="Stop one of them, or raise limits.jobs_per_host.",
            metadata=_told("jobs_per_host", limits.jobs_per_host, uses),
        )


def _told(limit: str, value: int, uses: str) -> dict[str, str]:
    return {"limit": limit, "value": str(value), "uses": uses}


def _some(names: Collection[str]) -> str:
    told = ", ".join(list(names)[:_NAMED])
    more = len(names) - _NAMED
    return f"{told} and {more} more" if more > 0 else told
