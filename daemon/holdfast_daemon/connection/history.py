"""What became of the connections to each host, for people: bounded and in memory.

Sans-I/O, no clock: the moment is given.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from datetime import datetime

# Hosts remembered; whom nothing happened to for the longest time is forgotten first.
_HOSTS = 1000


class Kind(StrEnum):
    """What happened."""

    CONNECTED = "connected"
    CLOSED = "closed"
    LOST = "lost"
    FAILED = "failed"
    WOKE = "woke"


# What says how a host stands; the others are only told.
_STATES = frozenset({Kind.CONNECTED, Kind.CLOSED, Kind.LOST, Kind.FAILED})
_ERRORS = frozenset({Kind.LOST, Kind.FAILED})


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        at: Wall clock, for people.
        detail: Why, or how, in words.
        times: It happened so often in a row; `at` is the last time.
    """

    at: datetime
    kind: Kind
    detail: str
    times: int = 1


class History:
    """The last few events of each host, by `Host.account`."""

    def __init__(self) -> None:
        self._events: OrderedDict[Hashable, deque[Event]] = OrderedDict()

    def __len__(self) -> int:
        """How many hosts are remembered."""
        return len(self._events)

    def note(
        self, account: Hashable, kind: Kind, detail: str, *, at: datetime, most: int
    ) -> None:
        """Add an event and keep the last `most`; the same one again only counts."""
        events = self._events.setdefault(account, deque())
        self._events.move_to_end(account)
        times = 1
        if events and (events[-1].kind, events[-1].detail) == (kind, detail):
            times += events.pop().times
        events.append(Event(at, kind, detail, times))
        while len(events) > most:
            events.popleft()
        while len(self._events) > _HOSTS:
            self._events.popitem(last=False)

    def of(self, account: Hashable) -> Sequence[Event]:
        """Return the events of a host, oldest first."""
        return tuple(self._events.get(account, ()))

    def state(self, account: Hashable) -> Event | None:
        """Return the event that says how the host stands; None: nothing happened."""
        return self._last(account, _STATES)

    def error(self, account: Hashable) -> Event | None:
        """Return the last thing that went wrong."""
        return self._last(account, _ERRORS)

    def _last(self, account: Hashable, kinds: frozenset[Kind]) -> Event | None:
        events = reversed(self._events.get(account, ()))
        return next((event for event in events if event.kind in kinds), None)
