"""What the running daemon tells its service manager."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fakes.supervisor import Supervisor
from fakes.watch import connected, run, soon
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

# Stands in for a machine without systemd-python.
SCRIPT = (
    "import sys; sys.modules['systemd'] = None; "
    "from holdfast_daemon.__main__ import main; sys.exit(main())"
)
OWN = (sys.executable, "-c", SCRIPT)


def start(world: World, *words: str, **environment: str) -> subprocess.Popen[bytes]:
    """Start the daemon, or `words` instead."""
    return subprocess.Popen(
        words or [program("holdfastd")],
        env={**world.environment, **environment},
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    one = World(short_path, ssh_config=sshd.config)
    one.configure("[limits]\nreap_seconds = 0.1\n")
    one.run.mkdir(mode=0o700)
    yield one
    one.close()


@pytest.fixture(params=["library", "own"])
def daemon(
    request: pytest.FixtureRequest, world: World
) -> Iterator[tuple[subprocess.Popen[bytes], Supervisor]]:
    """Yield a daemon under a supervisor that wants a ping each 0.2 s."""
    words = () if request.param == "library" else OWN
    with Supervisor(world.root) as supervisor:
        environment = {**supervisor.environment, "WATCHDOG_USEC": "200000"}
        process = start(world, *words, **environment)
        try:
            yield process, supervisor
        finally:
            process.kill()
            process.wait()


async def test_it_tells_every_stage_of_its_life(
    daemon: tuple[subprocess.Popen[bytes], Supervisor], world: World
) -> None:
    """PK-04: READY when calls are answered, STATUS, WATCHDOG, RELOADING, STOPPING."""
    process, supervisor = daemon
    first = await supervisor.until("READY")
    assert first["STATUS"].startswith("serving")
    async with connected(world) as client:
        for _ in range(3):
            await supervisor.until("WATCHDOG")
        await run(client, "sleep 60", wait_seconds=0)
        while "1 jobs" not in (await supervisor.until("STATUS"))["STATUS"]:
            continue
        process.send_signal(signal.SIGHUP)
        told = await supervisor.until("RELOADING")
        assert int(told["MONOTONIC_USEC"]) > 0
        await supervisor.until("READY")
        world.configure("nonsense = true\n")
        process.send_signal(signal.SIGHUP)
        while "not taken" not in (await supervisor.until("STATUS"))["STATUS"]:
            continue
    process.send_signal(signal.SIGTERM)
    await supervisor.until("STOPPING")
    assert await asyncio.to_thread(process.wait, 10) == 0


async def test_a_frozen_loop_stops_pinging(
    daemon: tuple[subprocess.Popen[bytes], Supervisor],
) -> None:
    """PK-04: the ping comes from the loop that serves, so a frozen one is noticed."""
    process, supervisor = daemon
    await supervisor.until("READY")
    await supervisor.until("WATCHDOG")
    process.send_signal(signal.SIGSTOP)
    while not supervisor.silent():
        continue
    with pytest.raises(TimeoutError):
        await supervisor.until("WATCHDOG", 0.5)
    process.send_signal(signal.SIGCONT)
    await supervisor.until("WATCHDOG")


async def test_it_is_not_ready_before_it_answers(world: World) -> None:
    """PK-04: `systemctl start` returns when the socket answers."""
    with Supervisor(world.root) as supervisor:
        process = start(world, **supervisor.environment)
        try:
            await supervisor.until("READY")
            async with connected(world) as client:
                assert (await client.connected()).pid == process.pid
        finally:
            process.terminate()
            await asyncio.to_thread(process.wait, 10)


async def test_a_manager_that_is_gone_disturbs_nothing(world: World) -> None:
    """PK-04: a NOTIFY_SOCKET that nobody reads, and none at all."""
    for address in (str(world.root / "nobody"), "@nobody-reads-this", ""):
        process = start(world, NOTIFY_SOCKET=address)
        try:
            await soon(world.socket.exists, "it serves")
            async with connected(world) as client:
                assert (await run(client, "echo on")).stdout == "on\n"
            os.kill(process.pid, signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
        finally:
            process.kill()
            process.wait()
