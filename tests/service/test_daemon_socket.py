"""The socket's name may be taken away; the daemon and its calls go on."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.watch import (
    connected,
    daemons_of,
    records,
    run,
    soon,
    wait_for_output,
)
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes.sshd import Sshd


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    one = World(short_path, ssh_config=sshd.config)
    one.configure("[limits]\nsocket_check_seconds = 0.2\n")
    with one:
        yield one


def _deleted(world: World) -> None:
    world.socket.unlink()


def _replaced(world: World) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(world.root / "other"))
    (world.root / "other").rename(world.socket)


def _emptied(world: World) -> None:
    for path in world.run.iterdir():
        path.unlink(missing_ok=True)


def _removed(world: World) -> None:
    aside = world.root / "aside"
    world.run.rename(aside)
    shutil.rmtree(aside)


def _swapped(world: World) -> None:
    world.run.rename(Path(tempfile.mkdtemp(dir=world.root)))


@pytest.mark.parametrize(
    "spoil",
    [_deleted, _replaced, _emptied, _removed, _swapped],
    ids=lambda made: made.__name__,
)
async def test_a_lost_socket_is_served_again_and_calls_survive(
    world: World, tmp_path: Path, spoil: Callable[[World], None]
) -> None:
    """A5.21: noticed within socket_check_seconds, by the same daemon."""
    up, gate = tmp_path / "up", tmp_path / "gate"
    async with connected(world) as client:
        waiting = asyncio.create_task(
            run(
                client, f"touch {up}; until [ -e {gate} ]; do sleep 0.05; done; echo on"
            )
        )
        await soon(up.exists, "it runs")
        spoil(world)
        # Asked for again and again: each loss is noticed, not just the first.
        for lost in (spoil, _emptied, _deleted):
            await soon(lambda: _answers(world), f"served again after {lost.__name__}")
            told = await asyncio.to_thread(world.cli_json, "--no-autostart", "status")
            assert told["pid"] == world.pid
            if lost is not _deleted:
                lost(world)
        await soon(lambda: _answers(world), "served again")
        await asyncio.to_thread(gate.touch)
        result = await waiting
        assert (result.exit_code, result.stdout) == (0, "on\n")
    assert await asyncio.to_thread(daemons_of, world) == [world.pid]
    assert world.socket.stat().st_mode & 0o777 == 0o600
    assert await asyncio.to_thread(world.stop) == 0
    assert not world.socket.exists()


def _answers(world: World) -> bool:
    done = world.cli("--no-autostart", "status", "--json", check=False)
    return done.returncode == 0


async def test_what_is_not_ours_to_replace_is_left_and_told(world: World) -> None:
    """A5.21: a plain file in the socket's place: the daemon lives on, and says so."""
    async with connected(world) as client:
        (world.root / "mine").write_text("mine")
        (world.root / "mine").replace(world.socket)
        await soon(
            lambda: "is not a socket" in world.log.read_text(), "it is told in the log"
        )
        assert world.socket.read_text() == "mine"
        assert (await run(client, "echo on")).stdout == "on\n"
        world.socket.unlink()
        await soon(lambda: _answers(world), "served again")


async def test_a_directory_that_was_opened_is_told_and_served_when_closed(
    world: World,
) -> None:
    """A5.21: a run directory open to others is not served from again until closed."""
    world.run.chmod(0o755)
    world.socket.unlink()
    await soon(lambda: "open to others" in world.log.read_text(), "it is told")
    assert not world.socket.exists()
    world.run.chmod(0o700)
    await soon(lambda: _answers(world), "served again")
    assert world.cli_json("status")["pid"] == world.pid


async def test_a_daemon_whose_lock_was_taken_over_ends_in_order(
    world: World, short_path: Path
) -> None:
    """Exit 75 when another serves in our place; what ran is told in the audit log."""
    async with connected(world) as client:
        job = await run(client, "echo up; sleep 60", wait_seconds=0)
        await wait_for_output(client, job.job_id, "up")
    second = World(short_path, ssh_config=None)
    second.state = short_path / "other"
    second.environment = {
        **world.environment,
        "HOLDFAST_STATE_DIR": str(second.state),
    }
    first = world.pid
    os.kill(first, signal.SIGSTOP)
    _emptied(world)
    try:
        second.start()
        os.kill(first, signal.SIGCONT)
        assert await asyncio.to_thread(world.ended) == 75
        assert second.cli_json("status")["pid"] == second.pid
    finally:
        second.stop()
    ends = [r for r in records(world) if r["phase"] == "end"]
    assert [r["metadata"]["job_id"] for r in ends] == [job.job_id]
