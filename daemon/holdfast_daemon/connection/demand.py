"""How many channels ought to wait for the next commands. Sans-I/O, no clock."""

from __future__ import annotations


class Demand:
    """Follows what commands found: none waits before the first, few at any time.

    Who found no channel waiting makes one more worth keeping. One that nobody asks for
    any more is kept for a while and then given back.
    """

    def __init__(self) -> None:
        self._level = 0
        self._until = 0.0

    def asked(self, now: float, seconds: float, *, found: bool) -> None:
        """Count a command; `seconds` is how long one keeps the demand up."""
        if now >= self._until:
            self._level = 0
        if not found or not self._level:
            self._level += 1
        self._until = now + seconds

    def wanted(self, now: float, most: int) -> int:
        """Return how many should wait, at most `most`."""
        self._level = min(self._level, most)
        return self._level if now < self._until else 0

    def left(self, now: float) -> float:
        """Return the seconds until none is wanted, should nobody ask meanwhile."""
        return max(0.0, self._until - now)
