"""The segments of one spool that are on disk, as the loop knows them, and reading them.

Files are touched in threads only. Knows nothing of what is still in memory.
"""

from __future__ import annotations

import asyncio
import errno
from bisect import bisect_left, bisect_right
from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING

from holdfast_daemon.errors import LimitError, Reason
from holdfast_daemon.output import segment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from holdfast_daemon.output.backlog import Piece
    from holdfast_daemon.output.segment import Hint, Segment
    from holdfast_daemon.streams import Stream

# Cursors whose place in a file is remembered: a page then needs no scan of its segment.
_HINTS = 16
# Too many open files or no memory: the output is there, only not now.
_SCARCE = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}

_start = attrgetter("start")


class Shelf:
    """Segments in order of position; there may be holes between them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.segments: list[Segment] = []
        self.size = 0
        self.damage: list[str] = []
        self._hints: dict[int, tuple[int, Hint]] = {}

    def put(self, segments: Iterable[Segment]) -> None:
        """Take segments that were written; the first may be the last one, grown."""
        for item in segments:
            if self.segments and self.segments[-1].start == item.start:
                self.size -= self.segments.pop().size
            self.segments.append(item)
            self.size += item.size

    def discard(self, size: int) -> list[Segment]:
        """Take the oldest off until `size` bytes are left; the last one stays."""
        count, last = 0, len(self.segments) - 1
        left = self.size
        while count < last and left > size:
            left -= self.segments[count].size
            count += 1
        going = self.segments[:count]
        del self.segments[:count]
        self.size = left
        return going

    def clear(self) -> None:
        """Forget all."""
        self.segments.clear()
        self._hints.clear()
        self.size = 0

    def at(self, offset: int) -> Segment | None:
        """Return the segment that holds the byte at `offset`."""
        index = bisect_right(self.segments, offset, key=_start) - 1
        if index >= 0 and offset < self.segments[index].end:
            return self.segments[index]
        return None

    def next(self, offset: int) -> int | None:
        """Return where the first segment at or after `offset` starts."""
        index = bisect_left(self.segments, offset, key=_start)
        return self.segments[index].start if index < len(self.segments) else None

    def last(self, offset: int) -> int:
        """Return where the last segment below `offset` ends; 0 when there is none."""
        index = bisect_left(self.segments, offset, key=_start) - 1
        return min(offset, self.segments[index].end) if index >= 0 else 0

    async def read(
        self, held: Segment, offset: int, limit: int, stream: Stream | None
    ) -> tuple[list[Piece], int]:
        """Return bytes of `held` from `offset` on, and the position after them.

        No progress means that the rest of it is gone.

        Raises:
            LimitError: nothing can be opened now.
        """
        if held.lacks(stream):
            return [], held.end
        start, hint = self._hints.get(offset, (-1, None))
        if start != held.start:
            hint = None
        try:
            found = await asyncio.to_thread(
                segment.read,
                self.directory,
                held,
                offset,
                limit,
                stream=stream,
                hint=hint,
            )
        except OSError as error:
            self._cut(held, held.start, error)
            return [], offset
        if found.damaged:
            self._cut(held, found.next_offset)
        elif found.hint:
            self._hints.pop(found.next_offset, None)
            self._hints[found.next_offset] = (held.start, found.hint)
            if len(self._hints) > _HINTS:
                self._hints.pop(next(iter(self._hints)))
        return found.pieces, found.next_offset

    async def read_back(
        self, held: Segment, stream: Stream, limit: int, *, since: int, end: int
    ) -> list[bytes] | None:
        """Return the last bytes of `stream` in `held`, in [since, end), newest first.

        None means that it was damaged: what is good of it may be asked for again.

        Raises:
            LimitError: nothing can be opened now.
        """
        if held.lacks(stream):
            return []
        try:
            found, good = await asyncio.to_thread(
                segment.read_back,
                self.directory,
                held,
                stream,
                limit,
                since=since,
                end=end,
            )
        except OSError as error:
            self._cut(held, held.start, error)
            return None
        if good < held.end:
            self._cut(held, good)
            return None
        return found

    def _cut(self, held: Segment, good: int, error: OSError | None = None) -> None:
        """Cut `held` to what can be read, unless it was discarded meanwhile."""
        if error is not None and error.errno in _SCARCE:
            raise LimitError(
                Reason.LIMIT_REACHED,
                f"the output can't be read now: {error.strerror}",
                hint="try again in a moment",
                retry_after=1.0,
            ) from error
        index = bisect_right(self.segments, held.start, key=_start) - 1
        if index < 0 or self.segments[index].start != held.start:
            return
        present = self.segments[index]
        why = (error.strerror if error else "") or "damaged on disk"
        self.damage.append(
            f"{present.end - good} bytes from position {good} are lost: {why}"
        )
        if good > present.start:
            self.segments[index] = replace(present, end=good)
        else:
            del self.segments[index]
            self.size -= present.size
