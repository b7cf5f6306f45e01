"""A file read, and a large one copied, from a host that is far away."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from typing import TYPE_CHECKING

from bench.figures import MIB, Figure, median, ms
from bench.line import FAR_SECONDS, far, round_trip, timely
from fakes.sshd import Sshd
from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from fakes.tools import Tools

_READS = 21
_READ_BYTES = 10 * 1024
# 100 Mbit/s
_RATE = 12_500_000
_COPIED = 128 * MIB
_PIECE = 16 * 1024
# So much of what is on its way stands in the line's own queue.
_QUEUE_SECONDS = 0.1
_LATE_SECONDS = 0.02
# Of the time that the line itself takes: nine tenths of its rate.
_COPY_BAR = 1 / 0.9
_READ_BAR = 1.1


class _Line:
    """One direction of a line: so many bytes a second, each a while later."""

    def __init__(self, delay: float, rate: float) -> None:
        self._delay = delay
        self._rate = rate
        self._free_at = 0.0

    async def carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Pass bytes on until there are no more."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(_PIECE):
                now = loop.time()
                # we may look late; a line would have gone on meanwhile
                begun = max(now - _LATE_SECONDS, self._free_at)
                self._free_at = begun + len(data) / self._rate
                loop.call_at(self._free_at + self._delay, writer.write, data)
                if (ahead := self._free_at - now - _QUEUE_SECONDS) > 0:
                    await asyncio.sleep(ahead)
        loop.call_at(max(loop.time(), self._free_at) + self._delay, writer.close)


@contextlib.asynccontextmanager
async def narrow(port: int, delay: float, rate: float) -> AsyncGenerator[int]:
    """Serve a port that leads to `port`, `delay` seconds and `rate` bytes each way."""
    tasks: set[asyncio.Task[None]] = set()
    up, down = _Line(delay, rate), _Line(delay, rate)

    async def met(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner, outer = await asyncio.open_connection("127.0.0.1", port)
        for way in (up.carry(reader, outer), down.carry(inner, writer)):
            task = asyncio.create_task(way)
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(met, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@contextlib.contextmanager
def _world(root: Path, sshd: Sshd, port: int) -> Generator[World]:
    """Run a daemon whose way to the host is by `port`."""
    text = sshd.client_config().replace(f"Port {sshd.port}", f"Port {port}")
    sshd.config.write_text(f"{text}  HostKeyAlias far\n")
    sshd.known_hosts.write_text(sshd.known_hosts_lines(["far"]))
    world = World(root, ssh_config=sshd.config)
    world.configure(f'local_roots = ["{root}"]\n')
    with world:
        yield world


def _host(root: Path) -> Sshd:
    for name in ("sshd", "home"):
        (root / name).mkdir(parents=True)
    return Sshd(root / "sshd", options={"SetEnv": f"HOME={root / 'home'}"})


async def read_figure(root: Path) -> Figure:
    """One `ssh_file_read` of a small file over a round trip of 100 ms."""
    with _host(root) as sshd:
        (root / "home" / "file").write_text("0123456789abcde\n" * (_READ_BYTES // 16))
        async with far(sshd.port, FAR_SECONDS / 2) as port:
            with _world(root, sshd, port) as world:
                async with tools(world) as ssh:
                    took = [await _read(ssh) for _ in range(_READS + 3)][3:]
        trip = await round_trip()
    return Figure(
        "`ssh_file_read` of 10 KiB over a 100 ms round trip",
        ms(median(took)),
        f"the line {ms(trip)}",
        median(took) / trip,
        _READ_BAR,
        "round trips",
    )


async def _read(ssh: Tools) -> float:
    begun = time.perf_counter()
    told = await ssh.told("ssh_file_read", target="box", path="~/file")
    taken = time.perf_counter() - begun
    assert told["size_bytes"] == _READ_BYTES, told
    return taken


async def copy_figure(root: Path) -> Figure:
    """One large file by `ssh_copy` over 100 ms and 100 Mbit/s."""
    place = root / "copied"
    with _host(root) as sshd:
        source = root / "home" / "large"
        with source.open("wb") as file:
            for _ in range(_COPIED // MIB):
                file.write(os.urandom(MIB))
        async with narrow(sshd.port, FAR_SECONDS / 2, _RATE) as port:
            with _world(root, sshd, port) as world:
                async with tools(world) as ssh:
                    await ssh.run("true", target="box")
                    begun = time.perf_counter()
                    told = await ssh.told(
                        "ssh_copy",
                        target="box",
                        direction="download",
                        sources=[str(source)],
                        destination=str(place),
                    )
                    if told["status"] == "running":
                        told = await ssh.ended(told["job_id"])
                    taken = time.perf_counter() - begun
        assert told["status"] == "exited", told
        assert place.stat().st_size == _COPIED
    shutil.rmtree(root)
    least = _COPIED / _RATE
    return Figure(
        f"download of {_COPIED // MIB} MiB by `ssh_copy` over a 100 ms round trip and"
        " 100 Mbit/s",
        f"{taken:.2f} s",
        f"the line takes {least:.2f} s",
        taken / least,
        _COPY_BAR,
    )


def distant_figures(root: Path) -> list[Figure]:
    """Measure both."""
    return [
        timely(read_figure(root / "read")),
        asyncio.run(copy_figure(root / "copy")),
    ]
