"""The files of a spool: plain functions that block, to be run in threads.

A segment is named by the position of its first byte and holds frames `[1 byte stream][4
bytes length][data]`. Frames of stream 0 are marks: each segment starts with one that
holds what had come before it, so positions, line numbers and totals outlive the daemon
and the segments already discarded; the last mark of a spool is final and says that
nothing is missing. Knows nothing of the loop.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from holdfast_daemon.output.backlog import FRAME_BYTES, Counts, Piece, Tally
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdfast_daemon.output.backlog import Chunk

MARK = 0
HEADER = struct.Struct(">BI")
_MARK = struct.Struct(">BQQQQBQQB")
_DIGITS = 20
_READ_BUFFER = 128 * 1024
# writev takes at most IOV_MAX buffers, 1024 on Linux and macOS.
_BUFFERS = 1000


class DamageError(Exception):
    """A segment ends, or makes no sense, before its recorded end."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One file: its bytes have the positions [start, end) and fill `size` bytes."""

    before: Counts
    after: Counts
    end: int
    size: int

    @property
    def start(self) -> int:
        """Position of the first byte."""
        return self.before.position

    def lacks(self, stream: Stream | None) -> bool:
        """Whether nothing of `stream` is in it."""
        return stream is not None and (
            self.before.of(stream).size == self.after.of(stream).size
        )


class Frame(NamedTuple):
    """Where the bytes of one frame are."""

    kind: int
    offset: int
    place: int
    length: int


class Hint(NamedTuple):
    """A frame's header: its place in the file and its first byte's position."""

    place: int
    offset: int


@dataclass(frozen=True, slots=True)
class Order:
    """What one write shall do."""

    directory: Path
    tail: Segment | None
    chunks: Sequence[Chunk]
    counts: Counts
    final: bool
    segment_bytes: int
    discard: Sequence[Segment] = ()


@dataclass(slots=True)
class Written:
    """What a write did: whole chunks only, also when it failed."""

    segments: list[Segment] = field(default_factory=list[Segment])
    chunks: int = 0
    final: bool = False
    error: str = ""


class Mark(NamedTuple):
    """What had come before, and which file with how many good bytes lies before."""

    final: bool
    counts: Counts
    previous: int = 0
    previous_size: int = 0

    def pack(self) -> bytes:
        """Return it as a frame."""
        body = _MARK.pack(
            self.final,
            self.previous,
            self.previous_size,
            *self.counts.out,
            *self.counts.err,
        )
        return HEADER.pack(MARK, len(body)) + body

    @classmethod
    def parse(cls, body: bytes) -> Mark:
        """Return the mark in a frame's bytes."""
        final, previous, size, *out, err_size, err_newlines, err_partial = _MARK.unpack(
            body
        )
        counts = Counts(
            Tally(out[0], out[1], bool(out[2])),
            Tally(err_size, err_newlines, bool(err_partial)),
        )
        return cls(bool(final), counts, previous, size)


MARK_FRAME = HEADER.size + _MARK.size


def path_of(directory: Path, start: int) -> str:
    """Return the path of the segment that starts at position `start`."""
    return os.path.join(directory, f"{start:0{_DIGITS}d}.seg")  # noqa: PTH118 - hot


def room_for(chunks: Sequence[Chunk], segment_bytes: int) -> int:
    """Return the most that writing `chunks` and the final mark may take."""
    size = sum(len(chunk.data) + HEADER.size for chunk in chunks)
    segments = min(len(chunks), 2 * size // segment_bytes) + 2
    return size + segments * MARK_FRAME


def write(order: Order) -> Written:
    """Discard, then append chunks, rolling to new segments; never raises OSError."""
    done = Written()
    try:
        for segment in order.discard:
            with suppress(FileNotFoundError):
                os.unlink(path_of(order.directory, segment.start))  # noqa: PTH108 - hot
        _append(order, done)
    except OSError as error:
        done.error = error.strerror or str(error)
    return done


def _append(order: Order, done: Written) -> None:
    current, index = order.tail, 0
    while index < len(order.chunks) or (order.final and not done.final):
        at = order.chunks[index].before if index < len(order.chunks) else order.counts
        fresh = current is None or current.end != at.position
        if current is not None and not fresh and index < len(order.chunks):
            room = order.segment_bytes - current.size
            fresh = len(order.chunks[index].data) + HEADER.size > room
        buffers: list[bytes | bytearray] = []
        if current is None or fresh:
            mark = Mark(final=False, counts=at)
            if current is not None and current.end == at.position:
                mark = mark._replace(previous=current.start, previous_size=current.size)
            buffers.append(mark.pack())
            current = Segment(at, at, at.position, 0)
        size = current.size + sum(map(len, buffers))
        after, first = current.after, index
        while index < len(order.chunks) and order.chunks[index].start == after.position:
            chunk = order.chunks[index]
            length = len(chunk.data) + HEADER.size
            if index > first and size + length > order.segment_bytes:
                break
            buffers += (HEADER.pack(chunk.stream, len(chunk.data)), chunk.data)
            size, after, index = size + length, chunk.after, index + 1
        final = order.final and order.counts.position == after.position
        if final:
            buffers.append(Mark(final=True, counts=order.counts).pack())
            size += len(buffers[-1])
        _put(order.directory, current, buffers)
        current = replace(current, after=after, end=after.position, size=size)
        if done.segments and done.segments[-1].start == current.start:
            done.segments.pop()
        done.segments.append(current)
        done.chunks, done.final = index, final


def _put(
    directory: Path, segment: Segment, buffers: Sequence[bytes | bytearray]
) -> None:
    """Write `buffers` after the good part of `segment`; all or nothing."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    if segment.size == 0:
        flags |= os.O_TRUNC
    path = path_of(directory, segment.start)
    try:
        target = os.open(path, flags, 0o600)
    except FileNotFoundError:
        _make_private(directory)
        target = os.open(path, flags, 0o600)
    try:
        os.lseek(target, segment.size, os.SEEK_SET)
        for at in range(0, len(buffers), _BUFFERS):
            group = buffers[at : at + _BUFFERS]
            total, sent = sum(map(len, group)), os.writev(target, group)
            if sent < total:
                rest = memoryview(b"".join(group))[sent:]
                while rest:
                    rest = rest[os.write(target, rest) :]
    except OSError:
        # The size on record decides what is read; cutting only frees the space.
        with suppress(OSError):
            os.ftruncate(target, segment.size)
        raise
    finally:
        os.close(target)


def _make_private(directory: Path) -> None:
    for missing in (*reversed(directory.parents), directory):
        if not missing.exists():
            missing.mkdir(mode=0o700, exist_ok=True)


def frames(source: BinaryIO, hint: Hint, size: int) -> Iterator[Frame]:
    """Yield the frames from `hint` on.

    Raises:
        DamageError: what follows is torn or is no frame.
    """
    place, offset = hint
    while place < size:
        source.seek(place)
        head = source.read(HEADER.size)
        if len(head) < HEADER.size:
            raise DamageError
        kind, length = HEADER.unpack(head)
        place += HEADER.size
        good = length <= FRAME_BYTES if kind else length == _MARK.size
        if kind not in (MARK, *Stream) or not good or place + length > size:
            raise DamageError
        yield Frame(kind, offset, place, length)
        place += length
        if kind:
            offset += length


def opened(directory: Path, start: int) -> BinaryIO:
    """Open the segment that starts at position `start` for reading.

    Raises:
        OSError: it can't be.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
    target = os.open(path_of(directory, start), flags)
    return os.fdopen(target, "rb", buffering=_READ_BUFFER)


@dataclass(slots=True)
class Found:
    """What a segment held; `damaged` when it broke off at `next_offset`."""

    pieces: list[Piece]
    next_offset: int
    hint: Hint | None = None
    damaged: bool = False


def read(
    directory: Path,
    segment: Segment,
    offset: int,
    limit: int,
    *,
    stream: Stream | None,
    hint: Hint | None,
) -> Found:
    """Return up to `limit` bytes at and after `offset`, within one segment.

    Raises:
        OSError: the file can't be opened or read.
    """
    found = Found([], offset)
    with opened(directory, segment.start) as source:
        try:
            for frame in frames(source, hint or Hint(0, segment.start), segment.size):
                if frame.kind == MARK or frame.offset + frame.length <= offset:
                    continue
                found.hint = Hint(frame.place - HEADER.size, frame.offset)
                if limit <= 0:
                    return found
                end = frame.offset + frame.length
                skip = found.next_offset - frame.offset
                if stream is None or frame.kind == stream:
                    wanted = min(limit, frame.length - skip)
                    source.seek(frame.place + skip)
                    data = source.read(wanted)
                    if len(data) < wanted:
                        raise DamageError  # noqa: TRY301 - as frames() does
                    found.pieces.append(Piece(Stream(frame.kind), data))
                    limit -= wanted
                    end = found.next_offset + wanted
                found.next_offset = end
                if end < frame.offset + frame.length:
                    return found
            found.damaged = limit > 0 and found.next_offset < segment.end
        except DamageError:
            found.damaged = True
    return found


def read_back(
    directory: Path,
    segment: Segment,
    stream: Stream,
    limit: int,
    *,
    since: int,
    end: int,
) -> tuple[list[bytes], int]:
    """Return the last bytes of `stream` in [since, end), newest first.

    Also returns the position up to which the segment is good.

    Raises:
        OSError: the file can't be opened or read.
    """
    good = segment.start
    places: list[tuple[int, int]] = []
    found: list[bytes] = []
    with opened(directory, segment.start) as source:
        with suppress(DamageError):
            for frame in frames(source, Hint(0, segment.start), segment.size):
                if frame.kind:
                    good = frame.offset + frame.length
                    low, high = max(since, frame.offset), min(end, good)
                    if frame.kind == stream and low < high:
                        place = frame.place + low - frame.offset
                        places.append((place, high - low))
        while places and limit > 0:
            place, length = places.pop()
            wanted = min(limit, length)
            source.seek(place + length - wanted)
            found.append(source.read(wanted))
            limit -= wanted
    return found, good


def remove(directory: Path) -> None:
    """Delete the segments, and the directory when nothing else is in it.

    Raises:
        OSError: something could not be deleted.
    """
    with suppress(FileNotFoundError):
        for start in starts(directory):
            with suppress(FileNotFoundError):
                os.unlink(path_of(directory, start))  # noqa: PTH108 - as above
        with suppress(OSError):
            directory.rmdir()


def starts(directory: Path) -> list[int]:
    """Return where the segments in `directory` start, in order.

    Raises:
        OSError: it can't be read.
    """
    names = (name.partition(".") for name in os.listdir(directory))  # noqa: PTH208
    return sorted(
        int(stem)
        for stem, _, suffix in names
        if suffix == "seg"
        and len(stem) == _DIGITS
        and stem.isascii()
        and stem.isdecimal()
    )
