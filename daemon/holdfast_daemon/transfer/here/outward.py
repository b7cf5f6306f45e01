"""What is sent of one file of this machine: its data, piece by piece, without holes."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.holes import pass_over, stretches
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.errand import PIECE_BYTES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.transfer.here.parcel import Sent
    from holdfast_daemon.transfer.means.errand import Means


class Outward:
    """An open file on its way."""

    def __init__(
        self,
        file: int,
        means: Means,
        running: hashlib._Hash,  # pyright: ignore[reportPrivateUsage]  it has no other name
        sent: Sent,
    ) -> None:
        """Add up in `running` what is sent, and count it in `sent`."""
        self._file = file
        self._means = means
        self._running = running
        self._sent = sent
        self._late: hashlib._Hash | None = None  # pyright: ignore[reportPrivateUsage]  it has no other name

    def part(self) -> str:
        """Return the checksum of all up to here; what follows gets one of its own."""
        self._late = hashlib.sha256()
        return self._running.hexdigest()

    @property
    def last(self) -> str:
        """The checksum of what was sent since it was parted, or of all."""
        return (self._late or self._running).hexdigest()

    async def stretches(self, at: int, size: int) -> AsyncGenerator[tuple[int, int]]:
        """Yield what of it is to be sent from `at` on; holes are passed over."""
        for begin, end in await apart(stretches, self._file, at, size):
            await apart(pass_over, self._running, begin - at)
            self._sent.count += begin - at
            self._means.tally.find(begin - at)
            yield begin, end
            at = end

    async def pieces(self, at: int, end: int) -> AsyncGenerator[bytes]:
        """Yield what it holds; the next piece is read meanwhile."""

        def read(offset: int) -> bytes:
            data = os.pread(self._file, min(PIECE_BYTES, end - offset), offset)
            self._running.update(data)
            if self._late is not None:
                self._late.update(data)
            return data

        reading = asyncio.ensure_future(apart(read, at))
        try:
            while at < end:
                data = await reading
                if not data:
                    raise OSError(5, "it became shorter while it was copied")
                at += len(data)
                if at < end:
                    reading = asyncio.ensure_future(apart(read, at))
                await self._means.rate.take(len(data))
                yield data
                self._sent.count += len(data)
                self._means.tally.move(len(data))
        finally:
            # a thread reads to its end, and the file must be open until then
            await asyncio.gather(reading, return_exceptions=True)
