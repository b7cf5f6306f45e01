"""When to try a host again, and how many handshakes at once. Sans-I/O, no clock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Waiter = TypeVar("Waiter")


class Backoff:
    """Growing pauses with jitter: many who lost one host do not return at once."""

    def __init__(self, first: float, most: float, random: Callable[[], float]) -> None:
        self._first = self._span = first
        self._most = most
        self._random = random

    def failed(self) -> float:
        """Count a failure; return how long to wait: half to all of the span."""
        span = min(self._most, self._span)
        # no further than it counts: a host may be away for weeks
        self._span = span * 2
        return span * (0.5 + 0.5 * self._random())

    def succeeded(self) -> None:
        """Forget the failures."""
        self._span = self._first


class _Held(NamedTuple):
    """How an account stands whose connections come to nothing."""

    pauses: Backoff
    until: float


class Brakes:
    """Pauses before the next login to accounts whose last one came to nothing.

    They belong to the account, not to one who waits: a hundred callers of a broken host
    knock no more often than one.
    """

    def __init__(self, most: float, random: Callable[[], float]) -> None:
        self._most = most
        self._random = random
        self._held: dict[Hashable, _Held] = {}

    def __len__(self) -> int:
        """How many accounts are remembered."""
        return len(self._held)

    def failed(self, account: Hashable, now: float, first: float) -> None:
        """Count a failure at `now`; several of one moment are one."""
        self._held = {
            name: held
            for name, held in self._held.items()
            if now < held.until + self._most
        }
        held = self._held.get(account)
        if held is not None and now < held.until:
            return
        pauses = held.pauses if held else Backoff(first, self._most, self._random)
        self._held[account] = _Held(pauses, now + pauses.failed())

    def left(self, account: Hashable, now: float) -> float:
        """Return the seconds the next login has to wait; not above 0 for none."""
        held = self._held.get(account)
        return held.until - now if held is not None else 0.0

    def release(self, account: Hashable) -> None:
        """Forget the failures: a connection was good for something."""
        self._held.pop(account, None)

    def clear(self) -> None:
        """Forget all failures."""
        self._held.clear()


class Budget(Generic[Waiter]):
    """So many at once; the others wait their turn, the urgent ones first.

    The size is told at every step, because it may change meanwhile.
    """

    def __init__(self) -> None:
        self._taken = 0
        self._urgent: deque[Waiter] = deque()
        self._waiting: deque[Waiter] = deque()

    @property
    def taken(self) -> int:
        """How many hold a place."""
        return self._taken

    @property
    def idle(self) -> bool:
        """Nobody holds a place or waits for one."""
        return not (self._taken or self._urgent or self._waiting)

    def enter(self, waiter: Waiter, size: int, *, urgent: bool = False) -> bool:
        """Take a place and return True, or queue `waiter` and return False."""
        if self._taken < size:
            self._taken += 1
            return True
        (self._urgent if urgent else self._waiting).append(waiter)
        return False

    def leave(self, size: int) -> list[Waiter]:
        """Give a place back; return who of those that waited has one now."""
        self._taken -= 1
        admitted: list[Waiter] = []
        for queue in (self._urgent, self._waiting):
            while queue and self._taken < size:
                self._taken += 1
                admitted.append(queue.popleft())
        return admitted

    def forget(self, waiter: Waiter) -> bool:
        """Take `waiter` out of the queue; False when it is not there."""
        for queue in (self._urgent, self._waiting):
            if waiter in queue:
                queue.remove(waiter)
                return True
        return False
