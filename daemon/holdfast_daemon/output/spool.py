"""A job's output by offset: one appender, any number of cursors, flat memory.

Joins what is in memory (backlog) with what is on disk (shelf), and decides when it goes
there. Knows nothing of channels, jobs or clients, and never touches a file in the loop.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Self

from holdfast_daemon.output import segment
from holdfast_daemon.output.backlog import Backlog, Piece, merged
from holdfast_daemon.output.recovery import recover
from holdfast_daemon.output.shelf import Shelf
from holdfast_daemon.output.text import last_line
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.output.backlog import Counts
    from holdfast_daemon.output.segment import Written

__all__ = ["Piece", "Slice", "Spool"]

_BATCH_BYTES = 1024 * 1024
# Below this a write waits a moment for more: a thread hop for each line is a waste.
_EAGER_BYTES = 256 * 1024
# What an ended job keeps in memory when the disk will not take it: about one answer.
_ORPHAN_BYTES = 32 * 1024
_RECENT_BYTES = 512
_RETRY_SECONDS = 0.5
_RETRY_MAX_SECONDS = 30.0
_TAIL_BYTES = 64 * 1024


class Slice(NamedTuple):
    """What a read found.

    `skipped` bytes before `offset` were asked for and are gone; read on at
    `next_offset`.
    """

    pieces: tuple[Piece, ...]
    offset: int
    next_offset: int
    skipped: int
    end: int
    earliest: int


class Spool:
    """The output of one job.

    Attributes:
        patient: What prints it keeps it too, and can wait while the disk refuses.
    """

    def __init__(
        self,
        directory: Path,
        *,
        limit_bytes: int,
        segment_bytes: int,
        backlog_bytes: int,
        flush_seconds: float = 0.1,
    ) -> None:
        """Touch nothing yet: `directory` is made when there is something to write."""
        self._limit_bytes = limit_bytes
        self._segment_bytes = segment_bytes
        self._backlog_bytes = backlog_bytes
        self._flush_seconds = flush_seconds
        self._batch_bytes = min(_BATCH_BYTES, limit_bytes // 4)
        self._eager_bytes = min(_EAGER_BYTES, backlog_bytes // 4)
        self._backlog = Backlog(segment_bytes)
        self._shelf = Shelf(directory)
        self._recent = {Stream.OUT: b"", Stream.ERR: b""}
        self._latest = Stream.OUT
        self._closed = self._final = self._removed = self._urgent = False
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[Written] | None = None
        self._retry = 0.0
        self._trouble = self._cause = ""
        self._lost = self._late = 0
        self.patient = False
        self._readers: dict[asyncio.Future[None], int] = {}
        self._drainers: dict[asyncio.Future[None], int] = {}

    @classmethod
    def recover(
        cls,
        directory: Path,
        *,
        limit_bytes: int,
        segment_bytes: int,
        backlog_bytes: int,
    ) -> Self:
        """Return what another run left in `directory`, closed. Blocks: for a thread."""
        spool = cls(
            directory,
            limit_bytes=limit_bytes,
            segment_bytes=segment_bytes,
            backlog_bytes=backlog_bytes,
        )
        found = recover(directory)
        spool._shelf.put(found.segments)
        spool._shelf.damage = found.faults
        spool._backlog.counts = found.counts
        spool._closed = spool._final = True
        return spool

    @property
    def directory(self) -> Path:
        """Where it is kept; it need not be there."""
        return self._shelf.directory

    def reopen(self) -> None:
        """Go on after what was recovered: more of it comes from a host that kept it."""
        self._closed = self._final = False
        self._shelf.damage.clear()

    @property
    def end(self) -> int:
        """Position after the last byte ever appended."""
        return self._backlog.counts.position

    @property
    def earliest(self) -> int:
        """Position of the first byte still kept."""
        return self._kept(0)

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

    @property
    def backlog(self) -> int:
        """Bytes not yet on disk."""
        return self._backlog.size

    @property
    def disk_bytes(self) -> int:
        """What the files take."""
        return self._shelf.size

    @property
    def full(self) -> bool:
        """Whether the host should wait until the disk has caught up."""
        return not self._yields and self._backlog.weight >= self._backlog_bytes

    @property
    def _yields(self) -> bool:
        """The oldest goes while the disk refuses, so that the command runs on."""
        return bool(self._trouble) and not self.patient

    @property
    def fault(self) -> str:
        """What is wrong with the disk and what was lost; empty when all is well."""
        parts = list(self._shelf.damage)
        if self._lost:
            parts.append(f"{self._lost} bytes of output were not kept: {self._cause}")
        elif self._trouble:
            kept = " here, so its host keeps it" if self.patient else ""
            parts.append(f"the output can't be written to disk{kept}: {self._trouble}")
        if self._late:
            parts.append(f"{self._late} bytes came after the end and were ignored")
        return "; ".join(parts)

    @property
    def last_line(self) -> str:
        """The newest line that is not blank, cleaned; empty when there is none."""
        other = Stream.ERR if self._latest is Stream.OUT else Stream.OUT
        return last_line(self._recent[self._latest]) or last_line(self._recent[other])

    def bytes_of(self, stream: Stream) -> int:
        """Return how many bytes ever came on `stream`."""
        return self._backlog.counts.of(stream).size

    def lines_of(self, stream: Stream) -> int:
        """Return how many lines ever came on `stream`, an unfinished one included."""
        return self._backlog.counts.of(stream).lines

    def counts_at(self, offset: int) -> Counts:
        """Return what had come before the segment or chunk that holds `offset`.

        Exact for `offset` itself at `earliest` and wherever a read had to skip.
        """
        held = self._shelf.at(offset) or self._backlog.at(offset)
        return held.before if held else self._backlog.counts

    def append(self, stream: Stream, data: bytes) -> None:
        """Take bytes as they came; never blocks and never waits."""
        if not data:
            return
        if self._closed:
            self._late += len(data)
            return
        self._backlog.append(stream, data)
        recent = data if len(data) >= _RECENT_BYTES else self._recent[stream] + data
        self._recent[stream] = recent[-_RECENT_BYTES:]
        self._latest = stream
        weight = self._backlog.weight
        ceiling = self._backlog_bytes // 2 if self._yields else 2 * self._backlog_bytes
        if weight > ceiling:
            self._drop(ceiling - ceiling // 4)
        if self._readers:
            _wake(self._readers, self.end)
        if self._timer is None or weight >= self._eager_bytes:
            self._pump()

    def close(self) -> None:
        """Nothing more will come; what is in memory goes to disk in the background."""
        if not self._closed:
            self._closed = True
            _wake(self._readers)
            self._pump()

    def _drop(self, weight: int) -> None:
        dropped = self._backlog.shrink(weight)
        if dropped:
            self._lost += dropped
            self._cause = self._trouble or "the disk is too slow"

    @property
    def _unwritten(self) -> bool:
        last = self._closed and not self._final and self.end > 0
        return not self._removed and (self._backlog.weight > 0 or last)

    def _pump(self) -> None:
        """Start the next write or set the timer for it, if there is something."""
        if self._writing is not None or not self._unwritten:
            return
        if self._urgent:
            delay = 0.0
        elif self._retry:
            delay = self._retry
        else:
            hasty = self._closed or self._backlog.weight >= self._eager_bytes
            delay = 0.0 if hasty else self._flush_seconds
        if delay == 0:
            self._write()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(delay, self._write)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        self._stop_timer()
        if self._writing is not None or not self._unwritten:
            return
        chunks = self._backlog.take(self._batch_bytes)
        coming = segment.room_for(chunks, self._segment_bytes)
        order = segment.Order(
            directory=self._shelf.directory,
            tail=self._shelf.segments[-1] if self._shelf.segments else None,
            chunks=chunks,
            counts=self._backlog.counts,
            final=self._closed and self._backlog.all_taken,
            segment_bytes=self._segment_bytes,
            discard=self._shelf.discard(self._limit_bytes - coming),
        )
        # A future and no task: nobody can cancel a write half-way and start another.
        loop = asyncio.get_running_loop()
        try:
            self._writing = loop.run_in_executor(None, segment.write, order)
        except RuntimeError as error:
            self._apply(segment.Written(error=str(error)))
        else:
            self._writing.add_done_callback(self._written)

    def _written(self, future: asyncio.Future[Written]) -> None:
        self._writing = None
        if future.cancelled():
            self._apply(segment.Written(error="the daemon is stopping"))
            return
        error = future.exception()
        self._apply(segment.Written(error=repr(error)) if error else future.result())

    def _apply(self, done: Written) -> None:
        self._shelf.put(done.segments)
        self._backlog.release(done.chunks)
        self._final = done.final
        if done.error:
            self._urgent = False
            self._trouble = done.error
            self._retry = min(max(_RETRY_SECONDS, self._retry * 2), _RETRY_MAX_SECONDS)
            if self._yields:
                self._drop(_ORPHAN_BYTES if self._closed else self._backlog_bytes // 4)
        else:
            self._trouble, self._retry = "", 0.0
        if self._trouble or self._backlog.weight < self._backlog_bytes // 2:
            _wake(self._drainers)
        self._pump()

    async def drained(self) -> None:
        """Return when less than half of the backlog is left."""
        while (
            self._backlog.weight >= self._backlog_bytes // 2
            and not self._yields
            and not self._removed
        ):
            await _wait(self._drainers)

    async def sync(self) -> bool:
        """Return whether all that was appended is on disk; `fault` says why not.

        Of what was deleted nothing is left to wait for.
        """
        target = self.end
        while self._unwritten and (self._closed or self._backlog.start < target):
            self._urgent = True
            self._pump()
            if self._writing is not None:
                await asyncio.wait({self._writing})
            if self._trouble:
                break
        self._urgent = False
        return self._removed or not self._trouble

    async def remove(self) -> None:
        """Delete the output, in memory and on disk."""
        self._removed = True
        self.close()
        self._stop_timer()
        if self._writing is not None:
            await asyncio.wait({self._writing})
        self._shelf.clear()
        self._backlog.clear()
        _wake(self._drainers)
        try:
            await asyncio.to_thread(segment.remove, self._shelf.directory)
        except OSError as error:
            self._shelf.damage.append(
                f"the output could not be deleted: {error.strerror}"
            )

    async def grown(self, offset: int) -> None:
        """Return when there is something after `offset`, or nothing more will come."""
        while self.end <= offset and not self._closed:
            await _wait(self._readers, offset)

    async def read(
        self, offset: int, limit: int, stream: Stream | None = None
    ) -> Slice:
        """Return up to `limit` bytes from `offset` on; of one stream, if it is named.

        Below `earliest`, or in a hole that a full disk left, it starts at the next byte
        kept. An offset beyond the end counts as the end. Stops before the next hole,
        also one that a discard makes meanwhile.
        """
        asked = max(0, min(offset, self.end))
        start = position = self._kept(asked)
        pieces: list[Piece] = []
        while limit > 0 and position < self.end:
            held = self._shelf.at(position)
            if held is None:
                found, after = self._backlog.read(position, limit, stream)
            else:
                found, after = await self._shelf.read(held, position, limit, stream)
            if after == position:
                if position > start:
                    break
                start = position = self._kept(position)
            pieces += found
            limit -= sum(len(piece.data) for piece in found)
            position = max(position, after)
        skipped = start - asked
        return Slice(merged(pieces), start, position, skipped, self.end, self.earliest)

    def _kept(self, offset: int) -> int:
        """Return the position of the first byte kept at or after `offset`."""
        if self._shelf.at(offset) or self._backlog.at(offset):
            return offset
        following = self._backlog.next(offset)
        shelved = self._shelf.next(offset)
        return following if shelved is None else min(shelved, following)

    async def head(self, stream: Stream, limit: int) -> bytes:
        """Return the first bytes kept of `stream`, up to a hole."""
        position = 0
        while position < self.end:
            found = await self.read(position, limit, stream)
            if found.pieces:
                return b"".join(piece.data for piece in found.pieces)
            position = found.next_offset
        return b""

    async def tail(
        self, stream: Stream, limit: int, *, since: int = 0, until: int | None = None
    ) -> bytes:
        """Return the last bytes of `stream` in [since, until), back to a hole."""
        parts: list[bytes] = []
        end = self.end if until is None else min(until, self.end)
        while limit > 0 and end > since:
            held = self._shelf.at(end - 1)
            found: list[bytes] | None
            if held is None:
                found, low = self._backlog.read_back(stream, limit, since, end)
            else:
                found = await self._shelf.read_back(
                    held, stream, limit, since=since, end=end
                )
                low = end if found is None else held.start
            if low == end:
                if parts:
                    break
                low = max(self._shelf.last(end), self._backlog.last(end))
            for part in found or ():
                parts.append(part)
                limit -= len(part)
            end = low
        return b"".join(reversed(parts))

    async def tail_lines(self, stream: Stream, n: int, limit: int) -> bytes:
        """Return the last `n` lines of `stream`, but not more than `limit` bytes."""
        size = min(limit, _TAIL_BYTES)
        while True:
            data = await self.tail(stream, size)
            at = len(data) - 1 if data.endswith(b"\n") else len(data)
            for _ in range(n):
                at = data.rfind(b"\n", 0, at)
                if at < 0:
                    break
            if at >= 0:
                return data[at + 1 :]
            if len(data) < size or size >= limit:
                return data if n > 0 else b""
            size = min(limit, size * 8)


async def _wait(waiters: dict[asyncio.Future[None], int], offset: int = 0) -> None:
    waiter = asyncio.get_running_loop().create_future()
    waiters[waiter] = offset
    try:
        await waiter
    finally:
        waiters.pop(waiter, None)


def _wake(waiters: dict[asyncio.Future[None], int], end: int | None = None) -> None:
    """Wake all who wait, or those who wait for something before `end`."""
    for waiter, offset in list(waiters.items()):
        if (end is None or offset < end) and not waiter.done():
            waiter.set_result(None)
