"""Searching a job's output by lines, in short steps off the loop, within a time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.errors import InputError
from holdfast_daemon.output.pattern import SLOW_HINT, compile_pattern
from holdfast_daemon.output.text import Cleaner

if TYPE_CHECKING:
    import regex

    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.streams import Stream

_STEP_BYTES = 256 * 1024
# A line without end is searched in parts of this size.
_LINE_BYTES = 64 * 1024
_SHOWN_CHARS = 400
_BEFORE_CHARS = 100
# The rest of the time is for the last line begun.
_SCAN_SHARE = 0.75
_LEAST_SECONDS = 0.01
_GRACE_SECONDS = 1.0


class Line(NamedTuple):
    """A line that matched; `number` counts from 1 within its stream."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Matches:
    """What a search found.

    `found` counts all matches, `lines` holds those within the budget. When the time was
    over before the end, `complete` is False and `next_offset` says how far the search
    came.
    """

    lines: tuple[Line, ...]
    found: int
    complete: bool
    next_offset: int

    @property
    def truncated(self) -> bool:
        """Whether there are, or may be, more matches than these."""
        return self.found > len(self.lines) or not self.complete

    @property
    def text(self) -> str:
        """The lines, each with its number, and a last one that says what is missing."""
        rows = [f"{line.number}: {line.text}\n" for line in self.lines]
        if self.found > len(self.lines):
            left = self.found - len(self.lines)
            rows.append(
                f"… [{left:,} more of {self.found:,} matching lines left out] …\n"
            )
        if not self.complete:
            rows.append(
                f"… [the time for searching was over at offset {self.next_offset}] …\n"
            )
        return "".join(rows)


@dataclass(slots=True)
class _Search:
    """State of one search; `step` runs in a thread, one at a time."""

    pattern: regex.Pattern[str]
    budget: int
    deadline: float
    number: int = 1
    rest: bytes = b""
    found: int = 0
    lines: list[Line] = field(default_factory=list[Line])
    over: bool = False

    def step(self, data: bytes, *, last: bool) -> None:
        """Search the lines that `data` completes.

        Raises:
            InputError: the pattern is too slow.
        """
        body, newline, rest = (self.rest + data).rpartition(b"\n")
        if newline:
            self._search(body)
        self.rest = rest
        while len(self.rest) > _LINE_BYTES or (last and self.rest):
            self._match(_cleaned(self.rest[:_LINE_BYTES]))
            self.rest = self.rest[_LINE_BYTES:]

    def skip(self, number: int) -> None:
        """Go on at line `number`, after bytes that are gone."""
        self.number, self.rest = number, b""

    def _search(self, body: bytes) -> None:
        count = body.count(b"\n") + 1
        lines = _cleaned(body).split("\n")
        if len(lines) != count:
            # A control string took a line's end with it; raw lines give the numbers.
            lines = [_cleaned(raw) for raw in body.split(b"\n")]
        for line in lines:
            self._match(line)
            self.number += 1

    @property
    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()

    def too_slow(self) -> InputError:
        """Return the error that says so."""
        return InputError(
            "grep",
            f"the pattern is too slow: it got no further on line {self.number}",
            hint=SLOW_HINT,
        )

    def _match(self, line: str) -> None:
        try:
            match = self.pattern.search(
                line, timeout=max(self.left, _LEAST_SECONDS), concurrent=True
            )
        except TimeoutError:
            raise self.too_slow() from None
        if match is None:
            return
        self.found += 1
        shown = _shown(line, match.start())
        cost = len(shown) + len(str(self.number)) + len(": \n")
        if self.over or cost > self.budget:
            self.over = True
            return
        self.budget -= cost
        self.lines.append(Line(self.number, shown))


async def grep(
    spool: Spool, pattern: str, *, stream: Stream, budget: int, seconds: float
) -> Matches:
    """Return the lines of `stream`, as printed by now, in which `pattern` is found.

    Raises:
        InputError: the pattern is wrong, or too slow for `seconds`.
    """
    begun = time.monotonic()
    compiled = await asyncio.to_thread(compile_pattern, pattern, field="grep")
    search = _Search(compiled, budget, begun + seconds)
    position, end = 0, spool.end
    complete = True
    while position < end:
        if time.monotonic() - begun > seconds * _SCAN_SHARE:
            complete = False
            break
        found = await spool.read(position, _STEP_BYTES, stream)
        if found.skipped:
            search.skip(spool.counts_at(found.offset).of(stream).newlines + 1)
        data = b"".join(piece.data for piece in found.pieces)
        position = found.next_offset
        try:
            # regex counts the process's own time, which a busy machine stretches.
            async with asyncio.timeout(max(search.left, 0) + _GRACE_SECONDS):
                await asyncio.to_thread(search.step, data, last=position >= end)
        except TimeoutError:
            raise search.too_slow() from None
    return Matches(tuple(search.lines), search.found, complete, position)


def _cleaned(data: bytes) -> str:
    cleaner = Cleaner(sniff=False)
    return cleaner.feed(data) + cleaner.finish()


def _shown(line: str, at: int) -> str:
    """Return `line`, or the part of it around the match at `at`."""
    if len(line) <= _SHOWN_CHARS:
        return line
    start = max(0, min(at - _BEFORE_CHARS, len(line) - _SHOWN_CHARS))
    end = start + _SHOWN_CHARS
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")
