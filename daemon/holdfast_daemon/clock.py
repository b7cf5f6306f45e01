"""The two clocks: monotonic for spans, wall for the timestamps that people read."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """What the daemon asks of time; tests put their own in its place."""

    def monotonic(self) -> float:
        """Seconds that never jump; for spans, limits and back-off."""
        ...

    def now(self) -> datetime:
        """The wall clock in UTC; for timestamps only."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return `CLOCK_MONOTONIC` in seconds."""
        return time.monotonic()

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)


def rfc3339(moment: datetime) -> str:
    """Return `moment` in UTC as RFC 3339 with milliseconds and a Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
