"""Connects to what listens on this machine, for who came through a host."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import TYPE_CHECKING

from holdfast_daemon.forward.guard import WHY
from holdfast_daemon.forward.wish import LOOPBACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.tunnel import Place
    from holdfast_daemon.forward.pipe import Pipe

_LOOPBACK_6 = "::1"


async def connect(
    pipe: Pipe, place: Place, barred: Callable[[], Awaitable[bool]], seconds: float
) -> None:
    """Connect `pipe` to what listens on `place` of this machine, unless it is `barred`.

    That is asked each time: a path leads elsewhere once there is another link.

    Raises:
        OSError: Nobody does, or it can't be had; its `strerror` says why.
    """
    try:
        async with asyncio.timeout(seconds):
            if not (forbidden := await barred()):
                await _connect(pipe, place)
    except OSError as error:  # TimeoutError is one
        # asyncio's own words name no reason
        why = os.strerror(error.errno) if error.errno else "it does not answer"
        raise OSError(error.errno or errno.ETIMEDOUT, why) from None
    if forbidden:
        raise PermissionError(errno.EACCES, WHY)


async def _connect(pipe: Pipe, place: Place) -> None:
    """Many a server listens on "localhost" of IPv6 alone."""
    loop = asyncio.get_running_loop()
    if place.path:
        await loop.create_unix_connection(lambda: pipe, place.path)
        return
    try:
        await loop.create_connection(lambda: pipe, place.host, place.port)
    except ConnectionRefusedError as refused:
        if place.host != LOOPBACK:
            raise
        try:
            await loop.create_connection(lambda: pipe, _LOOPBACK_6, place.port)
        except OSError:
            raise refused from None
