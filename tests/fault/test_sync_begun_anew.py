"""Syncs begun anew: again and again, late, not at all; for people; beside old ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.interrupted import (
    BOTH,
    KINDS,
    RATE,
    SLOW,
    Net,
    begun,
    drafts,
    filled,
    half,
    network,
    same,
)
from fakes.restarting import ENDS, crash, ended, given_way, restart, restart_away
from fakes.syncing import ROOTS, Pair, tree
from fakes.tools import tools
from fakes.watch import alive, records, soon
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from fakes.tools import Result
    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

METHOD = "TransferService/SyncDirectory"


@pytest.fixture
def kind() -> str:
    """Which side has rsync: both, where a test does not say."""
    return "rsync"


@pytest.fixture
def net(kind: str, tmp_path: Path) -> Iterator[Net]:
    with network(kind, tmp_path / "host") as one:
        yield one


def local_rsyncs(pair: Pair) -> list[int]:
    """Return the processes of rsync that this machine's side of a sync runs."""
    found: list[int] = []
    here = pair.source if pair.way == "upload" else pair.destination
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and alive(int(entry.name)):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"--archive" in words and os.fsencode(f"{here}/") in words:
                    found.append(int(entry.name))
    return found


@BOTH
async def test_killed_again_and_again(net: Net, tmp_path: Path, way: str) -> None:
    """FI-02: each daemon begins it anew, and the last one ends it."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        for _ in range(3):
            await asyncio.to_thread(crash, net.world)
            net.proxy.throttle(RATE)
            await soon(partial(half, pair), "the half of it is there", 60)
            net.proxy.throttle(SLOW)
            assert not (pair.destination / "large").exists()
        net.proxy.throttle(0)
        await asyncio.to_thread(crash, net.world)
        job = await ended(pair.ssh, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        same(pair)


# its host is away


@BOTH
async def test_a_host_that_is_away_is_waited_for(
    net: Net, tmp_path: Path, way: str
) -> None:
    """FI-02: it is begun once the host is there; nobody begins the same meanwhile."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        await restart_away(net.world, net.proxy, tries=2)
        assert (await pair.ssh.read(job_id))["status"] == "running"
        busy = await pair.refused(delete=True)
        assert (busy["reason"], busy["ran"]) == ("IN_USE", "no")
        assert busy["job_id"] == job_id
        net.proxy.heal()
        job = await ended(pair.ssh, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        same(pair)
        # and then it is free again
        assert (await pair.sync(delete=True))["skipped"] == len(tree(pair.source)) + 1


@BOTH
async def test_one_that_waits_for_its_host_is_stopped(
    net: Net, tmp_path: Path, way: str
) -> None:
    """FI-02: it is over then, for the daemons that come after, too."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        await restart_away(net.world, net.proxy)
        assert (await pair.ssh.stop(job_id))["status"] == "cancelled"
        net.proxy.heal()
        await asyncio.to_thread(restart, net.world)
        assert (await pair.ssh.read(job_id))["status"] == "cancelled"
        assert not (pair.destination / "large").exists()


@BOTH
@KINDS
async def test_one_that_was_stopped_before_stays_so(
    net: Net, tmp_path: Path, way: str
) -> None:
    """FI-02: nobody goes on with what was cancelled."""
    async with begun(net, tmp_path, way) as (job_id, pair):
        net.proxy.throttle(0)
        assert (await pair.ssh.stop(job_id))["status"] == "cancelled"
        await asyncio.to_thread(restart, net.world)
        assert (await pair.ssh.read(job_id))["status"] == "cancelled"
        await soon(lambda: not drafts(pair), "no part is left")
        assert not (pair.destination / "large").exists()


# what may not go on


def no_roots(world: World) -> None:
    world.configure("[limits]\n")


def not_allowed(world: World) -> None:
    world.configure(f'{ROOTS}allowed_hosts = ["elsewhere"]\n')


def switched_off(world: World) -> None:
    world.configure(f"{ROOTS}[hosts.box]\nenabled = false\n")


def denied(world: World, reason: str) -> bool:
    """Whether the daemon has recorded that it may not go on."""
    told = [one["metadata"] for one in records(world) if one["phase"] == "denied"]
    return any((one["method"], one["reason"]) == (METHOD, reason) for one in told)


def not_gone_on_with(job: Result, reason: str) -> None:
    assert job["status"] == "lost", job
    assert "exit_code" not in job
    assert f"was not gone on with: {reason}" in job["note"]
    assert "the same sync does the rest" in job["note"]


@BOTH
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (no_roots, "LOCAL_PATH_DENIED"),
        (not_allowed, "HOST_NOT_ALLOWED"),
        (switched_off, "HOST_DISABLED"),
    ],
)
async def test_one_that_may_not_go_on_says_why(
    net: Net, tmp_path: Path, way: str, change: Callable[[World], None], reason: str
) -> None:
    """FI-15, NF-15: the rules of now are asked; what they forbid is not begun anew."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        net.proxy.throttle(0)
        await soon(lambda: not drafts(pair), "both sides have ended")
        before = tree(pair.destination)
        change(net.world)
        await asyncio.to_thread(net.world.start)
        if reason == "HOST_NOT_ALLOWED":
            await soon(partial(denied, net.world, reason), "it was asked")
            # nor is it told of there
            told = await pair.ssh.refused("ssh_job_read", job_id=job_id)
            assert told["reason"] == reason
            net.world.configure(ROOTS)
            await asyncio.to_thread(restart, net.world)
        not_gone_on_with(await ended(pair.ssh, job_id), reason)
        assert tree(pair.destination) == before


@BOTH
async def test_one_whose_host_lets_nobody_in_says_why(
    net: Net, tmp_path: Path, way: str
) -> None:
    """FI-02: it is not waited for where waiting does not help."""
    async with begun(net, tmp_path, way) as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        (tmp_path / "host/authorized_keys").write_text("")
        net.proxy.throttle(0)
        await asyncio.to_thread(net.world.start)
        not_gone_on_with(await ended(pair.ssh, job_id), "AUTH_FAILED")


def another(pair: Pair) -> str:
    """Put an empty directory in the place, as where a disk is not mounted."""
    pair.source.rename(pair.place / "elsewhere")
    pair.source.mkdir()
    return "FILE_CHANGED"


def gone(pair: Pair) -> str:
    """Take the source away."""
    pair.source.rename(pair.place / "elsewhere")
    return "INVALID_ARGUMENT"


def led_away(pair: Pair) -> str:
    """Have the name lead to another directory that may be used, too."""
    pair.source.rename(pair.place / "elsewhere")
    pair.source.symlink_to(pair.place / "elsewhere")
    return "LOCAL_PATH_DENIED"


def guarded(pair: Pair) -> str:
    """Have it lead to where keys are kept."""
    (pair.place / ".ssh").mkdir()
    pair.source.rename(pair.place / ".ssh/id_rsa")
    pair.source.symlink_to(pair.place / ".ssh/id_rsa")
    return "SENSITIVE_PATH"


@pytest.mark.parametrize("change", [another, gone, led_away, guarded])
async def test_a_source_that_is_not_what_it_was(
    net: Net, tmp_path: Path, change: Callable[[Pair], str]
) -> None:
    """FI-15, FI-11: it is not read, and nothing is deleted for want of it."""
    async with begun(net, tmp_path, "upload", delete=True) as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        net.proxy.throttle(0)
        await soon(lambda: not drafts(pair), "both sides have ended")
        before = tree(pair.destination)
        reason = change(pair)
        await asyncio.to_thread(net.world.start)
        not_gone_on_with(await ended(pair.ssh, job_id), reason)
        assert tree(pair.destination) == before


@BOTH
async def test_one_of_long_ago(net: Net, tmp_path: Path, way: str) -> None:
    """FI-02: nobody expects it any more, so nothing is deleted or written over."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        net.proxy.throttle(0)
        await soon(lambda: not drafts(pair), "both sides have ended")
        before = tree(pair.destination)
        lock = net.world.state / "jobs" / job_id / "lock"
        days = lock.stat().st_mtime - 2 * 86_400
        os.utime(lock, (days, days))
        await asyncio.to_thread(net.world.start)
        not_gone_on_with(await ended(pair.ssh, job_id), "LIMIT_REACHED")
        assert tree(pair.destination) == before


@KINDS
async def test_a_destination_that_leads_to_keys_by_now(
    net: Net, tmp_path: Path
) -> None:
    """FI-11: its host is asked again where it is, and nothing there is touched."""
    async with begun(net, tmp_path, "upload", delete=True) as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        keys = pair.place / ".ssh/authorized_keys"
        keys.mkdir(parents=True)
        (keys / "mine").write_text("1")
        pair.destination.rename(pair.place / "elsewhere")
        pair.destination.symlink_to(keys)
        net.proxy.throttle(0)
        await asyncio.to_thread(net.world.start)
        not_gone_on_with(await ended(pair.ssh, job_id), "SENSITIVE_PATH")
        assert list(tree(keys)) == ["mine"]


@pytest.mark.parametrize("field", ["request", "begun"])
async def test_a_damaged_record_is_said_to_be(
    net: Net, tmp_path: Path, field: str
) -> None:
    """FI-02: what can't be understood is not guessed at, and the daemon serves on."""
    async with begun(net, tmp_path, "upload") as (job_id, pair):
        await asyncio.to_thread(net.world.kill)
        record = net.world.state / "jobs" / job_id / "job.json"
        row = json.loads(record.read_text())
        row["onward"]["row"][field] = 7
        record.write_text(json.dumps(row))
        net.proxy.throttle(0)
        await asyncio.to_thread(net.world.start)
        job = await ended(pair.ssh, job_id)
        assert job["status"] == "lost"
        assert "its record is damaged" in job["note"]
        await pair.sync(delete=True)
        same(pair)


# rsync of this machine that outlives its daemon


@contextlib.contextmanager
def stood_still(pair: Pair) -> Generator[list[int]]:
    """Have rsync of this machine stand still, as one that waits for a disk does."""
    pids = local_rsyncs(pair)
    assert pids
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield pids
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@BOTH
async def test_rsync_ends_with_its_daemon(net: Net, tmp_path: Path, way: str) -> None:
    """FI-02: its connection was the daemon's, so it ends by itself, and tidies up."""
    async with begun(net, tmp_path, way) as (_, pair):
        pids = local_rsyncs(pair)
        assert pids
        await asyncio.to_thread(net.world.kill)
        net.proxy.throttle(0)
        await soon(lambda: not any(map(alive, pids)), "they have ended")
        await soon(lambda: not drafts(pair), "no part is left")


@BOTH
async def test_two_never_write_to_one_place(net: Net, tmp_path: Path, way: str) -> None:
    """FI-02: while one of before is there still, none is begun; then one is."""
    async with begun(net, tmp_path, way, delete=True) as (job_id, pair):
        with stood_still(pair) as pids:
            await asyncio.to_thread(net.world.kill)
            net.proxy.throttle(0)
            tried = len(net.proxy.accepted)
            await asyncio.to_thread(net.world.start)
            told = await pair.ssh.read(job_id, wait_seconds=1)
            assert told["status"] == "running"
            assert sorted(local_rsyncs(pair)) == sorted(pids)
            assert len(net.proxy.accepted) == tried
        job = await ended(pair.ssh, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert not any(map(alive, pids))
        same(pair)


async def test_one_that_does_not_end_is_not_waited_for_forever(
    net: Net, tmp_path: Path
) -> None:
    """FI-02: it is said that it is there still, and nothing is begun beside it."""
    async with begun(net, tmp_path, "download", delete=True) as (job_id, pair):
        with stood_still(pair) as pids:
            await asyncio.to_thread(net.world.kill)
            net.world.configure(f"{ROOTS}[limits]\nsync_idle_seconds = 5\n")
            await asyncio.to_thread(net.world.start)
            not_gone_on_with(await ended(pair.ssh, job_id), "IN_USE")
            assert sorted(local_rsyncs(pair)) == sorted(pids)
        net.proxy.throttle(0)
        await soon(lambda: not any(map(alive, pids)), "they have ended")
        await pair.sync(delete=True)
        same(pair)


# people


@BOTH
@ENDS
async def test_a_person_waits_over_a_restart(
    net: Net, tmp_path: Path, way: str, end: Callable[[World], None]
) -> None:
    """FI-02: `holdfast sync` waits on with the next daemon; there is one sync."""
    async with tools(net.world, "--no-autostart", client="other") as other:
        pair = Pair(other, tmp_path, way)
        filled(pair)
        here, there = ("", "box:") if way == "upload" else ("box:", "")
        ends = [f"{here}{pair.source}", f"{there}{pair.destination}"]
        net.proxy.throttle(RATE)
        process = await asyncio.create_subprocess_exec(
            program("holdfast"),
            *("sync", "--delete", "--json", *ends),
            env=net.world.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            await soon(partial(half, pair), "the half of it is there", 60)
            net.proxy.throttle(SLOW)
            await asyncio.to_thread(end, net.world)
            net.proxy.throttle(0)
            out, err = await asyncio.wait_for(process.communicate(), 60)
            assert process.returncode == 0, err
            await given_way(net.world)
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()
        told = json.loads(out)
        assert told["status"] == "exited"
        assert "begun anew" in told["note"]
        same(pair)
        (job,) = (await other.told("ssh_job_list"))["jobs"]
        assert job["job_id"] == told["job_id"]
