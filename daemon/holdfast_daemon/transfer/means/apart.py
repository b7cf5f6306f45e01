"""Work that blocks, in a thread that is never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

P = ParamSpec("P")
T = TypeVar("T")

_given_up: ContextVar[threading.Event] = ContextVar("given up")


class GivenUp(Exception):  # noqa: N818  a state first, an error second
    """Nobody waits for the outcome of this thread any more but for its end."""


def heed() -> None:
    """Look, in work that may take long, whether it is still wanted.

    Raises:
        GivenUp: It is not.
    """
    given_up = _given_up.get(None)
    if given_up is not None and given_up.is_set():
        raise GivenUp


async def apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run `work` in a thread; who gives up waits until it has ended.

    So a file is not closed, nor its number given to another, while a thread writes it.
    Where that may take long, `work` is to `heed`.
    """
    return await taken(_nothing, work, *args, **kwargs)


async def both(one: Awaitable[None], other: Awaitable[None]) -> None:
    """Wait for both, each to its end.

    Raises:
        Exception: That of the first, or else of the other.
    """
    for failed in await asyncio.gather(one, other, return_exceptions=True):
        if failed is not None:
            raise failed


async def taken(
    let_go: Callable[[T], object],
    work: Callable[P, T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """Do as `apart`; `let_go` gets what `work` returns where nobody else will."""
    given_up = threading.Event()
    before = _given_up.set(given_up)
    task = asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs))
    _given_up.reset(before)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        given_up.set()
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            let_go(task.result())
        raise


def _nothing(_: object) -> None:
    """Let go of nothing."""
