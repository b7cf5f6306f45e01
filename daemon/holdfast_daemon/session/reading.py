"""The part of a session's output that one answer shows."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.output.text import clean_terminal

if TYPE_CHECKING:
    from holdfast_daemon.output.spool import Spool

# Cleaning so much takes about a millisecond; more goes to a thread.
_INLINE_BYTES = 24 * 1024
# Escapes vanish in cleaning, so more is read than can be shown.
_READ_FACTOR = 2


class Page(NamedTuple):
    """Consecutive output.

    Attributes:
        skipped: Bytes that were asked for and are not there any more.
        next_offset: Where to read on.
    """

    text: str
    next_offset: int
    skipped: int = 0


async def text(
    spool: Spool, offset: int, budget: int, *, cols: int, ident: str = ""
) -> Page:
    """Return what the terminal showed from `offset` on, as lines without escapes.

    What holdfast itself typed to run commands in the session `ident` is left out.
    """
    data, after, skipped = await _read(spool, offset, budget * _READ_FACTOR)
    shown = _without_triggers(await _clean(data, cols), ident)
    while len(shown) > budget:
        # plain text: as many bytes as there are characters to be had, by the line
        kept = data[: max(1, len(data) * budget // len(shown))]
        kept = kept[: kept.rfind(b"\n") + 1] or kept
        if len(kept) == len(data):
            break
        data = _whole(kept)
        after = offset + skipped + len(data)
        shown = _without_triggers(await _clean(data, cols), ident)
    return Page(shown[:budget], after, skipped)


def _without_triggers(shown: str, ident: str) -> str:
    """Leave out the lines that start a command, with the prompts before them."""
    if not ident or f"/kept/{ident}/r'/" not in shown:
        return shown
    return re.sub(rf"[^\n]*\. '[^'\n]*/kept/{ident}/r'/[a-z]\n?", "", shown)


async def raw(spool: Spool, offset: int, budget: int) -> Page:
    """Return the bytes from `offset` on; those that are no UTF-8 as Latin-1 letters."""
    data, after, skipped = await _read(spool, offset, budget)
    try:
        return Page(data.decode(), after, skipped)
    except UnicodeDecodeError:
        return Page(data.decode("latin-1"), after, skipped)


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


async def _clean(data: bytes, cols: int) -> str:
    if len(data) <= _INLINE_BYTES:
        return clean_terminal(data, cols)
    return await asyncio.to_thread(clean_terminal, data, cols)
