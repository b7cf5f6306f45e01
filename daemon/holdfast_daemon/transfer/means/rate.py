"""A bound on bytes a second that many share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# So much goes at once after a pause.
_BURST_SECONDS = 0.25


class Rate:
    """Has callers wait so that no more than the bound goes through."""

    def __init__(self, bound: Callable[[], float]) -> None:
        """Ask `bound` each time for the bytes a second; 0: there is none."""
        self._bound = bound
        self._free_at = 0.0

    async def take(self, count: int) -> None:
        """Return when `count` bytes may go."""
        bound = self._bound()
        if bound <= 0:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._free_at = max(self._free_at, now - _BURST_SECONDS) + count / bound
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)
