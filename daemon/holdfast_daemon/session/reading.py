"""The part of a session's output that one answer shows."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.output.text import clean_terminal
from holdfast_daemon.session import trigger

if TYPE_CHECKING:
    from holdfast_daemon.output.display import Display
    from holdfast_daemon.output.spool import Spool

# Cleaning so much takes about a millisecond; more goes to a thread.
_INLINE_BYTES = 24 * 1024
# Escapes vanish in cleaning, so more is read than can be shown.
_READ_FACTOR = 2
# The beginning of a sequence or string that the next bytes may end.
_BEGUN = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*|[]PX^_][^\a\x1b\n]*\x1b?|[ -/]*)\Z")
_SEQUENCE_BYTES = 256


class Page(NamedTuple):
    """Consecutive output.

    Attributes:
        skipped: Bytes that were asked for and are not there any more.
        next_offset: Where to read on.
        encoding: How bytes are written: utf-8 or base64; empty: it is text.
    """

    text: str
    next_offset: int
    skipped: int = 0
    encoding: str = ""


async def text(
    spool: Spool, offset: int, budget: int, *, cols: int, ident: str = ""
) -> Page:
    """Return what the terminal showed from `offset` on, as lines without escapes.

    What holdfast itself typed to run commands in the session `ident` is left out.
    """
    data, after, skipped = await _read(spool, offset, budget * _READ_FACTOR)
    if after < spool.end or not spool.closed:
        data = _unescaped(data)
        after = offset + skipped + len(data)
    shown = trigger.without(await _clean(data, cols), ident)
    while len(shown) > budget:
        # plain text: as many bytes as there are characters to be had, by the line
        kept = data[: max(1, len(data) * budget // len(shown))]
        kept = kept[: kept.rfind(b"\n") + 1] or kept
        if len(kept) == len(data):
            break
        data = _unescaped(_whole(kept))
        after = offset + skipped + len(data)
        shown = trigger.without(await _clean(data, cols), ident)
    return Page(shown[:budget], after, skipped)


async def raw(spool: Spool, offset: int, budget: int) -> Page:
    """Return the bytes from `offset` on, exactly; as base64 where they are no UTF-8."""
    data, after, skipped = await _read(spool, offset, budget)
    try:
        return Page(data.decode(), after, skipped, "utf-8")
    except UnicodeDecodeError:
        # whole groups of four letters, without padding but at the end
        kept = data[: max(budget // 4, 1) * 3]
        after -= len(data) - len(kept)
        return Page(base64.b64encode(kept).decode(), after, skipped, "base64")


async def screen(
    display: Display, offset: int, end: int, budget: int, ident: str
) -> Page:
    """Return the screen as it stands at `end`; it is read on from there, or later."""
    picture = await display.picture()
    if not picture.alternate:
        picture = replace(picture, lines=trigger.blank(picture.lines, ident))
    return Page(picture.text[:budget], max(offset, end))


async def _read(spool: Spool, offset: int, limit: int) -> tuple[bytes, int, int]:
    if limit <= 0:
        return b"", min(offset, spool.end), 0
    found = await spool.read(offset, limit)
    data = b"".join(piece.data for piece in found.pieces)
    more = found.next_offset < spool.end
    if more or not spool.closed:
        whole = _whole(data)
        if more and b"\n" in whole:
            whole = whole[: whole.rfind(b"\n") + 1]
        if whole:
            data = whole
    return data, found.offset + len(data), found.skipped


def _whole(data: bytes) -> bytes:
    """Return `data` without the beginning of a character at its end."""
    for size in range(1, min(4, len(data) + 1)):
        byte = data[-size]
        if byte & 0xC0 != 0x80:  # noqa: PLR2004  not a continuation
            length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2  # noqa: PLR2004
            unfinished = byte >= 0xC2 and size < length  # noqa: PLR2004
            return data[:-size] if unfinished else data
    return data


def _unescaped(data: bytes) -> bytes:
    """Return `data` without the beginning of an escape at its end."""
    begun = _BEGUN.search(data, max(0, len(data) - _SEQUENCE_BYTES))
    return data[: begun.start()] or data if begun else data


async def _clean(data: bytes, cols: int) -> str:
    if len(data) <= _INLINE_BYTES:
        return clean_terminal(data, cols)
    return await asyncio.to_thread(clean_terminal, data, cols)
