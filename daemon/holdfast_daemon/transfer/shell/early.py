"""Lets a host add up most of a large file while the rest of it is still sent.

It reads what it wrote, as it does of a whole file; only the last part waits for the
end. So a checksum does not take its time once more when all has been sent.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from holdfast_daemon.transfer.means.reach import Reach
from holdfast_daemon.transfer.shell import words

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.transfer.means.errand import Means

# Less is added up at once.
_LEAST = 32 * 1024 * 1024
_LAST = 4  # of so many parts


class Early:
    """The checksum of what has come of one file, of one attempt to send it."""

    def __init__(self, means: Means, folder: bytes, path: bytes) -> None:
        """Ask for that of `path` in `folder`."""
        self._means = means
        self._folder = folder
        self._path = path
        self._asking: asyncio.Task[str] | None = None
        self._ours = ""
        self._upto = 0

    async def __aenter__(self) -> Self:
        """Ask for it until the end of the block at most."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def parted(
        self, stretches: AsyncGenerator[tuple[int, int]], size: int
    ) -> AsyncGenerator[tuple[int, int, bool]]:
        """Yield what is sent, and whether all before it can be added up meanwhile."""
        async for begin, end in stretches:
            part = begin
            if end == size and end - begin >= _LEAST:
                part = end - (end - begin) // _LAST
                yield begin, part, False
            yield part, end, part > begin

    def begin(self, upto: int, ours: str) -> None:
        """Let the host add up what is there up to `upto`; it should be `ours`."""
        self._upto, self._ours = upto, ours
        self._asking = asyncio.create_task(self._ask())

    async def same(self, theirs: str, ours: str) -> bool | None:
        """Return whether both parts are as they should be; None: nothing tells.

        `theirs`: the checksum of the last part, or of all where nothing was begun.
        """
        told = [(theirs, ours)]
        if self._asking is not None:
            told.append((await self._asking, self._ours))
        if any(one not in ("", other) for one, other in told):
            return False
        return True if all(one for one, _ in told) else None

    async def _ask(self) -> str:
        script = words.prefix(self._folder, self._path, self._upto)
        reach = Reach(self._means.site, self._means.tally)
        try:
            reply, _ = await reach.steadily(
                lambda wire: wire.ask(script, summed=self._upto)
            )
        finally:
            reach.release()
        # a file that went away is none that is right
        return reply.texts[1] if reply.ok else "gone"
