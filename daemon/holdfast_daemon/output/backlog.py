"""Output that is not yet on disk, in memory; sans I/O.

Knows nothing of files or of the loop. The spool asks it for batches to write and for
the newest bytes to read.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

FRAME_BYTES = 64 * 1024
_GROW_BYTES = 32 * 1024
# What a chunk costs beside its bytes, so that a million tiny pieces can't fill memory
# unseen.
_CHUNK_WEIGHT = 256


class Tally(NamedTuple):
    """What one stream had printed up to some position."""

    size: int = 0
    newlines: int = 0
    partial: bool = False

    @property
    def lines(self) -> int:
        """Lines, the unfinished last one included."""
        return self.newlines + self.partial

    def plus(self, data: bytes | bytearray, newlines: int) -> Tally:
        """Return the tally after `data`."""
        return Tally(
            self.size + len(data), self.newlines + newlines, not data.endswith(b"\n")
        )


class Counts(NamedTuple):
    """What both streams had printed up to some position, which is their sum."""

    out: Tally = Tally()
    err: Tally = Tally()

    @property
    def position(self) -> int:
        """The offset that these counts stand for."""
        return self.out.size + self.err.size

    def of(self, stream: Stream) -> Tally:
        """Return the tally of `stream`."""
        return self.out if stream is Stream.OUT else self.err

    def plus(self, stream: Stream, data: bytes | bytearray) -> Counts:
        """Return the counts after `data` on `stream`."""
        newlines = data.count(b"\n")
        if stream is Stream.OUT:
            return Counts(self.out.plus(data, newlines), self.err)
        return Counts(self.out, self.err.plus(data, newlines))


class Piece(NamedTuple):
    """Consecutive bytes of one stream."""

    stream: Stream
    data: bytes


def merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Join neighbours of one stream."""
    runs: list[tuple[Stream, list[bytes]]] = []
    for stream, data in pieces:
        if not runs or runs[-1][0] is not stream:
            runs.append((stream, []))
        runs[-1][1].append(data)
    return tuple(Piece(stream, b"".join(run)) for stream, run in runs)


class Chunk:
    """Bytes of one stream as they came, with the counts before and after them."""

    __slots__ = ("after", "before", "data", "stream")

    def __init__(
        self, stream: Stream, data: bytes | bytearray, before: Counts, after: Counts
    ) -> None:
        self.stream = stream
        self.data = data
        self.before = before
        self.after = after

    @property
    def start(self) -> int:
        """Position of the first byte."""
        return self.before.position

    @property
    def end(self) -> int:
        """Position after the last byte."""
        return self.after.position


_start = attrgetter("start")


class Backlog:
    """Chunks in the order they came; the first ones may be on their way to the disk."""

    def __init__(self, frame_bytes: int) -> None:
        self.weight = 0
        self.counts = Counts()
        self._frame_bytes = min(FRAME_BYTES, max(1, frame_bytes))
        self._grow_bytes = min(_GROW_BYTES, self._frame_bytes)
        self._chunks: list[Chunk] = []
        self._taken = 0

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.weight - _CHUNK_WEIGHT * len(self._chunks)

    @property
    def start(self) -> int:
        """Position of the first byte held; the end when nothing is."""
        return self._chunks[0].start if self._chunks else self.counts.position

    @property
    def all_taken(self) -> bool:
        """Whether the last `take` left nothing."""
        return self._taken == len(self._chunks)

    def append(self, stream: Stream, data: bytes) -> None:
        """Add `data`; short pieces of one stream grow together."""
        if len(data) > self._frame_bytes:
            view = memoryview(data)
            for at in range(0, len(data), self._frame_bytes):
                self._append(stream, bytes(view[at : at + self._frame_bytes]))
        else:
            self._append(stream, data)

    def _append(self, stream: Stream, data: bytes) -> None:
        before = self.counts
        self.counts = after = before.plus(stream, data)
        self.weight += len(data)
        if len(self._chunks) > self._taken:
            last = self._chunks[-1]
            if (
                last.stream is stream
                and len(last.data) + len(data) <= self._grow_bytes
                and last.end == before.position
            ):
                if not isinstance(last.data, bytearray):
                    last.data = bytearray(last.data)
                last.data += data
                last.after = after
                return
        self._chunks.append(Chunk(stream, data, before, after))
        self.weight += _CHUNK_WEIGHT

    def take(self, size: int) -> Sequence[Chunk]:
        """Return the first chunks, about `size` bytes; they stay until `release`."""
        total = count = 0
        for chunk in self._chunks:
            if total and total + len(chunk.data) > size:
                break
            total += len(chunk.data)
            count += 1
        self._taken = count
        return self._chunks[:count]

    def release(self, count: int) -> None:
        """Forget the first `count` of the chunks taken; the others are free again."""
        self._forget(0, count)
        self._taken = 0

    def shrink(self, weight: int) -> int:
        """Drop the oldest chunks not taken until at most `weight` is held.

        The newest one stays. Returns the number of bytes dropped.
        """
        last = self._taken
        held = self.weight
        while held > weight and last < len(self._chunks) - 1:
            held -= len(self._chunks[last].data) + _CHUNK_WEIGHT
            last += 1
        return self._forget(self._taken, last)

    def clear(self) -> None:
        """Forget all; nothing may be taken."""
        self._forget(0, len(self._chunks))

    def _forget(self, first: int, last: int) -> int:
        dropped = sum(len(chunk.data) for chunk in self._chunks[first:last])
        self.weight -= dropped + _CHUNK_WEIGHT * (last - first)
        del self._chunks[first:last]
        return dropped

    def at(self, offset: int) -> Chunk | None:
        """Return the chunk that holds the byte at `offset`."""
        index = bisect_right(self._chunks, offset, key=_start) - 1
        if index >= 0 and offset < self._chunks[index].end:
            return self._chunks[index]
        return None

    def next(self, offset: int) -> int:
        """Return where the first chunk at or after `offset` starts, or the end."""
        index = bisect_left(self._chunks, offset, key=_start)
        following = index < len(self._chunks)
        return self._chunks[index].start if following else self.counts.position

    def last(self, offset: int) -> int:
        """Return where the last chunk below `offset` ends; 0 when there is none."""
        index = bisect_left(self._chunks, offset, key=_start) - 1
        return min(offset, self._chunks[index].end) if index >= 0 else 0

    def read(
        self, offset: int, limit: int, stream: Stream | None
    ) -> tuple[list[Piece], int]:
        """Return up to `limit` bytes from `offset`, and the position after them.

        Stops at a hole, where chunks were dropped.
        """
        pieces: list[Piece] = []
        index = max(0, bisect_right(self._chunks, offset, key=_start) - 1)
        while limit > 0 and index < len(self._chunks):
            chunk = self._chunks[index]
            if not chunk.start <= offset < chunk.end:
                break
            if stream is None or chunk.stream is stream:
                skip = offset - chunk.start
                data = bytes(memoryview(chunk.data)[skip : skip + limit])
                pieces.append(Piece(chunk.stream, data))
                limit -= len(data)
                offset += len(data)
            else:
                offset = chunk.end
            index += 1
        return pieces, offset

    def read_back(
        self, stream: Stream, limit: int, since: int, end: int
    ) -> tuple[list[bytes], int]:
        """Return the last bytes of `stream` in [since, end), newest first.

        Also returns the position down to which all was seen; stops at a hole.
        """
        found: list[bytes] = []
        index = bisect_left(self._chunks, end, key=_start) - 1
        while index >= 0 and limit > 0 and end > since:
            chunk = self._chunks[index]
            if chunk.end < end:
                break
            if chunk.stream is stream:
                low = max(0, since - chunk.start, end - chunk.start - limit)
                data = bytes(memoryview(chunk.data)[low : end - chunk.start])
                found.append(data)
                limit -= len(data)
            end = chunk.start
            index -= 1
        return found, end
