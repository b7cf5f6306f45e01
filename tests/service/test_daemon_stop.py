"""How the daemon ends: soon, with every outcome told."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from fakes.tools import content, tools
from fakes.watch import connected, records, run, soon, started_by, wait_for_output
from fakes.world import World, program
from holdfast.v1 import common_pb2

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.sshd import Sshd

JOBS = 100


@pytest.mark.timed
async def test_a_stop_with_a_hundred_jobs_tells_every_end_and_every_host(
    world: World, tmp_path: Path
) -> None:
    """A5.19, PK-05: SIGTERM with 100 jobs: within 5 s, every end recorded, exit 0."""
    command = (
        f"trap 'echo told > {tmp_path}/$N; kill $!; exit 7' HUP; "
        "sleep 60 & echo up; wait"
    )
    # The default limit is 10 x 10: an exact fit, which one late channel breaks.
    world.configure("[limits]\nconnections_per_host = 20\n")
    world.cli("reload")
    async with connected(world) as client:
        jobs = await asyncio.gather(
            *(
                run(client, command, env={"N": str(n)}, wait_seconds=0)
                for n in range(JOBS)
            )
        )
        await asyncio.gather(
            *(wait_for_output(client, job.job_id, "up") for job in jobs)
        )
        begun = time.monotonic()
        assert await asyncio.to_thread(world.stop) == 0
        assert time.monotonic() - begun < 5
    told = records(world)
    ends = [r for r in told if r["phase"] == "end" and r.get("command") == command]
    assert {r["metadata"]["job_id"] for r in ends} == {job.job_id for job in jobs}
    assert len(ends) == JOBS
    # The real outcome, as the commands had the time to end.
    assert {(r["result"], r["exit_code"]) for r in ends} == {("exited", 7)}
    told_to = await asyncio.to_thread(lambda: list(tmp_path.iterdir()))
    assert len(told_to) == JOBS
    await soon(lambda: not started_by(str(tmp_path)), "nothing runs on")


@pytest.mark.timed
async def test_a_second_signal_forces_a_stop_that_hangs(
    short_path: Path, sshd: Sshd
) -> None:
    """A5.19: a host that answers no more does not hold the stop for its whole limit."""
    world = World(short_path, ssh_config=sshd.config)
    world.configure("[limits]\nstop_seconds = 60\n")
    with world:
        async with connected(world) as client:
            job = await run(client, "echo up; sleep 60", wait_seconds=0)
            await wait_for_output(client, job.job_id, "up")
        frozen = sshd.freeze_connections()
        try:
            os.kill(world.pid, signal.SIGTERM)
            await soon(lambda: "stopping" in world.log.read_text(), "the stop began")
            begun = time.monotonic()
            assert await asyncio.to_thread(world.stop) == 0
            assert time.monotonic() - begun < 5
        finally:
            sshd.thaw(frozen)
    end = [record for record in records(world) if record["phase"] == "end"][-1]
    assert (end["metadata"]["job_id"], end["result"]) == (job.job_id, "lost")
    assert not world.socket.exists()


@pytest.mark.timed
async def test_a_frozen_host_does_not_hold_the_stop(
    short_path: Path, sshd: Sshd
) -> None:
    """A5.19: within 5 s whatever the hosts do; callers get a typed answer."""
    with World(short_path, ssh_config=sshd.config) as world:
        async with connected(world) as client:
            job = await run(client, "echo up; sleep 60", wait_seconds=0)
            await wait_for_output(client, job.job_id, "up")
            frozen = sshd.freeze_connections()
            try:
                waiting = asyncio.create_task(run(client, "echo never"))
                await soon(
                    lambda: len(records(world)) == 2, "the second command is recorded"
                )
                begun = time.monotonic()
                assert await asyncio.to_thread(world.stop) == 0
                assert time.monotonic() - begun < 6
            finally:
                sshd.thaw(frozen)
            answer = await waiting
            assert answer.status == common_pb2.EXEC_STATUS_LOST
            assert "the daemon stopped" in answer.note
    phases = [record["phase"] for record in records(world)]
    assert phases.count("start") == phases.count("end") == 2


async def test_who_follows_the_audit_log_does_not_hold_the_stop(
    short_path: Path, sshd: Sshd
) -> None:
    """PK-05, OB-01: it waited for its share of the time, for a call without an end."""
    world = World(short_path, ssh_config=sshd.config)
    world.configure("[limits]\nstop_seconds = 60\n")
    with world:
        async with connected(world) as client:
            job = await run(client, "echo up; exec sleep 60", wait_seconds=0)
            await wait_for_output(client, job.job_id, "up")
            follower = await asyncio.create_subprocess_exec(
                program("holdfast"), "audit", "--follow", "--json",
                env=world.environment, stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert follower.stdout is not None
            await follower.stdout.readline()
            begun = time.monotonic()
            assert await asyncio.to_thread(world.stop) == 0
            assert time.monotonic() - begun < 10
        seen, _ = await follower.communicate()
    # what came of the commands is told before that
    *told, last = map(json.loads, seen.decode().splitlines())
    assert last["error"]["reason"] == "DRAINING"
    ends = [row["metadata"]["job_id"] for row in told if row["phase"] == "end"]
    assert ends == [job.job_id]


@pytest.mark.parametrize("tool", ["ssh_session_read", "ssh_session_write"])
async def test_who_waits_for_a_kept_shell_does_not_hold_the_stop(
    short_path: Path, sshd: Sshd, tool: str
) -> None:
    """PK-05, SE-11: it waited for its share of the time; the call has an answer."""
    asked: dict[str, Any] = {"wait_seconds": 45, "until": "never"}
    if tool == "ssh_session_write":
        asked |= {"input": "\n"}
    world = World(short_path, ssh_config=sshd.config)
    world.configure("[limits]\nstop_seconds = 60\nprogress_interval_seconds = 0.1\n")
    with world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", durability="remote", shell="/bin/sh"
            )
            asked |= {"session": opened["session_id"]}
            call = {"name": tool, "arguments": asked, "_meta": {"progressToken": "p"}}
            ident = await ssh.wire.start("tools/call", call)
            note = await ssh.wire.receive()
            assert note["method"] == "notifications/progress"
            begun = time.monotonic()
            assert await asyncio.to_thread(world.stop) == 0
            assert time.monotonic() - begun < 10
            told = content((await ssh.wire.reply(ident))["result"])
            assert told["running"] is True
            await asyncio.to_thread(world.start)
            session = opened["session_id"]
            await ssh.told("ssh_session_close", session=session, force=True)
