"""How far a live caller is behind its own command."""

from __future__ import annotations

import asyncio


class Pace:
    """How far a live caller has read; its own command waits for it, as with ssh.

    Only a command with live input and output has one. Everybody else reads what was
    kept, and is never waited for.
    """

    def __init__(self, window: int) -> None:
        """Let the command be at most `window` bytes ahead."""
        self._window = window
        self._offset: int | None = 0
        self._moved = asyncio.Event()

    def read(self, offset: int) -> None:
        """Note that everything before `offset` was taken."""
        self._offset = offset
        self._moved.set()

    def release(self) -> None:
        """Note that nobody reads any more."""
        self._offset = None
        self._moved.set()

    def behind(self, end: int) -> bool:
        """Say whether the command is too far ahead."""
        return self._offset is not None and end - self._offset > self._window

    async def caught_up(self, end: int) -> None:
        """Wait until the caller has read half of what it was behind."""
        while self._offset is not None and end - self._offset > self._window // 2:
            self._moved.clear()
            await self._moved.wait()
