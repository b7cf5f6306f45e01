"""Daemon and shim killed at bad moments, through real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.mcp_wire import Wire
from fakes.watch import (
    alive,
    connected,
    daemons_of,
    descriptors,
    run,
    soon,
    started_by,
)
from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_shim.client import error_of as client_error
from holdfast_shim.client import metadata_of

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World
    from holdfast_shim.client import DaemonClient

KILLS = 60
AT_ONCE = 6


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    assert result["isError"] is True
    error = result["structuredContent"]["error"]
    assert isinstance(error, dict)
    return error


def exec_of(command: str, **arguments: object) -> dict[str, Any]:
    told = {"target": "box", "command": command, **arguments}
    return {"name": "ssh_exec", "arguments": told}


async def test_a_daemon_killed_in_mid_call_is_told_and_started_again(
    world: World, tmp_path: Path
) -> None:
    """PK-06, A5.7: DAEMON_LOST with ran unknown; the next call works, nothing twice."""
    ran = tmp_path / "ran"
    async with Wire(env=world.environment) as shim:
        command = f"echo once >> {ran}; sleep 60"
        ident = await shim.start("tools/call", exec_of(command))
        await soon(ran.exists, "it runs")
        jobs = world.state / "jobs"
        await soon(lambda: [*jobs.glob("*/job.json")], "the job is on the disk")
        await asyncio.to_thread(world.kill)
        error = error_of((await shim.reply(ident))["result"])
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        assert "ssh_job_list" in error["hint"]
        result = await shim.call("ssh_exec", exec_of("echo on")["arguments"])
        assert "isError" not in result
        # What ran then is lost, never exited 0, and not run a second time.
        listed = await shim.call("ssh_job_list", {})
        rows = {r["command"]: r for r in listed["structuredContent"]["jobs"]}
        assert rows[command]["status"] == "lost"
        assert rows[command].get("exit_code") is None
    assert ran.read_text() == "once\n"
    assert len(await asyncio.to_thread(daemons_of, world)) == 1
    verdict = await asyncio.to_thread(world.cli_json, "audit", "--verify")
    assert verdict["intact"], verdict
    for pid in await asyncio.to_thread(started_by, str(ran)):
        os.kill(pid, signal.SIGKILL)


async def test_a_call_for_a_daemon_that_has_ended_runs_in_no_other(
    world: World, tmp_path: Path
) -> None:
    """NF-20: gRPC may carry it to the next one, which does nothing of it."""
    async with connected(world) as client:
        hello = await client.connected()
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        told = common_pb2.ClientContext()
        told.CopyFrom(client.context)
        request = exec_pb2.RunRequest(target="box", command=f"echo x >> {tmp_path}/ran")
        told.daemon = "another"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.Run(request, metadata=metadata_of(told, ""))))
        error = client_error(caught.value)
        assert (error.reason, error.ran) == ("DAEMON_LOST", "no")
        told.daemon = hello.instance
        async for _ in stub.Run(request, metadata=metadata_of(told, "")):
            continue
    assert (tmp_path / "ran").read_text() == "x\n"


async def test_the_shim_ends_with_its_input_and_the_command_goes_on(
    world: World, tmp_path: Path
) -> None:
    """PK-06, EX-16: EOF with calls in flight: it is out, the jobs run on."""
    up, gate = tmp_path / "up", tmp_path / "gate"
    command = f"touch {up}; until [ -e {gate} ]; do sleep 0.05; done; echo done"
    async with Wire(env=world.environment) as shim:
        for _ in range(3):
            await shim.start("tools/call", exec_of(command))
        await soon(up.exists, "it runs")
        shim.close_stdin()
        assert await shim.ended() == 0
    async with connected(world) as client:
        jobs = await _jobs(client)
        assert [job.command for job in jobs] == [command] * 3
        await asyncio.to_thread(gate.touch)
        outcomes = [await _outcome(client, job.job_id) for job in jobs]
    assert [(o.exit_code, o.stdout) for o in outcomes] == [(0, "done\n")] * 3


async def test_the_shim_ends_with_its_parent_in_mid_call(
    world: World, tmp_path: Path
) -> None:
    """PK-06: the parent is killed, the pipes stay open elsewhere: out within 2 s."""
    up = tmp_path / "up"
    shim = [sys.executable, "-m", "holdfast_shim.mcp_stdio"]
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import subprocess as s; p = s.Popen({shim!r}); print(p.pid, flush=True); "
        "p.wait()",
        env=world.environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": exec_of(f"touch {up}; sleep 60"),
    }
    parent.stdin.write(json.dumps(call).encode() + b"\n")
    await soon(up.exists, "it runs")
    parent.kill()
    await soon(lambda: not alive(pid), "the shim ended")
    await asyncio.wait_for(parent.communicate(), 40)
    async with connected(world) as client:
        (job,) = await _jobs(client)
        assert job.status == common_pb2.EXEC_STATUS_RUNNING


async def test_killed_shims_lose_nothing_and_leave_nothing(
    world: World, tmp_path: Path
) -> None:
    """A5.6: SIGKILL in mid-call again and again: each outcome readable elsewhere."""
    gate = tmp_path / "gate"
    async with connected(world) as client:
        await run(client, "true")
        await soon(lambda: _quiet(world), "the daemon is at rest")
        before = descriptors(world.pid), _threads(world.pid)

        async def one(number: int) -> None:
            up = tmp_path / f"up{number}"
            command = (
                f"touch {up}; until [ -e {gate} ]; do sleep 0.2; done; "
                f"echo {number}; exit {number}"
            )
            async with Wire(env=world.environment) as shim:
                await shim.start("tools/call", exec_of(command))
                await soon(up.exists, "it runs")
                shim.process.kill()
                await shim.ended()

        for first in range(0, KILLS, AT_ONCE):
            await asyncio.gather(*(one(n) for n in range(first, first + AT_ONCE)))
            await asyncio.to_thread(gate.touch)
            jobs = await _jobs(client)
            outcomes = [await _outcome(client, j.job_id) for j in jobs[:AT_ONCE]]
            told = {(o.exit_code, o.stdout) for o in outcomes}
            wanted = range(first, first + AT_ONCE)
            assert told == {(number, f"{number}\n") for number in wanted}
            await asyncio.to_thread(gate.unlink)
        status = await asyncio.to_thread(world.cli_json, "status")
        assert (status["jobs_running"], status["jobs_kept"]) == (0, KILLS + 1)
        await soon(
            lambda: descriptors(world.pid) <= before[0],
            f"descriptors are back at {before[0]}, now {descriptors(world.pid)}",
        )
        assert _threads(world.pid) <= before[1] + 8
    verdict = await asyncio.to_thread(world.cli_json, "audit", "--verify")
    assert verdict["intact"], verdict


def _quiet(world: World) -> bool:
    """One connection is left, and no channel is open on it."""
    rows = world.cli_json("status")["connections"]
    return [row["channels"] for row in rows] == [0]


def _threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208 - only a count


async def _jobs(client: DaemonClient) -> list[exec_pb2.Job]:
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    answer = await stub.ListJobs(exec_pb2.ListJobsRequest(), metadata=client.metadata())
    return list(answer.jobs)


async def _outcome(client: DaemonClient, job_id: str) -> exec_pb2.JobOutput:
    """Read a job to its end, as another client than the one that started it."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    request = exec_pb2.FollowJobRequest(job_id=job_id)
    async for _ in stub.FollowJob(request, metadata=client.metadata()):
        continue
    found: exec_pb2.JobOutput | None = None
    read = exec_pb2.ReadJobRequest(job_id=job_id)
    async for frame in stub.ReadJob(read, metadata=client.metadata()):
        found = frame.result
    assert found is not None
    return found
