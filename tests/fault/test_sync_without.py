"""Syncs without rsync there when something goes wrong, and what is told meanwhile."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import sshd_binary
from fakes.syncing import Pair, engine_and_network, tree
from fakes.tools import tools
from fakes.watch import connected, descriptors, soon
from holdfast.v1 import transfer_pb2, transfer_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.proxy import Proxy
    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sync_without"),
    pytest.mark.needs_sshd,
]

MIB = 1024 * 1024
# So that it takes forty seconds, of which a moment is enough.
LARGE = 40 * MIB
RATE = MIB
DIRECTIONS = {
    "upload": transfer_pb2.TRANSFER_DIRECTION_UPLOAD,
    "download": transfer_pb2.TRANSFER_DIRECTION_DOWNLOAD,
}


@pytest.fixture(scope="module", params=["none-there", "rsync"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def both(
    kind: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Proxy]]:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    limits = "progress_interval_seconds = 0.1\n"
    with engine_and_network(kind, tmp_path_factory.mktemp("sshd"), limits) as two:
        yield two


@pytest.fixture(scope="module")
def world(both: tuple[World, Proxy]) -> World:
    return both[0]


@pytest.fixture
def network(both: tuple[World, Proxy]) -> Iterator[Proxy]:
    """Yield a network that is slow until the end of the test."""
    both[1].throttle(RATE)
    yield both[1]
    both[1].heal()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def drafts(pair: Pair) -> list[Path]:
    return list(pair.destination.glob(".large*"))


def make_large(pair: Pair) -> None:
    with (pair.source / "large").open("wb") as file:
        file.truncate(LARGE)


async def under_way(pair: Pair) -> asyncio.Task[Any]:
    """Begin to sync a large file, and return when a part of it has arrived."""
    make_large(pair)
    task = asyncio.create_task(pair.ssh.call("ssh_sync", **pair.filled({})))
    await soon(lambda: [d for d in drafts(pair) if d.stat().st_size], "a part arrives")
    return task


async def test_a_lost_link(network: Proxy, pair: Pair) -> None:
    """FI-02: unknown what came of it; nothing half is seen; again, and it is done."""
    task = await under_way(pair)
    network.rst()
    network.heal()
    error = (await task)["structuredContent"]["error"]
    assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
    assert not (pair.destination / "large").exists()
    (pair.source / "large").write_bytes(b"small now")
    # a part that nobody could delete any more goes with the next one
    await pair.sync(delete=True)
    assert tree(pair.destination) == tree(pair.source)


async def test_what_is_private_is_so_on_its_way(network: Proxy, pair: Pair) -> None:
    """FI-02: what others may not read at the source, they may not while it comes."""
    pair.fill({"a vault/open": b"1", "large": b""})
    for private in (pair.source, pair.source / "a vault", pair.source / "large"):
        private.chmod(private.stat().st_mode & ~0o077)
    task = await under_way(pair)
    on_its_way = [*drafts(pair), pair.destination]
    if (pair.destination / "a vault").exists():  # rsync may make it later
        on_its_way.append(pair.destination / "a vault")
    modes = {path.name: path.stat().st_mode & 0o077 for path in on_its_way}
    network.heal()
    await task
    assert set(modes.values()) == {0}, modes
    assert pair.destination.stat().st_mode & 0o777 == 0o700
    assert tree(pair.destination) == tree(pair.source)


async def test_stopped(world: World, network: Proxy, pair: Pair) -> None:
    """FI-02: no part of a file is left, here or there."""
    task = await under_way(pair)
    told = await asyncio.to_thread(world.cli_json, "jobs", "--running")
    (job,) = [row for row in told["jobs"] if str(pair.source) in row["command"]]
    await asyncio.to_thread(world.cli, "job", job["job_id"], "--stop")
    network.heal()
    assert (await task)["structuredContent"]["status"] == "cancelled"
    await soon(lambda: not drafts(pair), "no part is left")
    assert not (pair.destination / "large").exists()


async def test_what_is_in_the_way(pair: Pair) -> None:
    """FI-02: a directory for a file; with delete it makes way."""
    pair.fill({"a": b"1", "b": b"2"})
    pair.fill({"b/deep": b""}, pair.destination)
    error = await pair.refused()
    assert (error["reason"], error["ran"]) == ("FILE_FAILED", "yes")
    assert "b" in error["message"]
    await pair.sync(delete=True)
    assert tree(pair.destination) == tree(pair.source)
    (pair.source / "b").unlink()
    pair.fill({"b/now a directory": b""})
    await pair.sync()
    assert tree(pair.destination) == tree(pair.source)


async def test_a_full_disk(pair: Pair) -> None:
    """FI-02: it is said, and nothing half is left under the file's name."""
    if os.geteuid() != 0:
        pytest.skip("a small disk is mounted by root")
    pair.destination.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(pair.destination)]
    done = await asyncio.create_subprocess_exec(*mount)
    if await done.wait():
        pytest.skip("nothing can be mounted here")
    try:
        pair.fill({"small": b"1", "z-large": os.urandom(3 * MIB)})
        error = await pair.refused()
        assert error["reason"] == "FILE_FAILED"
        assert error["ran"] == "yes"
        assert not (pair.destination / "z-large").exists()
        assert not list(pair.destination.glob(".z-large*"))
    finally:
        done = await asyncio.create_subprocess_exec(
            "umount", "-l", str(pair.destination)
        )
        assert await done.wait() == 0


async def test_no_directory_above_the_destination(pair: Pair) -> None:
    """FI-02: it is named."""
    pair.fill({"a": b"1"})
    error = await pair.refused(destination=str(pair.place / "no" / "such"))
    assert error["reason"] == "FILE_FAILED"
    assert error["cause"] == "missing"


async def test_a_source_that_is_not_there(pair: Pair) -> None:
    """FI-02: nothing is made, and nothing deleted."""
    pair.fill({"old": b""}, pair.destination)
    error = await pair.refused(source=str(pair.place / "none"), delete=True)
    assert error["ran"] == "no"
    assert error["reason"] in ("FILE_NOT_FOUND", "INVALID_ARGUMENT")
    assert (pair.destination / "old").exists()


async def test_no_destination_is_made_for_a_source_that_is_not_there(
    pair: Pair,
) -> None:
    """FI-02: the error says that nothing ran."""
    error = await pair.refused(source=str(pair.place / "none"))
    assert error["ran"] == "no"
    assert not pair.destination.exists()


@pytest.mark.parametrize("seconds", [-86_400, 2**32 + 5])
async def test_times_that_sftp_can_not_tell(pair: Pair, seconds: int) -> None:
    """FI-02, FI-12: such a file is synced, once; the others with it."""
    pair.fill({"old": b"then", "new": b"now"})
    os.utime(pair.source / "old", (seconds, seconds))
    await pair.sync()
    assert (pair.destination / "old").read_bytes() == b"then"
    assert (pair.destination / "new").read_bytes() == b"now"
    again = await pair.sync()
    assert (again["created"], again["updated"]) == (0, 0), again


async def test_progress_is_told_in_bytes(
    world: World, network: Proxy, pair: Pair
) -> None:
    """FI-12: it rises, and the result has the whole."""
    network.throttle(40 * RATE)
    make_large(pair)
    arguments = pair.filled({"direction": DIRECTIONS[pair.way]})
    request = transfer_pb2.SyncDirectoryRequest(**arguments)
    seen: list[float] = []
    result: transfer_pb2.SyncResult | None = None
    async with connected(world) as client:
        stub = transfer_pb2_grpc.TransferServiceStub(client.channel)
        async for frame in stub.SyncDirectory(request, metadata=client.metadata()):
            if frame.WhichOneof("event") == "progress":
                seen.append(frame.progress.progress)
            else:
                result = frame.result
    assert result is not None
    assert result.bytes_transferred >= LARGE
    assert seen == sorted(set(seen))
    assert seen
    assert seen[-1] <= result.bytes_transferred


async def test_nothing_is_left_open(world: World, pair: Pair) -> None:
    """FI-02: no descriptor more after ten of them."""
    pair.fill({"a": b"1"})
    await pair.sync()
    before = descriptors(world.pid)
    for number in range(5):
        pair.fill({f"more{number}": b"1"})
        await pair.sync()
        await pair.refused(source=str(pair.place / "none"))
    await soon(lambda: descriptors(world.pid) <= before, "all are closed")
