"""Copies whose client leaves or whose peer freezes, and what is seen of them."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import json
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest
from rich.cells import cell_len

from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files
from fakes.proxy import Proxy
from fakes.restarting import given_way
from fakes.syncing import ROOTS
from fakes.terminal import sitting
from fakes.tools import QUICK, Tools, content, failure, served, tools
from fakes.watch import soon
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

MIB = 1024 * 1024
SIZE = 8 * MIB
SLOW = MIB / 16
LIMITS = (
    f"{QUICK}copy_idle_seconds = 1\nkeepalive_seconds = 1\n"
    "progress_interval_seconds = 0.1\n"
)
BOTH = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with host_of_files(tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest.fixture
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port) as one:
        yield one


@pytest.fixture
def world(
    request: pytest.FixtureRequest, sshd: Sshd, proxy: Proxy, tmp_path: Path
) -> Iterator[World]:
    patient = "peer_that_stands_still" not in request.node.name
    extra = "" if patient else "  ConnectTimeout 2\n"
    config = proxy.config(sshd, tmp_path / "config", extra=extra)
    limits = f"{LIMITS}copy_patience_seconds = {60 if patient else 3}\n"
    with served(config, more=ROOTS, limits=limits) as one:
        yield one


@pytest.fixture
def ways(tmp_path: Path, way: str) -> Ways:
    ways = Ways(None, tmp_path, way)
    (ways.source / "big").write_bytes(os.urandom(SIZE))
    return ways


def whole(ways: Ways, name: str = "big") -> bool:
    """Whether it is there as it is, and nothing else."""
    first, second = (
        hashlib.sha256((place / name).read_bytes()).hexdigest()
        for place in (ways.source, ways.destination)
    )
    return first == second and ways.left() == [name]


async def half(ways: Ways, proxy: Proxy) -> None:
    """Return in the middle, which then lasts."""
    await soon(lambda: ways.arrived() > SIZE // 3, "some of it is there", 60)
    proxy.throttle(SLOW)


async def copying(ssh: Tools) -> str:
    """Return the job that copies."""
    (job,) = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
    assert job["command"].startswith("copy ")
    return str(job["job_id"])


@contextlib.asynccontextmanager
async def typed(
    world: World, *words: str
) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run `holdfast`; it is gone at the end."""
    process = await asyncio.create_subprocess_exec(
        program("holdfast"),
        *words,
        env=world.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait_for(process.communicate(), 40)


def words(ways: Ways) -> list[str]:
    """Return what a person types."""
    here, there = ("", "box:") if ways.way == "upload" else ("box:", "")
    return ["copy", f"{here}{ways.source}/big", f"{there}{ways.destination}/"]


# who leaves


@BOTH
async def test_its_agent_is_killed(world: World, proxy: Proxy, ways: Ways) -> None:
    """NF-15: the copy goes on while the client is away, and another reads its end."""
    async with tools(world, client="other") as other:
        async with tools(world) as ssh:
            proxy.throttle(SIZE / 4)
            arguments = ways.filled("big")
            await ssh.wire.start(
                "tools/call", {"name": "ssh_copy", "arguments": arguments}
            )
            await half(ways, proxy)
            job_id = await copying(other)
            ssh.wire.process.kill()
            await ssh.wire.ended()
        assert (await other.read(job_id))["status"] == "running"
        proxy.throttle(0)
        job = await other.ended(job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0)
        # how much moved depends: where the link was lost meanwhile, some is found there
        assert "1 files copied" in job["stdout"]
    assert whole(ways)


@BOTH
async def test_its_command_line_is_killed(
    world: World, proxy: Proxy, ways: Ways
) -> None:
    """NF-15: so it does when a terminal is closed; `holdfast job` tells its end."""
    async with tools(world, client="other") as other:
        proxy.throttle(SIZE / 4)
        async with typed(world, *words(ways)) as process:
            await half(ways, proxy)
            job_id = await copying(other)
            process.kill()
            await process.wait()
        assert (await other.read(job_id))["status"] == "running"
        proxy.throttle(0)
        assert (await other.ended(job_id))["exit_code"] == 0
    told = await asyncio.to_thread(world.cli, "job", job_id)
    assert b"1 files copied" in told.stdout
    assert whole(ways)


@BOTH
async def test_a_person_ends_it(world: World, proxy: Proxy, ways: Ways) -> None:
    """NF-15: Ctrl-C ends the copy itself, and leaves nothing half."""
    async with tools(world, client="other") as other:
        proxy.throttle(SIZE / 4)
        async with typed(world, *words(ways)) as process:
            await half(ways, proxy)
            job_id = await copying(other)
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 40) == 130
        proxy.throttle(0)
        assert (await other.ended(job_id))["status"] == "cancelled"
    await soon(lambda: ways.left() == [], "nothing is left", 20)


@pytest.mark.parametrize("way", ["upload"])
async def test_a_bar_that_is_killed_leaves_the_cursor(
    world: World, proxy: Proxy, ways: Ways
) -> None:
    """NF-15: what ends or stops us at once has nothing to set back."""
    proxy.throttle(SIZE / 4)
    async with sitting() as person:
        await person.run(program("holdfast"), *words(ways), env=world.environment)
        await half(ways, proxy)
        await person.until(r"big.*?/s")
        assert person.process is not None
        person.process.send_signal(signal.SIGTERM)
        await person.ended()
        assert person.said.rfind(b"\x1b[?25h") >= person.said.rfind(b"\x1b[?25l")
    proxy.throttle(0)
    await soon(lambda: ways.left() == ["big"] and whole(ways), "it went on", 20)


@pytest.mark.parametrize("way", ["upload"])
async def test_the_line_of_a_sync_fits_the_terminal(
    world: World, proxy: Proxy, ways: Ways
) -> None:
    """FI-05: what is wider is wrapped, and each line after it leaves one behind."""
    for number in range(40):
        (ways.source / f"{number:02} {'a long name ' * 4}{'漢' * 20}").write_bytes(
            os.urandom(MIB // 8)
        )
    await asyncio.to_thread(world.cli, "exec", "box", "true")
    proxy.throttle(2 * MIB)
    columns = 50
    async with sitting(seconds=60) as person:
        person.resize(columns, 24)
        words = ("sync", str(ways.source), f"box:{ways.destination}")
        await person.run(program("holdfast"), *words, env=world.environment)
        assert await person.ended() == 0
        await person.until("compared")
    lines = re.findall(r"\r\x1b\[K(\d+ bytes; [^\r\n]+)", person.said.decode())
    assert any("a long name" in line for line in lines)
    assert max(map(cell_len, lines)) < columns


@BOTH
@pytest.mark.parametrize("dies", [True, False], ids=["crash", "restart"])
async def test_a_person_waits_over_a_restart(
    world: World, proxy: Proxy, ways: Ways, *, dies: bool
) -> None:
    """NF-15: `holdfast copy` waits on with the next daemon; there is one copy."""
    proxy.throttle(SIZE / 4)
    async with typed(world, *words(ways), "--json") as process:
        await half(ways, proxy)
        await asyncio.to_thread(world.kill if dies else world.stop)
        await asyncio.to_thread(world.start)
        proxy.throttle(0)
        out, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err
    await given_way(world)
    assert hashlib.sha256((ways.source / "big").read_bytes()).hexdigest() in str(out)
    assert whole(ways)
    jobs = await asyncio.to_thread(world.cli_json, "jobs")
    assert [job["status"] for job in jobs["jobs"]] == ["exited"]


@pytest.mark.parametrize("way", ["upload"])
async def test_a_person_who_waits_for_long_waits_over_a_restart(
    world: World, proxy: Proxy, ways: Ways
) -> None:
    """NF-15, NF-17: it is the same copy however long ago it began; there is one."""
    proxy.throttle(SIZE / 4)
    async with typed(world, *words(ways), "--json") as process:
        await half(ways, proxy)
        process.send_signal(signal.SIGSTOP)  # it would start a daemon of its own
        try:
            await asyncio.to_thread(world.kill)
            begun_earlier(world, request_id_seconds=600)
            await asyncio.to_thread(world.start)
            await soon(lambda: world.cli_json("status")["jobs_running"], "it goes on")
        finally:
            process.send_signal(signal.SIGCONT)
        proxy.throttle(0)
        _, err = await asyncio.wait_for(process.communicate(), 60)
        assert process.returncode == 0, err
    assert whole(ways)
    jobs = await asyncio.to_thread(world.cli_json, "jobs")
    assert [job["status"] for job in jobs["jobs"]] == ["exited"]


def begun_earlier(world: World, *, request_id_seconds: float) -> None:
    """Have the one job, which no daemon knows now, have begun that long ago."""
    (path,) = world.state.glob("jobs/*/job.json")
    row = json.loads(path.read_text())
    age = dt.timedelta(seconds=2 * request_id_seconds)
    begun = dt.datetime.fromisoformat(row["started"]) - age
    path.write_text(json.dumps({**row, "started": begun.isoformat()}))


# what holds it up


@BOTH
async def test_a_bound_on_bytes(sshd: Sshd, tmp_path: Path, way: str) -> None:
    """NF-15: copy_bytes_per_second holds, for all copies together."""
    limits = f"{QUICK}copy_bytes_per_second = {2 * MIB}\n"
    with served(sshd, more=ROOTS, limits=limits) as world:
        async with tools(world) as ssh:
            ways = Ways(ssh, tmp_path, way)
            for name in ("a", "b"):
                (ways.source / name).write_bytes(os.urandom(3 * MIB))
            await ssh.run("true")
            begun = time.monotonic()
            told = await ssh.together(
                ("ssh_copy", ways.filled("a")), ("ssh_copy", ways.filled("b"))
            )
            took = time.monotonic() - begun
    assert [content(one)["files"] for one in told] == [1, 1]
    # Six MiB at two a second, and the last piece of each needs not be waited for.
    assert took >= 1.5
    assert ways.left() == ["a", "b"]


@BOTH
async def test_a_peer_that_stands_still(world: World, proxy: Proxy, ways: Ways) -> None:
    """NF-15: a frozen host is not waited for without end; called again it goes on."""
    async with tools(world, client="other") as other:
        ways.ssh = other
        proxy.throttle(SIZE / 4)
        asking = asyncio.create_task(other.call("ssh_copy", **ways.filled("big")))
        await half(ways, proxy)
        proxy.freeze()
        error = failure(await asyncio.wait_for(asking, 40))
        assert error["reason"] == "CONNECTION_LOST"
        assert error["ran"] == "unknown"
        assert "goes on where it stopped" in error["hint"]
        assert "big" not in ways.left()
        proxy.heal()
        told = await ways.copy("big")
        assert told["bytes_transferred"] <= SIZE * 2 // 3 + MIB
    assert whole(ways)


@BOTH
async def test_a_link_that_stands_still(
    world: World, sshd: Sshd, proxy: Proxy, ways: Ways
) -> None:
    """NF-15: one that stands still is left, and the job goes on by another link."""
    async with tools(world, client="other") as other:
        ways.ssh = other
        proxy.throttle(SIZE / 4)
        asking = asyncio.create_task(other.call("ssh_copy", **ways.filled("big")))
        await half(ways, proxy)
        frozen = sshd.freeze_connections()
        proxy.throttle(0)
        try:
            told = content(await asyncio.wait_for(asking, 60))
        finally:
            sshd.thaw(frozen)
        assert "for 1 s" in world.log.read_text()
        assert told["status"] == "exited"
        assert told["bytes_transferred"] <= SIZE + 2 * MIB
    assert whole(ways)


# what is seen of it


@BOTH
async def test_an_agent_sees_how_far_it_is(
    world: World, proxy: Proxy, ways: Ways
) -> None:
    """FI-12, NF-15: notifications tell bytes, of how many, and rise; no content."""
    async with tools(world) as ssh:
        proxy.throttle(SIZE / 4)
        asked: dict[str, Any] = {
            "name": "ssh_copy",
            "arguments": ways.filled("big"),
            "_meta": {"progressToken": "far"},
        }
        answer = await ssh.wire.request("tools/call", asked)
        assert content(answer["result"])["status"] == "exited"
        notes = [note["params"] for note in ssh.wire.notes if "params" in note]
    assert {note["progressToken"] for note in notes} == {"far"}
    far = [note["progress"] for note in notes]
    assert far == sorted(set(far))
    told = [note for note in notes if note["progress"] > 0]
    assert len(told) >= 3
    for note in told:
        assert note["total"] == SIZE
        assert note["progress"] <= SIZE
    assert any(re.search(r"of 8\.0 MiB .*iB/s, .* left", n["message"]) for n in told)
    assert len(str(answer)) < 4000


@BOTH
async def test_a_person_sees_a_bar(world: World, proxy: Proxy, ways: Ways) -> None:
    """FI-12: a bar with bytes, rate and time left on a terminal, and none elsewhere."""
    proxy.throttle(SIZE / 4)
    async with sitting(seconds=40) as terminal:
        await terminal.run(
            program("holdfast"),
            *words(ways),
            env={**world.environment, "COLUMNS": "120"},
        )
        await terminal.until(r"big.*[1-9]\.\d/8\.4 MB|big.*[1-9]\.\d/8\.0 MiB")
        await terminal.until(r"[1-9]\.\d [MK]i?B/s")
        await terminal.until(r"0:00:0\d")
        assert await terminal.ended() == 0
        await terminal.until("1 copied")
    assert whole(ways)
    done = await asyncio.to_thread(world.cli, *words(ways), "--overwrite")
    assert done.stderr == b""
