"""Copies that meet cut links, a stop, a full disk, and what may not be written."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files
from fakes.proxy import Proxy
from fakes.syncing import ROOTS
from fakes.tools import QUICK, content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.tools import Result, Tools
    from fakes.world import World

MIB = 1024 * 1024
# `make soak` sets 1024 and 200.
SIZE = int(os.environ.get("HOLDFAST_COPY_MIB", "48")) * MIB
CUTS = int(os.environ.get("HOLDFAST_COPY_CUTS", "6"))
# What may be on its way at once.
BLOCK = MIB

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_faults"),
    pytest.mark.needs_sshd,
    pytest.mark.timeout(60 + CUTS * 10),
]


@pytest.fixture(scope="module", params=["shell", "SFTP only"])
def sshd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    with host_of_files(tmp_path_factory.mktemp("sshd"), request.param) as one:
        yield one


@pytest.fixture(scope="module")
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port) as one:
        yield one


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    config = proxy.config(sshd, tmp_path_factory.mktemp("through") / "config")
    with served(config, more=ROOTS, limits=f"{QUICK}copy_idle_seconds = 5\n") as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


@pytest.fixture(params=WAYS)
def ways(
    request: pytest.FixtureRequest, ssh: Tools, proxy: Proxy, tmp_path: Path
) -> Iterator[Ways]:
    yield Ways(ssh, tmp_path, request.param)
    proxy.heal()
    proxy.throttle(0)


def _enough(ways: Ways, asking: asyncio.Task[Result], least: int) -> bool:
    """Whether so much is there; the copy must go on until then."""
    assert not asking.done() or content(asking.result())["status"] == "running"
    return ways.arrived() >= least


async def test_cuts_in_the_middle(ways: Ways, proxy: Proxy) -> None:
    """NF-15: cut again and again it goes on where it was, and is right at the end."""
    source = ways.source / "big"
    with source.open("wb") as file:
        for _ in range(SIZE // MIB):
            file.write(os.urandom(MIB))
    wanted = hashlib.sha256(source.read_bytes()).hexdigest()
    proxy.throttle(SIZE / 4)
    before = _carried(ways, proxy)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **ways.filled("big")))
    for cut in range(CUTS):
        least = SIZE * (cut + 1) // (CUTS + 2)
        await soon(partial(_enough, ways, asking, least), "more of it is there", 60)
        assert ways.left() != ["big"]
        assert not (ways.destination / "big").exists()
        proxy.rst()
    proxy.throttle(0)
    said = content(await asking)
    if said["status"] == "running":
        ended = await ways.ssh.ended(said["job_id"])
        assert ended["exit_code"] == 0
    else:
        assert said["sha256"] == wanted
    with (ways.destination / "big").open("rb") as copied:
        assert hashlib.file_digest(copied, "sha256").hexdigest() == wanted
    assert ways.left() == ["big"]
    twice = _carried(ways, proxy) - before - SIZE
    told = f"{ways.way}, {SIZE // MIB} MiB, {CUTS} cuts: {twice / MIB:.1f} MiB twice"
    print(f"\n{told}")  # noqa: T201  `make soak` shows it
    # What was on its way at a cut goes again, and no more than that: frames and keys
    # come to less than a hundredth.
    assert twice <= SIZE // 100 + CUTS * BLOCK


def _carried(ways: Ways, proxy: Proxy) -> int:
    """Return what went by the wire in the direction of the copy."""
    return proxy.up if ways.way == "upload" else proxy.down


async def test_cuts_among_small_files(ways: Ways, proxy: Proxy) -> None:
    """NF-15: a cut among many small files leaves none out, and none half."""
    (ways.source / "t").mkdir()
    for number in range(300):
        (ways.source / f"t/{number}").write_bytes(os.urandom(20_000))
    proxy.throttle(4 * MIB)
    asking = asyncio.create_task(
        ways.ssh.call("ssh_copy", **ways.filled("t", recursive=True))
    )
    await soon(lambda: ways.arrived() > MIB, "some of it is there", 30)
    proxy.rst()
    proxy.throttle(0)
    told = content(await asking)
    assert told["files"] == 300
    for number in range(300):
        name = f"t/{number}"
        assert (ways.destination / name).read_bytes() == (
            ways.source / name
        ).read_bytes()
    assert ways.left() == ["t"]


async def test_stopped_by_hand(ways: Ways, proxy: Proxy, world: World) -> None:
    """NF-15: a copy is listed and stopped as any job, and leaves nothing half."""
    (ways.source / "big").write_bytes(os.urandom(32 * MIB))
    proxy.throttle(MIB)
    async with tools(world, "--results", "structured", client="other") as other:
        asking = asyncio.create_task(ways.ssh.call("ssh_copy", **ways.filled("big")))
        await soon(lambda: ways.arrived() > 0, "it has begun", 30)
        jobs = (await other.told("ssh_job_list", running_only=True))["jobs"]
        (job_id,) = [job["job_id"] for job in jobs if "copy" in job["command"]]
        stopped = await other.stop(job_id)
        assert stopped["status"] == "cancelled"
    proxy.throttle(0)
    told = content(await asking)
    assert told["status"] == "cancelled"
    await soon(lambda: ways.left() == [], "nothing is left", 20)


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Generator[None]:
    """Have a small file system of its own at `place`."""
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this account may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk(ways: Ways) -> None:
    """NF-15: a full disk is told, what was there stays, and the parts go."""
    (ways.source / "big").write_bytes(os.urandom(5 * MIB))
    (ways.source / "t").mkdir()
    for number in range(200):
        (ways.source / f"t/{number}").write_bytes(os.urandom(20_000))
    with mounted(ways.destination, "size=2m"):
        (ways.destination / "mine").write_text("mine")
        for name, more in (("big", {}), ("t", {"recursive": True})):
            error = await ways.refused(name, **more)
            assert error["reason"] == "FILE_FAILED"
            assert "No space left" in error["message"]
            assert ways.left() == ["mine"]
        assert (ways.destination / "mine").read_text() == "mine"


async def test_a_read_only_place(ways: Ways) -> None:
    """NF-15: where nothing may be written that is said, and nothing is sent."""
    (ways.source / "a").write_text("1")
    with mounted(ways.destination, "size=1m,ro"):
        error = await ways.refused("a")
    assert error["reason"] == "FILE_FAILED"
    assert "Read-only" in error["message"]


@pytest.mark.parametrize("way", WAYS)
async def test_a_daemon_that_was_killed(
    sshd: Sshd, proxy: Proxy, tmp_path: Path, way: str
) -> None:
    """NF-15: after the daemon's death it goes on from what is there, by itself."""
    config = proxy.config(sshd, tmp_path / "config")
    with served(config, more=ROOTS) as world:
        async with tools(world, "--results", "structured") as one:
            ways = Ways(one, tmp_path, way)
            (ways.source / "big").write_bytes(os.urandom(12 * MIB))
            proxy.throttle(2 * MIB)
            asking = asyncio.create_task(one.call("ssh_copy", **ways.filled("big")))
            await soon(lambda: ways.arrived() >= 5 * MIB, "some of it is there", 30)
            world.kill()
            assert (await asking)["isError"]
            assert not (ways.destination / "big").exists()
            proxy.throttle(0)
            before = proxy.up if way == "upload" else proxy.down
        # the next call of a client starts the daemon again
        async with tools(world, "--results", "structured") as other:
            (job,) = (await other.told("ssh_job_list"))["jobs"]
            ended = await other.ended(job["job_id"])
            assert (ended["status"], ended["exit_code"]) == ("exited", 0), ended
    carried = proxy.up if way == "upload" else proxy.down
    # the rest, and what was on its way just then; from the start again it were 12
    assert carried - before <= 11 * MIB
    assert (ways.destination / "big").read_bytes() == (ways.source / "big").read_bytes()
    assert ways.left() == ["big"]
