"""Clients are killed in the middle of a command: sessions live, outcomes are read.

HOLDFAST_SHIM_KILLS says how many (`make soak`: 200).
"""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

KILLS = int(os.environ.get("HOLDFAST_SHIM_KILLS", "6"))
SECONDS = 60 + KILLS * 3
# so many clients at once, as starting them is most of the work
AT_ONCE = 4
# each session has a channel, and each command one; sshd gives ten to a connection
LIMITS = (
    f"{QUICK}sessions_per_host = {KILLS + 10}\n"
    f"connections_per_host = {KILLS // 4 + 10}\n"
    f"jobs_running = {KILLS + 100}\n"
)

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    # what is kept there is below the server's own directory, and ends with it
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={tmp_path}/sshd"}) as one:
        yield one


@pytest.fixture
def world(host: Sshd) -> Iterator[World]:
    with served(host, limits=LIMITS) as one:
        yield one


async def doomed(world: World, number: int, directory: Path) -> str:
    """Be a client that is killed while its call waits; return its session."""
    begun = directory / f"begun-{number}"
    async with tools(world, client=f"doomed{number}") as ssh:
        opened = await ssh.told(
            "ssh_session_open",
            target="box",
            session_name=f"s{number}",
            durability="remote",
        )
        await ssh.wire.start(
            "tools/call",
            {
                "name": "ssh_session_run",
                "arguments": {
                    "session": f"s{number}",
                    "command": f"N={number}; echo before-$N; : > {begun};"
                    f" until [ -e {directory}/go ]; do sleep 0.5; done;"
                    f" echo after-$N; (exit {number % 50})",
                },
            },
        )
        await soon(begun.exists, "its command has begun")
        ssh.wire.process.send_signal(signal.SIGKILL)
        await ssh.wire.process.wait()
    return str(opened["session_id"])


async def outcome(other: Tools, session: str, number: int, job_id: str) -> None:
    """Read what became of one, and use its shell."""
    result = await other.ended(job_id)
    assert result["status"] == "exited", result
    assert result["exit_code"] == number % 50
    assert result["stdout"] == f"before-{number}\nafter-{number}\n"
    told = await other.told("ssh_session_run", session=session, command="echo $N")
    assert (told["stdout"], told["exit_code"]) == (f"{number}\n", 0)
    closed = await other.told("ssh_session_close", session=session)
    assert (closed["closed"], closed["was_running"]) == (True, True)


async def test_sessions_of_killed_clients_live_and_tell_their_outcomes(
    world: World, host: Sshd
) -> None:
    """SE-06, NF-01: as many sessions, as many outcomes, read by another client."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> str:
        async with room:
            return await doomed(world, number, host.directory)

    sessions = await asyncio.gather(*(one(number) for number in range(KILLS)))
    assert len(set(sessions)) == KILLS
    async with tools(world) as other:
        listed = await other.told("ssh_session_list")
        rows: dict[str, Result] = {row["session_id"]: row for row in listed["sessions"]}
        assert set(rows) == set(sessions)
        assert all(row["running"] for row in rows.values())
        jobs = await running_jobs(other)
        assert len(jobs) == KILLS
        (host.directory / "go").touch()
        for number, session in enumerate(sessions):
            await outcome(other, session, number, jobs[f"doomed{number}/1"])


async def running_jobs(other: Tools) -> dict[str, str]:
    """Return the job of each client, as anybody may find it."""
    listed = await other.told("ssh_job_list")
    found: list[dict[str, Any]] = listed["jobs"]
    return {job["client"]: job["job_id"] for job in found}
