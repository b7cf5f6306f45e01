"""Who has called since the start, for `holdfast status`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.clock import Clock
    from holdfast_daemon.policy.caller import Caller

# A shim greets the daemon before it uses the name that its own client told it.
_UNNAMED = "unknown"


@dataclass(slots=True)
class Seen:
    """One client.

    Attributes:
        calls: Calls it made.
        last: Monotonic time of its last call.
    """

    label: str
    pid: int
    calls: int
    last: float


class Clients:
    """The clients seen, the longest idle forgotten first."""

    def __init__(self, clock: Clock, limit: int) -> None:
        """Remember at most `limit` clients."""
        self._clock = clock
        self._limit = limit
        self._seen: dict[tuple[str, int], Seen] = {}

    def note(self, caller: Caller) -> None:
        """Count one call."""
        key = (caller.instance, caller.pid)
        now = self._clock.monotonic()
        row = self._seen.pop(key, None) or Seen(caller.label, caller.pid, 0, now)
        if caller.name != _UNNAMED:
            row.label = caller.label
        row.calls += 1
        row.last = now
        # The order of insertion is the order of last use.
        self._seen[key] = row
        if len(self._seen) > self._limit:
            del self._seen[next(iter(self._seen))]

    def rows(self) -> list[tuple[Seen, float]]:
        """Return each client with its idle time in seconds, last caller first."""
        now = self._clock.monotonic()
        return [(row, now - row.last) for row in reversed(self._seen.values())]
