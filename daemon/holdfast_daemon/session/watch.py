"""Who takes part in a session is told what happens, in order, and holds nobody up.

What the terminal printed is read from the spool by cursor. Everything else waits here
for each one, bounded: of what commands printed the oldest goes first, and is counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from holdfast_daemon.session.frame import Ended, Printed, RunPrinted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from holdfast_daemon.output.spool import Slice
    from holdfast_daemon.session.frame import Frame

_PIECE_BYTES = 64 * 1024
_WAITING_BYTES = 1024 * 1024
# What a frame takes beside its data.
_FRAME_BYTES = 256


class Output(Protocol):
    """What a terminal printed, by position: a spool."""

    @property
    def end(self) -> int:
        """Position after the last byte."""
        ...

    @property
    def closed(self) -> bool:
        """Nothing more will come."""
        ...

    async def grown(self, offset: int) -> None:
        """Return when there is something after `offset`, or nothing more will come."""
        ...

    async def read(self, offset: int, limit: int) -> Slice:
        """Return what is kept from `offset` on."""
        ...


class _Waiting(NamedTuple):
    """A frame, and what had been printed when it happened."""

    at: int
    frame: Frame


class _Watcher:
    """What one of them has yet to be told."""

    def __init__(self) -> None:
        self.waiting: deque[_Waiting] = deque()
        self.happened = asyncio.Event()
        self._size = 0

    def put(self, at: int, frame: Frame) -> None:
        self.waiting.append(_Waiting(at, frame))
        self._size += _weight(frame)
        while self._size > _WAITING_BYTES and self._forget():
            continue
        self.happened.set()

    def _forget(self) -> bool:
        """Drop the oldest output of a command; the next of it tells how much."""
        oldest = next(
            (n for n, w in enumerate(self.waiting) if isinstance(w.frame, RunPrinted)),
            None,
        )
        if oldest is None or oldest == len(self.waiting) - 1:
            return False
        dropped = self.waiting[oldest].frame
        assert isinstance(dropped, RunPrinted)  # noqa: S101 - it was looked for
        del self.waiting[oldest]
        self._size -= _weight(dropped)
        lost = dropped.skipped + len(dropped.data)
        for number in range(oldest, len(self.waiting)):
            at, frame = self.waiting[number]
            if isinstance(frame, RunPrinted) and frame.job_id == dropped.job_id:
                heavier = replace(frame, skipped=frame.skipped + lost)
                self.waiting[number] = _Waiting(at, heavier)
                break
        return True

    def take(self) -> Frame:
        frame = self.waiting.popleft().frame
        self._size -= _weight(frame)
        return frame


def _weight(frame: Frame) -> int:
    data = len(frame.data) if isinstance(frame, RunPrinted) else 0
    return data + _FRAME_BYTES


class Watchers:
    """All who take part in one session."""

    def __init__(
        self, output: Output, on_left: Callable[[], None] = lambda: None
    ) -> None:
        """Show what `output` gets; call `on_left` when one of them has left."""
        self._output = output
        self._on_left = on_left
        self._watchers: set[_Watcher] = set()

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._watchers)

    def tell(self, frame: Frame) -> None:
        """Tell all of them; never blocks."""
        for watcher in self._watchers:
            watcher.put(self._output.end, frame)

    async def watch(
        self, offset: int, first: Iterable[Frame] = ()
    ) -> AsyncGenerator[Frame]:
        """Yield `first`, and then all that happens, until the session's end.

        What was printed comes from `offset` on, and each other thing between what was
        printed before it and after it.
        """
        watcher = _Watcher()
        # Before the first wait, so that nothing that happens meanwhile is missed.
        self._watchers.add(watcher)
        try:
            for frame in first:
                if isinstance(frame, Ended):
                    async for rest in self._printed(offset, self._output.end):
                        yield rest
                    yield frame
                    return
                yield frame
            while True:
                until = watcher.waiting[0].at if watcher.waiting else self._output.end
                if offset < until:
                    async for printed in self._printed(offset, until):
                        yield printed
                        offset = printed.offset
                    offset = max(offset, until)
                elif watcher.waiting:
                    frame = watcher.take()
                    yield frame
                    if isinstance(frame, Ended):
                        return
                else:
                    await self._something(watcher, offset)
        finally:
            self._watchers.discard(watcher)
            self._on_left()

    async def _printed(self, offset: int, until: int) -> AsyncGenerator[Printed]:
        """Yield what was printed from `offset` until `until`; gaps are told."""
        skipped = 0
        while offset < until:
            found = await self._output.read(offset, min(_PIECE_BYTES, until - offset))
            skipped += found.skipped
            data = b"".join(piece.data for piece in found.pieces)
            if found.next_offset <= offset:
                return  # nothing of it is kept any more
            offset = found.next_offset
            if data:
                yield Printed(data, offset, skipped)
                skipped = 0
        if skipped:
            yield Printed(b"", offset, skipped)

    async def _something(self, watcher: _Watcher, offset: int) -> None:
        """Return when more was printed, or something else happened."""
        watcher.happened.clear()
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(watcher.happened.wait())]
        if not self._output.closed:
            waits.append(asyncio.create_task(_grown(self._output, offset)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waits:
                task.cancel()
            await asyncio.gather(*waits, return_exceptions=True)


async def _grown(output: Output, offset: int) -> None:
    await output.grown(offset)
