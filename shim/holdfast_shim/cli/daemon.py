"""How a verb reaches the daemon: one connection, one call, typed errors."""

from __future__ import annotations

import asyncio
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

from grpc import aio

from holdfast_shim.client import DaemonClient, error_of
from holdfast_shim.errors import CallError
from holdfast_shim.places import PlaceError, home_of, places
from holdfast_shim.settings import Settings
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from holdfast_shim.cli.options import Options

# What the daemon answers from its own memory comes at once or not at all.
QUICK_SECONDS = 30.0

_T = TypeVar("_T")


@asynccontextmanager
async def dial(options: Options) -> AsyncGenerator[DaemonClient]:
    """Connect, starting the daemon when need be; failed calls leave as `CallError`."""
    settings = Settings.read(os.environ)
    if settings.problem is not None:
        raise settings.problem
    try:
        home = home_of(os.environ)
        where = places(os.environ, home, os.geteuid(), socket=options.socket)
    except PlaceError as error:
        raise CallError("DAEMON_UNAVAILABLE", error.message, hint=error.hint) from error
    context = settings.context("cli", VERSION, person=True)
    async with DaemonClient(
        where.socket, context, autostart=options.autostart
    ) as client:
        await client.connect()
        try:
            yield client
        except aio.AioRpcError as error:
            raise error_of(error) from error


def ask(options: Options, work: Callable[[DaemonClient], Awaitable[_T]]) -> _T:
    """Run `work` with a connected client and return what it returns."""

    async def run() -> _T:
        async with dial(options) as client:
            return await work(client)

    return asyncio.run(run())
