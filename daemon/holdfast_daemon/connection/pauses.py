"""Pauses before another try, which are over at once when this machine wakes."""

from __future__ import annotations

import asyncio
import contextlib


class Pauses:
    """All that are under way."""

    def __init__(self) -> None:
        self._enough: set[asyncio.Event] = set()

    async def rest(self, seconds: float, enough: asyncio.Event | None = None) -> None:
        """Return after so many seconds, or when that is enough."""
        enough = enough or asyncio.Event()
        self._enough.add(enough)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await enough.wait()
        finally:
            self._enough.discard(enough)

    def end(self) -> None:
        """Have everybody try now."""
        for enough in self._enough:
            enough.set()
