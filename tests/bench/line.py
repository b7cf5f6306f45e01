"""The line to a far host: it delays what it carries, and takes some time itself."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Any, TypeVar

from bench.figures import median

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

T = TypeVar("T")

FAR_SECONDS = 0.1
_PINGS = 21


def timely(work: Coroutine[Any, Any, T]) -> T:
    """Run `work` on a loop that is exact to less than a millisecond; `far` needs that.

    epoll's waits are rounded up to whole ones, and begin anew with all that comes: what
    others follow on their way would come up to one late, each way.
    """

    def loop() -> asyncio.AbstractEventLoop:
        return asyncio.SelectorEventLoop(selectors.SelectSelector())

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(work)


async def _pump(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float
) -> None:
    """Pass bytes on, each `delay` seconds after it came."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(64 * 1024):
            loop.call_later(delay, writer.write, data)
    loop.call_later(delay, writer.close)


@contextlib.asynccontextmanager
async def far(port: int, delay: float) -> AsyncGenerator[int]:
    """Serve a port that leads to `port` and delays each way by `delay` seconds.

    Never by less; to be exact it wants a loop of `timely`.
    """
    pumps: set[asyncio.Task[None]] = set()

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        for pump in (_pump(reader, outer, delay), _pump(inner, writer, delay)):
            task = asyncio.create_task(pump)
            pumps.add(task)
            task.add_done_callback(pumps.discard)

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tuple(pumps):
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def round_trip() -> float:
    """Return what a word takes there and back on a line that delays by `FAR_SECONDS`.

    That is a little more: the line has its own work with it.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        echo = threading.Thread(target=_echo, args=(server,), daemon=True)
        echo.start()
        async with far(server.getsockname()[1], FAR_SECONDS / 2) as port:
            took = await asyncio.to_thread(_pinged, port)
    await asyncio.to_thread(echo.join)
    return took


def _echo(server: socket.socket) -> None:
    one, _ = server.accept()
    with one:
        for _ in range(_PINGS):
            one.sendall(one.recv(64))


def _pinged(port: int) -> float:
    took: list[float] = []
    with socket.create_connection(("127.0.0.1", port)) as line:
        for _ in range(_PINGS):
            begun = time.perf_counter()
            line.sendall(b"ping")
            line.recv(64)
            took.append(time.perf_counter() - begun)
    return median(took)
