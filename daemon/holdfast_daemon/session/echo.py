"""Whether keys that were typed have reached a shell: its terminal shows them."""

from __future__ import annotations

import asyncio
import contextlib
import re

# A command waits so long for keys that were typed before it.
_MOST_SECONDS = 2.0
# What shows something else, as a prompt that was due or a line drawn in colours, may be
# ahead of them: they have so long still.
_GRACE_SECONDS = 0.3
_PLAIN = re.compile(rb"[ -~]+")
_LOOKED_FOR_BYTES = 32


class Echo:
    """What was typed last, and whether it was seen."""

    def __init__(self) -> None:
        self._arrived = asyncio.Event()
        self._arrived.set()
        self._looked_for = b""
        self._seen = b""
        self._grace: asyncio.TimerHandle | None = None

    def typed(self, data: bytes) -> None:
        """Keys are on their way."""
        self._stop()
        self._arrived.clear()
        plain = _PLAIN.findall(data[-4 * _LOOKED_FOR_BYTES :])
        self._looked_for = plain[-1][-_LOOKED_FOR_BYTES:] if plain else b""
        self._seen = b""

    def printed(self, data: bytes) -> None:
        """Take what the terminal shows."""
        if self._arrived.is_set():
            return
        kept = max(0, len(self._looked_for) - 1)
        self._seen = self._seen[-kept:] if kept else b""
        self._seen += data
        if self._looked_for in self._seen:
            self._over()
        elif self._grace is None:
            loop = asyncio.get_running_loop()
            self._grace = loop.call_later(_GRACE_SECONDS, self._over)

    async def arrived(self) -> None:
        """Wait for them; where nothing shows them, they had their time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_MOST_SECONDS):
                await self._arrived.wait()
        self._over()

    def _over(self) -> None:
        self._stop()
        self._arrived.set()
        # it may have been a password
        self._looked_for = self._seen = b""

    def _stop(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None
