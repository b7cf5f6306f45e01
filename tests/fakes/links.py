"""Pools, hosts and sinks for tests of connections."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import TYPE_CHECKING

from holdfast_daemon.clock import SystemClock
from holdfast_daemon.config import Config
from holdfast_daemon.connection.pool import Pool
from holdfast_daemon.hosts.inventory import Inventory
from holdfast_daemon.limits import Limits
from holdfast_daemon.secrets import Redactor
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.connection.channel import ChannelEnd
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.hosts.host import Host, Overrides


class Collector:
    """A sink that keeps everything, and wakes who waits for a text."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self._grown = asyncio.Event()

    def received(self, stream: Stream, data: bytes) -> None:
        """Keep `data`."""
        if stream is Stream.ERR:
            self.err += data
        else:
            self.out += data
        self._grown.set()

    async def wait_for(self, text: bytes) -> None:
        """Wait until standard output contains `text`."""
        async with asyncio.timeout(40):
            while text not in self.out:
                self._grown.clear()
                await self._grown.wait()


def make_limits(**changes: float) -> Limits:
    """Return the default limits with `changes`, outside their bounds too."""
    return dataclasses.replace(Limits(), **changes)  # type: ignore[arg-type]  # by name


def change_limits(limits: Limits, **changes: float) -> None:
    """Change `limits` in place, as a view of an edited configuration would."""
    for name, value in changes.items():
        object.__setattr__(limits, name, value)


def make_pool(**changes: float) -> Pool:
    """Return a pool with the default limits but for `changes`."""
    return Pool(make_limits(**changes), SystemClock(), Redactor())


async def find_host(
    config_file: Path,
    target: str = "box",
    overrides: Overrides | None = None,
    *,
    config: Config | None = None,
) -> Host:
    """Resolve `target` by an ssh configuration of the test's own."""
    found = config or Config()
    inventory = Inventory(
        lambda: found, Limits(), SystemClock(), config_file=config_file
    )
    return await inventory.resolve(target, overrides)


async def run(lease: Lease, command: str) -> tuple[ChannelEnd, bytes, bytes]:
    """Run `command` to its end; returns how it ended and what it said."""
    sink = Collector()
    channel = await lease.open(command, sink)
    channel.eof()
    async with asyncio.timeout(40):
        end = await channel.ended()
    return end, sink.out, sink.err


def read(path: Path) -> str:
    """Return the text of a small file; for async tests."""
    return path.read_text()


def write(path: Path, text: str) -> None:
    """Write a small file; for async tests."""
    path.write_text(text)
