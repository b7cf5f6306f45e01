"""Asks again for what the next daemon goes on with, until it has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from grpc import aio

from holdfast_shim.client import error_of
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_shim.client import DaemonClient

T = TypeVar("T")

_PAUSE_SECONDS = 0.3
# So often it may restart meanwhile.
_TIMES = 20
_AWAY = ("DAEMON_LOST", "DRAINING")


async def over_restarts(
    client: DaemonClient, once: Callable[[], Awaitable[T | None]], what: str
) -> T:
    """Return what `once` does; None of it: the daemon left it to the next one.

    It asks for the same under the same request id each time; `what` names that.

    Raises:
        AioRpcError: It failed.
        CallError: The daemon went away, and stays away.
    """
    lost = _unanswered(what)
    for _ in range(_TIMES):
        try:
            result = await once()
        except aio.AioRpcError as error:
            lost = error_of(error)
            if lost.reason not in _AWAY:
                raise
        else:
            if result is not None:
                return result
            lost = _unanswered(what)
        await asyncio.sleep(_PAUSE_SECONDS)
        try:
            await client.connect()
        except CallError:
            raise lost from None
    raise lost


def _unanswered(what: str) -> CallError:
    return CallError(
        "DAEMON_LOST",
        f"the daemon ended the call without telling how the {what} ended",
        hint="It goes on once a daemon runs: `holdfast jobs` has it.",
        ran="unknown",
    )
