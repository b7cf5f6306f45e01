"""The end of what nobody ended by name, when the daemon leaves."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable
    from types import FrameType

_log = logging.getLogger(__name__)

# What is cancelled has so long to let go of its own, and a stop that hangs to be told.
_SECONDS = 2.0
# asyncio's own task that gives a program its pipes. Whoever is cancelled while they
# start one wait for it: cancelled itself, as `asyncio.run` does with all at once, it
# never tells them, and the daemon would not end.
_PIPES = "_connect_pipes"


# sysexits.h: a fault of our own.
EX_SOFTWARE = 70


def at_latest(seconds: float) -> None:
    """End the process in `seconds`, should it still be there, and log what it waits in.

    Exit code 70 then. Whoever waits for its place, as an upgrade does, has it by then,
    and what hangs is told once, in place of a daemon that neither serves nor ends.
    """
    limit = threading.Timer(seconds, _give_up, (asyncio.get_running_loop(), seconds))
    limit.daemon = True
    limit.start()


def _give_up(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    # What hangs may be the log itself: a terminal that was stopped, a dead disk.
    telling = threading.Thread(target=_tell, args=(loop, seconds), daemon=True)
    try:
        telling.start()
        telling.join(_SECONDS)
    finally:
        os._exit(EX_SOFTWARE)


def _tell(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    _log.critical("the stop hangs, and is given up after %g s:", seconds)
    for task in asyncio.all_tasks(loop):
        waits = _lines(_frames(task.get_coro()))
        _log.critical("task %s waits in %s", task.get_name(), waits)
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    for ident, frame in frames.items():
        if ident != threading.get_ident():
            whole = [one for one, _ in traceback.walk_stack(frame)][::-1]
            _log.critical("thread %d is in %s", ident, _lines(whole))


def _frames(waiting: object) -> Iterable[FrameType]:
    """Return where a coroutine waits, and what for; a task's own stack has one line."""
    while waiting is not None:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        if frame is not None:
            yield frame
        inner = getattr(waiting, "cr_await", None)
        waiting = inner or getattr(waiting, "gi_yieldfrom", None)


def _lines(stack: Iterable[FrameType]) -> str:
    """Return where each is, the innermost last: names alone, and no values."""
    return " > ".join(
        f"{Path(one.f_code.co_filename).name}:{one.f_lineno} {one.f_code.co_name}"
        for one in stack
    )


async def and_leave(work: Awaitable[None]) -> None:
    """Do `work`, and then end every other task."""
    try:
        await work
    finally:
        await _end_others()


async def _end_others() -> None:
    own = asyncio.current_task()
    others = {one for one in asyncio.all_tasks() if one is not own and not _pipes(one)}
    for one in others:
        one.cancel()
    if others:
        _, left = await asyncio.wait(others, timeout=_SECONDS)
        for one in left:
            _log.error("a task does not end: %s", one.get_name())


def _pipes(task: asyncio.Task[object]) -> bool:
    return getattr(task.get_coro(), "__name__", "") == _PIPES
