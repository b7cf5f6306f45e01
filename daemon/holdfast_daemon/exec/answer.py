"""The part of a job's output that one answer shows."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from holdfast_daemon.errors import DaemonError
from holdfast_daemon.output.grep import grep
from holdfast_daemon.output.text import clean
from holdfast_daemon.output.window import share, window
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.output.spool import Slice, Spool
    from holdfast_daemon.output.window import Window

# Escapes and progress bars vanish in cleaning, so more is read than can be shown.
_READ_FACTOR = 2
# A character takes up to four bytes.
_CHARACTER_BYTES = 4
# Cleaning goes at about 25 MB/s where it is slow: so much takes a millisecond.
_INLINE_BYTES = 24 * 1024

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """Cleaned text of both streams.

    Attributes:
        truncated: Something was left out.
        shown: Lines in both texts.
        next_offset: Where to read on.
        skipped: Bytes that were asked for and have been discarded.
    """

    stdout: str
    stderr: str
    truncated: bool
    shown: int
    next_offset: int
    skipped: int = 0


def count_lines(*texts: str) -> int:
    """Return the number of lines, a last one without a newline included."""
    return sum(t.count("\n") + (not t.endswith("\n")) for t in texts if t)


async def of_job(job: Job, budget: int) -> Answer:
    """Return what to show; what ran has run, whatever becomes of its output."""
    try:
        return await overview(job.spool, budget, job.id)
    except DaemonError as error:
        job.add_note(
            f"its output could not be read just now ({error.message}):"
            f" ssh_job_read job_id={job.id} reads it"
        )
        return Answer("", "", True, 0, 0)


async def overview(spool: Spool, budget: int, job_id: str) -> Answer:
    """Return head and tail of everything printed so far, within `budget` characters."""
    end = spool.end
    sizes = {stream: spool.bytes_of(stream) for stream in Stream}
    budgets = dict(
        zip(Stream, share(budget, sizes[Stream.OUT], sizes[Stream.ERR]), strict=True)
    )
    parts: dict[Stream, Window] = {}
    for stream in Stream:
        parts[stream] = await _part(
            spool, stream, sizes[stream], budgets[stream], job_id
        )
    out, err = parts[Stream.OUT], parts[Stream.ERR]
    return Answer(
        out.text,
        err.text,
        out.truncated or err.truncated,
        # One cut line shows as two.
        min(out.lines + err.lines, sum(spool.lines_of(s) for s in Stream)),
        end,
        spool.earliest,
    )


async def _part(
    spool: Spool, stream: Stream, size: int, budget: int, job_id: str
) -> Window:
    """Return head and tail of one stream, and the call that reads what is between."""
    limit = max(budget * _READ_FACTOR, 1)
    head, after = await _head(spool, stream, limit) if size else (b"", 0)
    tail: bytes | None = None
    if len(head) < size:
        tail = await spool.tail(stream, limit, since=after)
    elif not (
        whole := await _apart(len(head), window, head, tail, size, budget)
    ).truncated:
        return whole
    # More was read than is shown: the rest begins where the shown half of it ends. One
    # byte more than there is keeps the window from taking the head for all.
    shown = await _apart(len(head), window, head, None, size + 1, budget // 2)
    used = size + 1 - shown.omitted_bytes
    resume = after
    if spool.earliest == 0:
        _, resume = await _head(spool, stream, used)
    name = "stdout" if stream is Stream.OUT else "stderr"
    cut = partial(
        window,
        notice=f"… [{{left_out}} left out: ssh_job_read job_id={job_id}"
        f" stream={name} offset={resume}] …",
        total_lines=spool.lines_of(stream),
    )
    return await _apart(len(head) + len(tail or b""), cut, head, tail, size, budget)


async def _apart(
    size: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Clean much text in a thread: the loop serves everybody else meanwhile."""
    if size <= _INLINE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)


async def _head(spool: Spool, stream: Stream, limit: int) -> tuple[bytes, int]:
    """Return the first `limit` bytes of one stream, and the position after them."""
    if spool.earliest > 0:
        return b"", spool.earliest
    found, offset = bytearray(), 0
    while len(found) < limit and offset < spool.end:
        part = await spool.read(offset, limit - len(found), stream)
        if part.next_offset == offset:
            break
        for piece in part.pieces:
            found += piece.data
        offset = part.next_offset
    return bytes(found), offset


async def page(spool: Spool, offset: int, budget: int, stream: Stream | None) -> Answer:
    """Return consecutive output from `offset` on, within `budget` characters.

    Raises:
        RangeError: `offset` lies beyond the end.
    """
    if not budget:
        return Answer("", "", spool.end > offset, 0, min(offset, spool.end))
    part = await spool.read(offset, budget, stream)
    extra = _extra(part, closed=spool.closed)
    size = sum(len(piece.data) for piece in part.pieces)
    if 0 < extra < size:
        part = await spool.read(offset, size - extra, stream)
    texts: dict[Stream, str] = {}
    for s in Stream:
        data = b"".join(p.data for p in part.pieces if p.stream is s)
        texts[s] = await _apart(len(data), clean, data)
    out, err = texts[Stream.OUT], texts[Stream.ERR]
    more = part.next_offset < spool.end
    return Answer(out, err, more, count_lines(out, err), part.next_offset, part.skipped)


def _extra(part: Slice, *, closed: bool) -> int:
    """Return how many bytes of a page are better left to the next one.

    Pages meet at lines, and where a line is longer than a page at characters.
    """
    data = part.pieces[-1].data if part.pieces else b""
    if part.next_offset < part.end and (cut := data.rfind(b"\n") + 1):
        return len(data) - cut
    if part.next_offset == part.end and closed:
        return 0
    return _unfinished(data)


def _unfinished(data: bytes) -> int:
    """Return how many bytes at the end begin a character that is not all there."""
    for size in range(1, min(4, len(data) + 1)):
        byte = data[-size]
        if byte & 0xC0 != 0x80:  # noqa: PLR2004  not a continuation
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2  # noqa: PLR2004
            return size if byte >= 0xC2 and size < length else 0  # noqa: PLR2004
    return 0


async def last_lines(
    spool: Spool, count: int, budget: int, stream: Stream | None
) -> Answer:
    """Return the last `count` lines of each stream asked for, within `budget`."""
    texts: dict[Stream, str] = {Stream.OUT: "", Stream.ERR: ""}
    wanted = [stream] if stream else [s for s in Stream if spool.bytes_of(s)]
    truncated = False
    for one in wanted:
        room = budget // len(wanted)
        most = room * _CHARACTER_BYTES
        data = await spool.tail_lines(one, count, most)
        text = await _apart(
            len(data), clean, _begun(data) if len(data) == most else data
        )
        texts[one] = _last(text, room)
        shorter = len(texts[one]) < len(text)
        truncated = truncated or shorter or len(data) < spool.bytes_of(one)
    out, err = texts[Stream.OUT], texts[Stream.ERR]
    return Answer(out, err, truncated, count_lines(out, err), spool.end)


def _begun(data: bytes) -> bytes:
    """Return `data` without the end of a character that began before it."""
    for at, byte in enumerate(data[:_CHARACTER_BYTES]):
        if byte & 0xC0 != 0x80:  # noqa: PLR2004  not a continuation
            return data[at:]
    return data


def _last(text: str, room: int) -> str:
    """Return the last lines of `text` that fit; a part of one if it is the only one."""
    start = len(text) - room
    if start <= 0:
        return text
    # from where a line begins, unless there is but a part of one
    whole = text.find("\n", start - 1) + 1
    return text[whole if 0 < whole < len(text) else start :]


async def matching(
    spool: Spool, pattern: str, budget: int, stream: Stream | None, seconds: float
) -> Answer:
    """Return the lines in which `pattern` is found, numbered within their stream.

    Raises:
        InputError: The pattern is wrong, or too slow for `seconds`.
    """
    texts: dict[Stream, str] = {Stream.OUT: "", Stream.ERR: ""}
    wanted = [stream] if stream else [s for s in Stream if spool.bytes_of(s)]
    truncated = False
    for one in wanted:
        share_ = budget // len(wanted)
        found = await grep(spool, pattern, stream=one, budget=share_, seconds=seconds)
        texts[one] = found.text
        truncated = truncated or found.truncated
    out, err = texts[Stream.OUT], texts[Stream.ERR]
    return Answer(out, err, truncated, count_lines(out, err), spool.end)
