"""Between rsync's two descriptors on this machine and a channel of a host."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from typing import TYPE_CHECKING

from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.channel import Channel

_PIECE = 256 * 1024


class Wire:
    """Carries bytes both ways, and makes whoever is faster wait.

    Attributes:
        sent: Bytes that went to the host.
        received_bytes: Bytes that came from it.
    """

    def __init__(
        self,
        source: int,
        sink: int,
        complain: Callable[[bytes], None],
        *,
        mark: bytes = b"",
    ) -> None:
        """Take over both descriptors; `complain` gets what the host says beside.

        What comes up to `mark`, and it, was printed before rsync began there.
        """
        self._mark = mark
        self._before = b""
        self._source = source
        self._sink = sink
        self._complain = complain
        self._backlog: deque[memoryview] = deque()
        self._channel: Channel | None = None
        self._paused = False
        self._over = False
        self._drained = asyncio.Event()
        self._drained.set()
        self._closed = False
        self._ready: asyncio.Future[None] | None = None
        self.sent = 0
        self.received_bytes = 0
        os.set_blocking(source, False)
        os.set_blocking(sink, False)

    # from the host

    def received(self, stream: Stream, data: bytes) -> None:
        """Hand on what the host sends, at once where that is possible."""
        if stream is Stream.ERR:
            self._complain(data)
            return
        self.received_bytes += len(data)
        if self._mark:
            data = self._behind_mark(data)
        if self._closed or self._over:
            return
        view = memoryview(data)
        if not self._backlog:
            view = view[self._write(view) :]
        if not view or self._over:
            return
        if not self._backlog:
            asyncio.get_running_loop().add_writer(self._sink, self._write_on)
            self._drained.clear()
        self._backlog.append(view)
        if self._channel is not None and not self._paused:
            self._paused = True
            self._channel.pause()

    def _behind_mark(self, data: bytes) -> bytes:
        self._before += data
        _, mark, rest = self._before.partition(self._mark)
        if mark:
            self._mark = b""
            return rest
        self._before = self._before[-len(self._mark) :]
        return b""

    def _write(self, view: memoryview) -> int:
        try:
            return os.write(self._sink, view)
        except BlockingIOError:
            return 0
        except OSError:
            # rsync has gone: what it said and returned tells why.
            self._over = True
            return 0

    def _write_on(self) -> None:
        while self._backlog:
            view = self._backlog[0]
            done = self._write(view)
            if self._over:
                self._backlog.clear()
                break
            if done < len(view):
                self._backlog[0] = view[done:]
                return
            self._backlog.popleft()
        asyncio.get_running_loop().remove_writer(self._sink)
        self._drained.set()
        if self._paused and self._channel is not None:
            self._paused = False
            self._channel.resume()

    # to the host

    async def carry(self, channel: Channel) -> None:
        """Send what rsync says until it says no more, and then its end."""
        self._channel = channel
        with contextlib.suppress(BrokenPipeError):
            while data := await self._read():
                self.sent += len(data)
                await channel.write(data)
        channel.eof()

    async def _read(self) -> bytes:
        loop = asyncio.get_running_loop()
        while not self._closed:
            try:
                return os.read(self._source, _PIECE)
            except BlockingIOError:
                pass
            except OSError:
                return b""
            ready = self._ready = loop.create_future()
            loop.add_reader(self._source, _done, ready)
            try:
                await ready
            finally:
                self._look_away()
        return b""

    def _look_away(self) -> None:
        """Wait no more for the source.

        Before it is closed: its number is another's at once, who would wait in vain.
        """
        ready, self._ready = self._ready, None
        if ready is not None:
            asyncio.get_running_loop().remove_reader(self._source)
            _done(ready)

    async def drained(self) -> None:
        """Return when rsync has taken all that came, or has gone."""
        await self._drained.wait()

    def close(self) -> None:
        """Let go of both descriptors; rsync then finds that nobody is there."""
        if self._closed:
            return
        self._closed = True
        if self._backlog:
            asyncio.get_running_loop().remove_writer(self._sink)
            self._backlog.clear()
        self._drained.set()
        self._look_away()
        os.close(self._source)
        os.close(self._sink)


def _done(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
