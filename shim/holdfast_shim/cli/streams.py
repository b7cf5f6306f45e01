"""Bytes between this process's descriptors and the event loop, each by its own thread.

A thread, because a descriptor may be a file, a pipe or a terminal, is shared with other
processes and must keep its blocking mode. Nothing here holds more than a few pieces.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import socket
import threading
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

PIECE_BYTES = 64 * 1024
READ_AHEAD = 2
WRITE_BEHIND = 16

_T = TypeVar("_T")


class Sink(Protocol):
    """Takes a command's output."""

    async def put(self, data: bytes, *, error: bool) -> None:
        """Take output; waits while too much is held."""
        ...

    async def finish(self) -> None:
        """Return when all that was put is out."""
        ...


class Reader:
    """Reads one descriptor, at most a few pieces ahead."""

    def __init__(self, descriptor: int) -> None:
        """Begin to read."""
        self._descriptor = descriptor
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue()
        self._room = threading.Semaphore(READ_AHEAD)
        self._closed = threading.Event()
        self._ending = threading.Event()
        self._wake, self._waker = socket.socketpair()
        threading.Thread(target=self._work, name="stdin", daemon=True).start()

    async def read(self) -> bytes:
        """Return the next piece; empty at the end."""
        piece = await self._pieces.get()
        self._room.release()
        return piece

    def end(self) -> None:
        """Have what is there already be the last of it."""
        self._ending.set()
        self._stir()

    def close(self) -> None:
        """Read no more."""
        self._closed.set()
        self._stir()

    def _stir(self) -> None:
        self._room.release()
        with contextlib.suppress(OSError):  # the thread has ended already
            self._waker.send(b"x")

    def _work(self) -> None:
        with self._wake, self._waker:
            while True:
                self._room.acquire()
                piece = self._next()
                if self._closed.is_set():
                    return
                _tell(self._loop, self._pieces.put_nowait, piece)
                if not piece:
                    return

    def _next(self) -> bytes:
        wake = self._wake.fileno()
        while not self._closed.is_set():
            try:
                ready, _, _ = select.select([self._descriptor, wake], [], [])
                if wake in ready and self._descriptor not in ready:
                    break
                if self._closed.is_set():
                    break
                return os.read(self._descriptor, PIECE_BYTES)
            except BlockingIOError:
                continue  # another process that reads it too was faster
            except OSError:
                break  # closed, hung up, a directory: there is nothing more to read
        return b""


class Writer:
    """Writes one descriptor in order, at most a few pieces behind."""

    def __init__(self, descriptor: int, failed: Callable[[OSError], None]) -> None:
        """Begin to write; `failed` is called once when it can't be written any more."""
        self._descriptor = descriptor
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._pieces: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._room = asyncio.Semaphore(WRITE_BEHIND)
        self._done = asyncio.Event()
        threading.Thread(target=self._work, name="output", daemon=True).start()

    async def put(self, data: bytes) -> None:
        """Take `data`; waits while too much is held."""
        await self._room.acquire()
        self._pieces.put(data)

    async def finish(self) -> None:
        """Return when all is written, or nothing can be."""
        self._pieces.put(None)
        await self._done.wait()

    def _work(self) -> None:
        broken = False
        while (piece := self._pieces.get()) is not None:
            try:
                if not broken:
                    _write(self._descriptor, piece)
            except OSError as error:
                broken = True
                _tell(self._loop, self._failed, error)
            _tell(self._loop, self._room.release)
        _tell(self._loop, self._done.set)


class Live:
    """A sink that writes to this process's own stdout and stderr."""

    def __init__(self, failed: Callable[[OSError], None]) -> None:
        """Begin to write; `failed` is told when one of them can't be written."""
        self._out = Writer(1, failed)
        self._err = Writer(2, failed)

    async def put(self, data: bytes, *, error: bool) -> None:
        """Write to the matching descriptor, as soon as it takes it."""
        await (self._err if error else self._out).put(data)

    async def finish(self) -> None:
        """Return when all is written."""
        await asyncio.gather(self._out.finish(), self._err.finish())


class Kept:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.out = bytearray()
        self.err = bytearray()

    async def put(self, data: bytes, *, error: bool) -> None:
        """Keep `data`."""
        (self.err if error else self.out).extend(data)

    async def finish(self) -> None:
        """Nothing is pending."""


async def race(work: Coroutine[Any, Any, _T], stop: asyncio.Future[NoReturn]) -> _T:
    """Return what `work` returns, or raise what `stop` is set to before that."""
    task = asyncio.create_task(work)
    both: set[asyncio.Future[Any]] = {task, stop}
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        # An output that failed counts, even if all seemed done in the same moment.
        return stop.result() if stop.done() else task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if stop.done() and not stop.cancelled():
            stop.exception()  # told or too late; either way it was seen


def give_up(stop: asyncio.Future[NoReturn], error: BaseException) -> None:
    """End a `race` with `error`, unless something else ended it before."""
    if not stop.done():
        stop.set_exception(error)


def _tell(
    loop: asyncio.AbstractEventLoop, callback: Callable[..., object], *values: object
) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
        loop.call_soon_threadsafe(callback, *values)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
