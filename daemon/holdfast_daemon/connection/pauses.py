"""Pauses before another try, which are over at once when this machine wakes."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable


class Pauses:
    """All that are under way."""

    def __init__(self) -> None:
        self._enough: dict[asyncio.Event, Hashable] = {}

    async def rest(
        self,
        seconds: float,
        enough: asyncio.Event | None = None,
        account: Hashable = None,
    ) -> None:
        """Return after so many seconds, or when that is enough.

        Who waits for a connection that another makes names its `Host.account`.
        """
        enough = enough or asyncio.Event()
        self._enough[enough] = account
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await enough.wait()
        finally:
            del self._enough[enough]

    def end(self) -> None:
        """Have everybody try now."""
        for enough in self._enough:
            enough.set()

    def connected(self, account: Hashable) -> None:
        """Have those try now who wait for a connection to that one."""
        for enough, wanted in self._enough.items():
            if wanted is not None and wanted == account:
                enough.set()
