"""Copies go on by themselves when the daemon dies or is restarted in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files
from fakes.proxy import Proxy
from fakes.restarting import ENDS, crash, ended, restart, restart_away
from fakes.sshd import Sshd
from fakes.syncing import ROOTS
from fakes.tools import Tools, content, failure, served, tools
from fakes.watch import records, soon, weight

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

MIB = 1024 * 1024
SIZE = int(os.environ.get("HOLDFAST_COPY_RESTART_MIB", "12")) * MIB
KILLS = int(os.environ.get("HOLDFAST_COPY_KILLS", "4"))
# What was on its way when the daemon died may go again, and small files that came with
# others; half of it all would be seen.
AGAIN = 5 * MIB


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with host_of_files(tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port) as one:
        yield one


@pytest.fixture
def world(sshd: Sshd, proxy: Proxy, tmp_path: Path) -> Iterator[World]:
    config = proxy.config(sshd, tmp_path / "config")
    with served(config, more=ROOTS) as one:
        yield one


BOTH = pytest.mark.parametrize("way", WAYS)


def filled(ways: Ways, *, many: bool) -> str:
    """Make what is copied; return its name."""
    if not many:
        with (ways.source / "big").open("wb") as file:
            for _ in range(SIZE // MIB):
                file.write(os.urandom(MIB))
        return "big"
    (ways.source / "tree/empty").mkdir(parents=True)
    (ways.source / "tree/link").symlink_to("0")
    for number in range(200):
        (ways.source / f"tree/{number}").write_bytes(os.urandom(5_000))
    for number in range(4):
        data = os.urandom(SIZE // 5)
        (ways.source / f"tree/large{number}").write_bytes(data)
    return "tree"


def sums(place: Path) -> dict[str, str]:
    """Return what there is below a place, by its name."""
    found = {}
    for path in [place, *place.rglob("*")]:
        name = str(path.relative_to(place))
        if path.is_symlink():
            found[name] = f"link {path.readlink()}"
        elif path.is_dir():
            found[name] = "directory"
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def enough(ways: Ways, least: int) -> bool:
    return ways.arrived() >= least


async def copying(ssh: Tools) -> str:
    """Return the job that copies."""
    async with asyncio.timeout(40):
        while True:
            jobs = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
            for job in jobs:
                if job["command"].startswith("copy "):
                    return str(job["job_id"])
            await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def begun(
    world: World, proxy: Proxy, ways: Ways, name: str, **arguments: Any
) -> AsyncGenerator[tuple[str, Tools]]:
    """Have an agent copy; in the middle yield the job, and another agent's tools."""
    async with (
        tools(world, "--no-autostart", client="first") as one,
        tools(world, "--no-autostart", client="other") as other,
    ):
        ways.ssh = one
        proxy.throttle(SIZE / 4)
        asking = asyncio.create_task(
            one.call("ssh_copy", **ways.filled(name, recursive=True, **arguments))
        )
        await soon(partial(enough, ways, SIZE // 2), "some of it is there", 60)
        proxy.throttle(MIB / 16)
        job_id = await copying(other)
        yield job_id, other
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def audited(world: World, job_id: str) -> None:
    """Expect the log to be whole, and to tell that it was gone on with, and how."""
    assert world.cli_json("audit", "--verify")["intact"]
    world.stop()
    found = [one for one in records(world) if one["event_type"] == "file_operation"]
    first, *_, again, end = found
    for field in ("direction", "sources"):
        assert again["metadata"][field] == first["metadata"][field]
    assert again["client"] == first["client"]
    assert again["metadata"]["job_id"] == end["metadata"]["job_id"] == job_id
    assert again["metadata"]["resumed"] is True
    assert again["call_id"] == end["call_id"]
    assert (end["phase"], end["result"], end["exit_code"]) == ("end", "exited", 0)


@BOTH
@ENDS
@pytest.mark.parametrize("many", [False, True], ids=["file", "tree"])
async def test_a_copy_goes_on_by_itself(
    world: World,
    proxy: Proxy,
    tmp_path: Path,
    way: str,
    end: Callable[[World], None],
    *,
    many: bool,
) -> None:
    """NF-15: the same job goes on after a crash and a restart; little is sent twice."""
    ways = Ways(None, tmp_path, way)
    name = filled(ways, many=many)
    async with begun(world, proxy, ways, name) as (job_id, other):
        await asyncio.to_thread(end, world)
        assert name not in ways.left()
        assert not (ways.destination / name).exists()
        proxy.throttle(0)
        job = await ended(other, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert "the next one goes on with it" in job["note"]
        if not many:
            assert f"1 files copied, {SIZE // MIB}.0 MiB" in job["stdout"]
        assert sums(ways.destination / name) == sums(ways.source / name)
        assert ways.left() == [name]
        size = weight(ways.source)
        moved = proxy.up if way == "upload" else proxy.down
        assert moved <= size + AGAIN
        jobs = (await other.told("ssh_job_list"))["jobs"]
        assert [one["job_id"] for one in jobs] == [job_id]
    await asyncio.to_thread(audited, world, job_id)


@BOTH
@pytest.mark.parametrize("many", [False, True], ids=["file", "tree"])
async def test_killed_again_and_again(
    world: World, proxy: Proxy, tmp_path: Path, way: str, *, many: bool
) -> None:
    """NF-15: each daemon brings it further than the last, and it ends as it should."""
    ways = Ways(None, tmp_path, way)
    name = filled(ways, many=many)
    size = weight(ways.source)
    async with tools(world, "--no-autostart") as one:
        proxy.throttle(SIZE / 4)
        asked = ways.filled(name, recursive=True, request_id="again")
        error = asyncio.create_task(one.call("ssh_copy", **asked))
        for kill in range(KILLS):
            least = size * (kill + 1) // (KILLS + 2)
            await soon(partial(enough, ways, least), "more of it is there", 60)
            proxy.throttle(MIB / 16)
            await asyncio.to_thread(world.kill)
            assert name not in ways.left()
            proxy.throttle(SIZE / 4)
            await asyncio.to_thread(world.start)
        assert failure(await error)["reason"] == "DAEMON_LOST"
        told = content(await one.call("ssh_copy", **asked))
        job = await ended(one, told["job_id"])
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert sums(ways.destination / name) == sums(ways.source / name)
        assert ways.left() == [name]
        jobs = (await one.told("ssh_job_list"))["jobs"]
        assert [row["job_id"] for row in jobs] == [told["job_id"]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a host without a shell."""
    with host_of_files(tmp_path_factory.mktemp("plain"), "SFTP only") as one:
        yield one


@BOTH
@pytest.mark.parametrize("place", ["copy.recorded", "copy.placing", "copy.placed"])
async def test_without_a_shell_the_outcome_is_true_too(
    plain: Sshd, tmp_path: Path, way: str, place: str
) -> None:
    """NF-15: the same by SFTP alone."""
    with Proxy(plain.port) as proxy:
        config = proxy.config(plain, tmp_path / "config")
        with served(config, more=ROOTS) as world:
            await dies_at(place, world, Ways(None, tmp_path, way), many=True)


@BOTH
@pytest.mark.parametrize("place", ["copy.recorded", "copy.placing", "copy.placed"])
@pytest.mark.parametrize("many", [False, True], ids=["file", "tree"])
async def test_wherever_it_dies_the_outcome_is_true(
    world: World, proxy: Proxy, tmp_path: Path, way: str, place: str, *, many: bool
) -> None:
    """NF-15: before all, before and after it is put in its place: done once, and told.

    Nothing may be replaced here: a name that was put already is not taken for one that
    is in the way.
    """
    del proxy
    await dies_at(place, world, Ways(None, tmp_path, way), many=many)


async def dies_at(place: str, world: World, ways: Ways, *, many: bool) -> None:
    name = filled(ways, many=many)
    asked = ways.filled(name, recursive=True, request_id="once")
    world.stop()
    world.start(HOLDFAST_FAILPOINT=place, HOLDFAST_TESTING="1")
    async with tools(world, "--no-autostart", client="first") as one:
        error = failure(await one.call("ssh_copy", **asked))
        assert error["reason"] == "DAEMON_LOST"
        assert error["ran"] == "unknown"
        await asyncio.to_thread(crash, world)  # it is dead already
        told = content(await one.call("ssh_copy", **asked))
        assert told["status"] == "exited", told
        job = await ended(one, told["job_id"])
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert sums(ways.destination / name) == sums(ways.source / name)
        assert ways.left() == [name]
        assert told["files"] == (205 if many else 1)
        jobs = (await one.told("ssh_job_list"))["jobs"]
        assert [row["job_id"] for row in jobs] == [told["job_id"]]
        # and once more, when the daemon that saw the end is gone too
        await asyncio.to_thread(restart, world)
        again = content(await one.call("ssh_copy", **asked))
        for field in ("job_id", "files", "bytes_transferred", "sha256", "status"):
            assert again.get(field) == told.get(field), field


@BOTH
async def test_what_failed_is_told_so_over_a_restart(
    world: World, proxy: Proxy, tmp_path: Path, way: str
) -> None:
    """NF-15: the same call gives the same error, from the next daemon too."""
    del proxy
    ways = Ways(None, tmp_path, way)
    (ways.source / "t").mkdir()
    (ways.source / "t/a").write_text("1")
    (ways.source / "t/fifo").write_text("2")
    (ways.destination / "t").mkdir()
    (ways.destination / "t/fifo").mkdir()
    asked = ways.filled("t", recursive=True, overwrite=True, request_id="failed")
    async with tools(world, "--no-autostart") as one:
        first = failure(await one.call("ssh_copy", **asked))
        assert first["ran"] == "yes"
        await asyncio.to_thread(restart, world)
        again = failure(await one.call("ssh_copy", **asked))
        assert again == first


@BOTH
async def test_a_host_that_is_away_is_waited_for(
    world: World, proxy: Proxy, tmp_path: Path, way: str
) -> None:
    """NF-15: the host can't be reached at first: it goes on once it can."""
    ways = Ways(None, tmp_path, way)
    name = filled(ways, many=False)
    async with begun(world, proxy, ways, name) as (job_id, other):
        await restart_away(world, proxy, tries=2)
        job = await other.read(job_id)
        assert job["status"] == "running"
        # meanwhile nobody begins the same anew
        busy = await other.refused("ssh_copy", **ways.filled(name, recursive=True))
        assert (busy["reason"], busy["ran"]) == ("IN_USE", "no")
        assert busy["job_id"] == job_id
        proxy.heal()
        job = await ended(other, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert sums(ways.destination / name) == sums(ways.source / name)
        assert ways.left() == [name]


@BOTH
async def test_one_that_waits_for_its_host_is_stopped(
    world: World, proxy: Proxy, tmp_path: Path, way: str
) -> None:
    """NF-15: a copy that is to go on can be ended by hand, and then is over."""
    ways = Ways(None, tmp_path, way)
    name = filled(ways, many=False)
    async with begun(world, proxy, ways, name) as (job_id, other):
        await restart_away(world, proxy)
        stopped = await other.stop(job_id)
        assert stopped["status"] == "cancelled"
        proxy.heal()
        await asyncio.to_thread(restart, world)
        job = await other.read(job_id)
        assert job["status"] == "cancelled"
        assert not (ways.destination / name).exists()


@pytest.mark.parametrize("field", ["request", "key"])
async def test_a_damaged_record_is_said_to_be(
    world: World, proxy: Proxy, tmp_path: Path, field: str
) -> None:
    """NF-15: what can't be understood is not guessed at, and the daemon serves on."""
    ways = Ways(None, tmp_path, "upload")
    name = filled(ways, many=False)
    async with begun(world, proxy, ways, name) as (job_id, other):
        await asyncio.to_thread(world.kill)
        record = world.state / "jobs" / job_id / "job.json"
        row = json.loads(record.read_text())
        row["onward"]["row"][field] = 7
        record.write_text(json.dumps(row))
        await asyncio.to_thread(world.start)
        job = await ended(other, job_id)
        assert job["status"] == "lost"
        assert "its record is damaged" in job["note"]
        # the same copy may be begun anew, and goes on from what is there
        proxy.heal()
        ways.ssh = other
        told = await ways.copy(name, recursive=True)
        assert told["bytes_transferred"] < SIZE
        assert sums(ways.destination / name) == sums(ways.source / name)


def no_roots(world: World, sshd: Sshd) -> None:
    del sshd
    world.configure("[limits]\n")


def not_allowed(world: World, sshd: Sshd) -> None:
    del sshd
    world.configure(f'{ROOTS}allowed_hosts = ["elsewhere"]\n')


def switched_off(world: World, sshd: Sshd) -> None:
    del sshd
    world.configure(f"{ROOTS}[hosts.box]\nenabled = false\n")


def no_key(world: World, sshd: Sshd) -> None:
    del world
    keys = sshd.directory / "authorized_keys"
    keys.write_text("")


def denied(world: World, reason: str) -> bool:
    """Whether the daemon has recorded that it may not go on."""
    told = [one["metadata"] for one in records(world) if one["phase"] == "denied"]
    method = "TransferService/CopyFiles"
    return any((one["method"], one["reason"]) == (method, reason) for one in told)


def nobody_there(world: World, sshd: Sshd) -> None:
    no_key(world, sshd)
    sshd.options["PasswordAuthentication"] = "yes"
    sshd.restart()


@BOTH
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_roots, "LOCAL_PATH_DENIED"),
        (not_allowed, "HOST_NOT_ALLOWED"),
        (switched_off, "HOST_DISABLED"),
        (no_key, "AUTH_FAILED"),
        (nobody_there, "LOGIN_NEEDED"),
    ],
)
async def test_one_that_may_not_go_on_says_why(
    tmp_path: Path,
    way: str,
    change: Callable[[World, Sshd], None],
    reason: str,
) -> None:
    """NF-15: the rules of now are asked; what they forbid is not gone on with."""
    home = tmp_path / "home"
    home.mkdir()
    with (
        Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "config"), more=ROOTS) as world,
    ):
        ways = Ways(None, tmp_path, way)
        name = filled(ways, many=False)
        async with begun(world, proxy, ways, name) as (job_id, other):
            await asyncio.to_thread(world.kill)
            change(world, sshd)
            proxy.throttle(0)
            await asyncio.to_thread(world.start)
            if reason == "HOST_NOT_ALLOWED":
                await soon(partial(denied, world, reason), "it was asked")
                # nor is it told of there
                told = await other.refused("ssh_job_read", job_id=job_id)
                assert told["reason"] == reason
                world.configure(ROOTS)
                await asyncio.to_thread(restart, world)
            job = await ended(other, job_id)
            assert job["status"] == "lost", job
            assert "exit_code" not in job
            assert reason in job["note"]
            assert "was not gone on with" in job["note"]
            assert not (ways.destination / name).exists()
            await asyncio.to_thread(restart, world)
            again = await other.read(job_id)
            assert (again["status"], again["note"]) == ("lost", job["note"])
