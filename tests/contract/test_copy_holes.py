"""Files that are mostly holes: their data is copied, and they arrive sparse."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.filing import HOSTS, host_of_files
from fakes.proxy import Proxy
from fakes.syncing import ROOTS
from fakes.tools import QUICK, content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.copying import Ways
    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_holes"),
    pytest.mark.needs_sshd,
]

MIB = 1024 * 1024
# `make soak` sets 2048.
SIZE = int(os.environ.get("HOLDFAST_SPARSE_MIB", "48")) * MIB


@pytest.fixture(scope="module", params=HOSTS)
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def way(
    host: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Proxy, Path]]:
    directory = tmp_path_factory.mktemp("sshd")
    with host_of_files(directory, host) as sshd, Proxy(sshd.port) as one:
        yield one, one.config(sshd, directory / "through")


@pytest.fixture(scope="module")
def proxy(way: tuple[Proxy, Path]) -> Proxy:
    return way[0]


@pytest.fixture(scope="module")
def world(way: tuple[Proxy, Path]) -> Iterator[World]:
    limits = f"{QUICK}probe_seconds = 5\n"
    with served(way[1], more=ROOTS, limits=limits) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def sparse(path: Path, *parts: tuple[int, int], size: int) -> str:
    """Write a file with data at offsets only; return its checksum."""
    with path.open("wb") as file:
        for offset, count in parts:
            file.seek(offset)
            file.write(os.urandom(count))
        file.truncate(size)
    return summed(path)


def summed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def held(path: Path) -> int:
    """Return the bytes that a file takes on its disk."""
    return path.stat().st_blocks * 512


SHAPES: dict[str, tuple[tuple[int, int], ...]] = {
    "in the middle": ((SIZE // 2, MIB),),
    "at both ends": ((0, 1000), (SIZE - 1000, 1000)),
    "at its beginning": ((0, MIB),),
    "nothing at all": (),
    "many": tuple((n * SIZE // 10, 1000) for n in range(1, 10)),
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_large_file_of_little(ways: Ways, host: str, shape: str) -> None:
    """FI-01: it is the same, sparse, and its holes do not go over the wire."""
    wanted = sparse(ways.source / "disk", *SHAPES[shape], size=SIZE)
    told = await ways.copy("disk")
    copied = ways.destination / "disk"
    assert told["sha256"] == wanted
    assert summed(copied) == wanted
    assert copied.stat().st_size == SIZE
    # every piece of data has a few whole blocks, whatever the file system's size
    least = len(SHAPES[shape]) * 256 * 1024
    assert held(copied) <= 2 * MIB + least
    # a host without GNU tar reads the holes of what it sends
    if ways.way == "upload" or host == "all programs":
        most = sum(count for _, count in SHAPES[shape])
        gaps = len(SHAPES[shape]) * 4 * MIB if shape == "many" else 0
        assert told["bytes_transferred"] <= most + gaps + MIB
    assert ways.left() == ["disk"]


async def test_cut_in_the_middle(ways: Ways, proxy: Proxy) -> None:
    """NF-15: a cut between its pieces has nothing wrong at the end."""
    parts = [(n * SIZE // 8, MIB) for n in range(8)]
    wanted = sparse(ways.source / "disk", *parts, size=SIZE)
    proxy.throttle(2 * MIB)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **ways.filled("disk")))

    def arrived() -> bool:
        found = 0
        for path in ways.destination.rglob("*"):
            found += held(path) if path.is_file() else 0
        return found > 2 * MIB

    try:
        await soon(arrived, "some of it is there", 30)
        proxy.throttle(MIB / 16)
        assert ways.left() != ["disk"]
        proxy.rst()
    finally:
        proxy.throttle(0)
    told = content(await asking)
    assert told["sha256"] == wanted
    assert summed(ways.destination / "disk") == wanted
    assert ways.left() == ["disk"]
