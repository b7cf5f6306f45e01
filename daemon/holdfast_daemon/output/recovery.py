"""What is left of a spool after the daemon that wrote it has gone: blocks, for threads.

Damage is told in words and never raised. Only heads and the last segment are read, so
that thousands of jobs come back within a second.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.output.backlog import Counts
from holdfast_daemon.output.segment import (
    HEADER,
    MARK,
    MARK_FRAME,
    DamageError,
    Hint,
    Mark,
    Segment,
    frames,
    opened,
    starts,
)
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(slots=True)
class Recovered:
    """What a directory still holds."""

    segments: list[Segment] = field(default_factory=list[Segment])
    counts: Counts = field(default_factory=Counts)
    faults: list[str] = field(default_factory=list[str])


class _Head(NamedTuple):
    """The start of a file."""

    mark: Mark
    size: int

    @property
    def start(self) -> int:
        return self.mark.counts.position


def recover(directory: Path) -> Recovered:
    """Return what `directory` holds; a missing one holds nothing."""
    found = Recovered()
    try:
        names = starts(directory)
    except FileNotFoundError:
        return found
    except OSError as error:
        found.faults.append(f"the output can't be read: {error.strerror}")
        return found
    heads: list[_Head] = []
    for start in names:
        head = _head(directory, start)
        if head is None:
            found.faults.append(f"the output file at position {start} is unreadable")
        else:
            heads.append(head)
    final = not names
    for index, head in enumerate(heads, 1):
        segment = _trusted(head, heads[index] if index < len(heads) else None)
        if segment is None:
            segment, found.counts, final = _walked(directory, head)
        found.segments.append(segment)
    _tell_holes(found)
    if not final:
        found.faults.append(
            "the daemon ended before all output was kept: what came after position "
            f"{found.counts.position} is lost"
        )
    return found


def _head(directory: Path, start: int) -> _Head | None:
    """Return a file's head, or None when it is none of ours."""
    try:
        with opened(directory, start) as source:
            size = os.fstat(source.fileno()).st_size
            data = source.read(MARK_FRAME)
    except OSError:
        return None
    intro, body = data[: HEADER.size], data[HEADER.size :]
    if len(data) < MARK_FRAME or intro != HEADER.pack(MARK, len(body)):
        return None
    mark = Mark.parse(body)
    return _Head(mark, size) if mark.counts.position == start else None


def _trusted(head: _Head, following: _Head | None) -> Segment | None:
    """Return a segment by what its successor says of it."""
    if following is None:
        return None
    size = following.mark.previous_size
    if size == 0 or following.mark.previous != head.start or size > head.size:
        return None
    counts = following.mark.counts
    return Segment(head.mark.counts, counts, following.start, size)


def _walked(directory: Path, head: _Head) -> tuple[Segment, Counts, bool]:
    """Return a segment to its last good frame, the counts there, and whether final."""
    counts, final = head.mark.counts, False
    segment = Segment(counts, counts, head.start, MARK_FRAME)
    with (
        suppress(DamageError, OSError),
        opened(directory, head.start) as source,
    ):
        for frame in frames(source, Hint(MARK_FRAME, head.start), head.size):
            source.seek(frame.place)
            data = source.read(frame.length)
            if len(data) < frame.length:
                break
            if frame.kind == MARK:
                mark = Mark.parse(data)
                counts, final = mark.counts, mark.final
                break
            counts = counts.plus(Stream(frame.kind), data)
            end, size = frame.offset + frame.length, frame.place + frame.length
            segment = replace(segment, after=counts, end=end, size=size)
    return segment, counts, final


def _tell_holes(found: Recovered) -> None:
    following = [segment.start for segment in found.segments[1:]]
    following.append(found.counts.position)
    for segment, start in zip(found.segments, following, strict=False):
        if start > segment.end:
            found.faults.append(
                f"{start - segment.end} bytes from position {segment.end} are missing"
            )
