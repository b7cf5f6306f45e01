"""Waiting on a spool until something comes in its text: the loop around `Until`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.output.until import Until

_STEP_BYTES = 256 * 1024


class Awaited(NamedTuple):
    """How a wait ended: `over` is False when its time was up first."""

    over: bool
    next_offset: int


async def await_text(
    spool: Spool, until: Until, *, offset: int, seconds: float
) -> Awaited:
    """Return when `until` is met by what comes from `offset` on, or time is up.

    What is there already is looked at even with no time at all; what comes faster than
    it is searched puts nothing off.

    Raises:
        InputError: the pattern is too slow.
    """
    loop = asyncio.get_running_loop()
    limit, there = loop.time() + seconds, spool.end
    while True:
        while offset < spool.end:
            found = await spool.read(offset, _STEP_BYTES)
            offset = found.next_offset
            until.feed(b"".join(piece.data for piece in found.pieces), loop.time())
            if until.waiting:
                met = await asyncio.to_thread(until.look, loop.time())
                if met is not None:
                    return Awaited(over=True, next_offset=offset)
            if offset >= there and loop.time() >= limit:
                return Awaited(over=False, next_offset=offset)
        if spool.closed:
            until.exited()
        now = loop.time()
        if until.look(now):
            return Awaited(over=True, next_offset=offset)
        if now >= limit or spool.closed:
            return Awaited(over=False, next_offset=offset)
        wake = limit if until.deadline is None else min(limit, until.deadline)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(wake):
                await spool.grown(offset)
