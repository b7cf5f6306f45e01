"""The clocks: monotonic for spans, wall for the timestamps that people read.

A third one, which goes on while the machine sleeps, only tells that it slept.
"""

from __future__ import annotations

import asyncio
import sys
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

    def boottime(self) -> float:
        """Return the seconds of a clock that sleep does not stop, as the other is.

        Where a system has none it is the monotonic one.
        """
        if sys.platform == "darwin":
            # there `time.monotonic` stands still in sleep, and this one goes on
            return time.clock_gettime(time.CLOCK_MONOTONIC)
        clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
        return time.clock_gettime(clock)

    def now(self) -> datetime:
        """Return the wall clock in UTC."""
        return datetime.now(UTC)


async def beat(seconds: float) -> None:
    """Sleep until the next whole multiple of `seconds`.

    Whatever is done as often, or twice as often, is so done at the same moment: an idle
    process is woken once for all of it.
    """
    await asyncio.sleep(seconds - asyncio.get_running_loop().time() % seconds)


def rfc3339(moment: datetime) -> str:
    """Return `moment` in UTC as RFC 3339 with milliseconds and a Z."""
    text = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return text.removesuffix("+00:00") + "Z"
