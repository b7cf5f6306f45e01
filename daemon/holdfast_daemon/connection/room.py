"""How many connections there may be: per server and in all. Sans-I/O."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from holdfast_daemon.errors import LimitError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast_daemon.connection.entry import Entry
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

# So many users of a limit are named in a refusal.
_NAMED = 3


def make_room(
    entries: Iterable[Entry], host: Host, limits: Limits, *, urgent: bool
) -> list[Entry]:
    """Return which idle connections are to be closed for one more to `host`.

    Raises:
        LimitError: All that count are in use.
    """
    held = [entry for entry in entries if not entry.closing]
    here = [entry for entry in held if entry.host.server == host.server]
    # One above the limit for what ends commands: a full host must stay stoppable.
    more = 1 if urgent else 0
    closed: list[Entry] = []
    # two of them where there is one above it already
    while len(here) >= limits.connections_per_host + more:
        closed.append(_idlest(here, "connections_per_host", limits, _to(host)))
        here = [entry for entry in here if entry not in closed]
    left = [entry for entry in held if entry not in closed]
    if len(left) >= limits.connections_total + more:
        closed.append(_idlest(left, "connections_total", limits, ""))
    return closed


def _idlest(held: Sequence[Entry], limit: str, limits: Limits, where: str) -> Entry:
    """Return the connection unused for longest, but none that a person had to make.

    Raises:
        LimitError: There is none.
    """
    idle = [e for e in held if e.ready and not e.used and not e.attended]
    if idle:
        return min(idle, key=lambda entry: entry.free_since)
    most = str(getattr(limits, limit))
    raise LimitError(
        Reason.LIMIT_REACHED,
        f"{len(held)} connections{where} are in use, and the limit {limit} is {most};"
        f" they carry {_uses(held)}",
        hint="wait until commands on them have ended (ssh_job_list shows them,"
        f" ssh_job_stop ends one), or raise limits.{limit}",
        metadata={"limit": limit, "value": most, "uses": _uses(held)},
    )


def _to(host: Host) -> str:
    return f" to {host.hostname if host.show == 'all' else host.name}"


def _uses(users: Iterable[Entry]) -> str:
    """Return what connections carry, the busiest host first."""
    loads: Counter[str] = Counter()
    ways: Counter[str] = Counter()
    for entry in users:
        loads[entry.host.shown] += entry.load
        ways[entry.host.shown] += entry.passengers if entry.link else 0
    told = [_use(name, load, ways[name]) for name, load in loads.most_common(_NAMED)]
    if len(loads) > _NAMED:
        told.append(f"and those of {len(loads) - _NAMED} hosts more")
    return ", ".join(told)


def _use(name: str, load: int, ways: int) -> str:
    others = f" and {ways} connections to other hosts" if ways else ""
    return f"{load} commands{others} on {name}"
