"""Many calls at once, and clients that stop reading: nobody else notices."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from fakes.mcp_wire import Wire
from fakes.watch import connected, memory, run, soon
from fakes.world import program
from holdfast.v1 import exec_pb2, exec_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World
    from holdfast_shim.client import DaemonClient

CALLS = 4000
FLOOD = 40_000_000
INPUTS, INPUT_BYTES = 60, 2_500_000


async def _burst(channel: grpc.aio.Channel, metadata: Any) -> tuple[int, set[Any]]:
    """Make all calls at once; return how many were answered, and how the rest ended."""
    stub = exec_pb2_grpc.ExecServiceStub(channel)
    calls = [
        stub.ListJobs(exec_pb2.ListJobsRequest(), metadata=metadata)
        for _ in range(CALLS)
    ]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    failed = [a for a in answers if isinstance(a, grpc.aio.AioRpcError)]
    answered = sum(isinstance(a, exec_pb2.ListJobsResponse) for a in answers)
    return answered, {error.code() for error in failed}


async def _answer(_: bytes, __: Any) -> bytes:
    await asyncio.sleep(0)
    return b""


def _bare_server() -> grpc.aio.Server:
    """Make a server with gRPC's own defaults that answers the same calls."""
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(_answer)
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                "holdfast.v1.ExecService", {"ListJobs": handler}
            ),
        )
    )
    return server


async def test_four_thousand_calls_at_once_are_all_answered(
    world: World, short_path: Path
) -> None:
    """A5.3: 4,000 of 4,000; gRPC's defaults lose some, which is why we set ours."""
    async with connected(world) as client:
        assert await _burst(client.channel, client.metadata()) == (CALLS, set())
        assert (await run(client, "echo on")).stdout == "on\n"
    bare = _bare_server()
    bare.add_insecure_port(f"unix:{short_path}/bare")
    await bare.start()
    async with grpc.aio.insecure_channel(f"unix:{short_path}/bare") as channel:
        answered, codes = await _burst(channel, None)
    await bare.stop(None)
    assert answered < CALLS
    assert codes


async def _others_work(client: DaemonClient) -> None:
    """Bounded, so that a daemon that waits for the stopped one fails the test."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    async with asyncio.timeout(40):
        for number in range(10):
            result = await run(client, f"echo {number}")
            assert result.stdout == f"{number}\n"
            await stub.ListJobs(exec_pb2.ListJobsRequest(), metadata=client.metadata())
        job = await run(client, "sleep 60", wait_seconds=0)
        request = exec_pb2.StopJobRequest(job_id=job.job_id)
        stopped = await stub.StopJob(request, metadata=client.metadata())
        assert stopped.stopped


async def test_a_stopped_shim_holds_nobody_up_and_gets_its_result(
    world: World, tmp_path: Path
) -> None:
    """A5.5, NF-03: SIGSTOP while its command floods; after SIGCONT it is answered."""
    up, gate = tmp_path / "up", tmp_path / "gate"
    command = (
        f"touch {up}; until [ -e {gate} ]; do sleep 0.05; done; "
        f"head -c {FLOOD} /dev/zero | tr '\\0' x; echo; echo end"
    )
    async with Wire(env=world.environment) as shim, connected(world) as client:
        arguments = {"target": "box", "command": command}
        params = {
            "name": "ssh_exec",
            "arguments": arguments,
            "_meta": {"progressToken": 1},
        }
        ident = await shim.start("tools/call", params)
        await soon(up.exists, "it runs")
        shim.process.send_signal(signal.SIGSTOP)
        await asyncio.to_thread(gate.touch)
        await _others_work(client)
        await soon(lambda: _ended(world, command), "the flood ended without it")
        shim.process.send_signal(signal.SIGCONT)
        result = (await shim.reply(ident))["result"]
    assert "isError" not in result
    text = result["content"][0]["text"]
    assert text.startswith("exit 0")
    assert text.endswith("end")


async def test_what_commands_read_is_not_kept_for_as_long_as_they_are_listed(
    world: World,
) -> None:
    """Their input and variables, which may hold secrets, go with their end."""
    async with connected(world) as client:
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)

        async def feed() -> exec_pb2.ExecResult:
            request = exec_pb2.RunRequest(
                target="box", command="wc -c", stdin="x" * INPUT_BYTES
            )
            answer = exec_pb2.ExecResult()
            async for frame in stub.Run(request, metadata=client.metadata()):
                answer = frame.result
            return answer

        for _ in range(3):
            await feed()
        before = memory(world.pid)
        told = [(await feed()).stdout.strip() for _ in range(INPUTS)]
        assert told == [str(INPUT_BYTES)] * INPUTS
        assert memory(world.pid) - before < INPUTS * INPUT_BYTES / 3


async def test_a_stopped_reader_of_the_stream_loses_no_byte(
    world: World, tmp_path: Path
) -> None:
    """A5.5, EX-12: `holdfast exec` stopped in mid-stream goes on at its offset."""
    command = f"head -c {FLOOD} /dev/zero | tr '\\0' x; echo end"
    out = tmp_path / "out"
    with out.open("wb") as taken:
        process = await asyncio.create_subprocess_exec(
            program("holdfast"),
            *("exec", "box", "--", command),
            env=world.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=taken,
        )
    try:
        await soon(lambda: out.stat().st_size > 0, "it streams")
        process.send_signal(signal.SIGSTOP)
        async with connected(world) as client:
            await _others_work(client)
        # As with ssh, the command waits for its reader.
        assert not await asyncio.to_thread(_ended, world, command)
        process.send_signal(signal.SIGCONT)
        assert await asyncio.wait_for(process.wait(), 30) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    data = await asyncio.to_thread(out.read_bytes)
    assert len(data) == FLOOD + len("end\n")
    assert data.strip(b"x") == b"end\n"


def _ended(world: World, command: str) -> bool:
    rows = world.cli_json("jobs")["jobs"]
    return any(r["command"] == command and r["status"] == "exited" for r in rows)
