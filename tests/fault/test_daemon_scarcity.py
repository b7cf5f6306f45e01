"""Too few descriptors and a full disk: told clearly, survived, recovered from."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.mcp_wire import Wire
from fakes.supervisor import Supervisor
from fakes.watch import PATIENCE, connected, moment, run, soon, wait_for_output
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

DISK = 8 * 1024 * 1024
CONFIG = """
[limits]
spool_bytes = 67_108_864
"""


@pytest.fixture
def small_disk(short_path: Path, sshd: Sshd) -> Iterator[World]:
    """Yield a daemon whose state directory is a file system of 8 MiB."""
    if os.getuid() != 0:
        pytest.skip("needs root to mount a small file system")
    world = World(short_path, ssh_config=sshd.config)
    world.state.mkdir(mode=0o700)
    options = f"size={DISK},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(world.state)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {mounted.stderr}")
    try:
        world.configure(CONFIG)
        with world:
            yield world
    finally:
        subprocess.run(["umount", str(world.state)], check=True)


def _fill(world: World) -> Path:
    """Leave no byte free on the disk."""
    filler = world.state / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
    return filler


async def _first_refusal(shim: Wire) -> dict[str, Any]:
    """Run commands until the last block of the audit log is full."""
    for number in range(50):
        command = f"echo {number}"
        result = await shim.call("ssh_exec", {"target": "box", "command": command})
        if "isError" in result:
            error = result["structuredContent"]["error"]
            assert isinstance(error, dict)
            return error
    raise AssertionError("the audit log can't be that small")


async def test_a_full_disk_is_told_and_recovered_from(
    small_disk: World, tmp_path: Path
) -> None:
    """A5.18: a clear note on the job, lists answer, new work refused, recovery."""
    world = small_disk
    gate = tmp_path / "gate"
    async with connected(world) as client, Wire(env=world.environment) as shim:
        await run(client, "echo kept")
        command = (
            f"echo up; until [ -e {gate} ]; do sleep 0.05; done; "
            "head -c 30000000 /dev/zero | tr '\\0' x; echo; echo end"
        )
        job = await run(client, command, wait_seconds=0)
        await wait_for_output(client, job.job_id, "up")
        filler = await asyncio.to_thread(_fill, world)
        await asyncio.to_thread(gate.touch)
        # It runs to its end with its real exit code, though its output found no room.
        read = {"job_id": job.job_id, "wait_seconds": 20}
        async with asyncio.timeout(40):
            while True:
                told = await shim.call("ssh_job_read", {**read, "tail_lines": 1})
                if told["content"][0]["text"].startswith("exit 0"):
                    break
        assert "No space left" in told["content"][0]["text"]
        assert told["content"][0]["text"].endswith("end")
        listed = await shim.call("ssh_job_list", {})
        rows = listed["structuredContent"]["jobs"]
        assert {row["status"] for row in rows} == {"exited"}
        status = await asyncio.to_thread(world.cli_json, "status")
        assert status["pid"] == world.pid

        error = await _first_refusal(shim)
        assert (error["reason"], error["ran"]) == ("AUDIT_UNAVAILABLE", "no")
        assert "No space left" in error["message"] + error["hint"]

        await asyncio.to_thread(filler.unlink)
        await soon(
            lambda: not world.cli_json("status")["audit_error"], "there is room again"
        )
        again = await shim.call("ssh_exec", {"target": "box", "command": "echo again"})
        assert again["content"][0]["text"].endswith("again")
    verdict = await asyncio.to_thread(world.cli_json, "audit", "--verify")
    assert verdict["intact"], verdict
    assert await asyncio.to_thread(world.stop) == 0


def _start_scarce(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["sh", "-c", 'ulimit -n 256 && exec "$0"', program("holdfastd")],
        env=environment,
        stderr=subprocess.DEVNULL,
    )


async def test_too_few_descriptors_are_told_and_survived(
    short_path: Path, sshd: Sshd
) -> None:
    """A5.18: at a hard limit of 256 the daemon answers again once there is room."""
    world = World(short_path, ssh_config=sshd.config)
    world.run.mkdir(mode=0o700)

    with Supervisor(short_path) as supervisor:
        daemon = _start_scarce({**world.environment, **supervisor.environment})
        try:
            await supervisor.until("READY")
            async with connected(world) as client:
                assert (await run(client, "echo on")).stdout == "on\n"
                peers = [
                    await asyncio.open_unix_connection(str(world.socket))
                    for _ in range(300)
                ]
                # Whatever it says meanwhile, it is an answer.
                await asyncio.gather(
                    *(run(client, f"echo {n}") for n in range(20)),
                    return_exceptions=True,
                )
                for _, writer in peers:
                    writer.close()

                async def works() -> bool:
                    try:
                        return (await run(client, "echo on")).stdout == "on\n"
                    except (OSError, grpc.aio.AioRpcError):
                        return False

                async with asyncio.timeout(40):
                    while not await works():
                        await moment()
            done = await asyncio.to_thread(world.cli, "exec", "box", "--", "echo", "hi")
            assert done.stdout == b"hi\n"
            assert daemon.poll() is None
            daemon.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(daemon.wait, PATIENCE) == 0
        finally:
            daemon.kill()
            daemon.wait()


@pytest.mark.parametrize("way", ["exec", "session"])
async def test_a_command_whose_output_can_not_be_read_now_has_run(
    short_path: Path, sshd: Sshd, tmp_path: Path, way: str
) -> None:
    """EX-20: in a session it was told that nothing ran."""
    gate = tmp_path / "gate"
    command = f"seq 100000; until [ -e {gate} ]; do sleep 0.05; done; exit 3"
    with World(short_path, ssh_config=sshd.config) as world:
        async with Wire(env=world.environment) as shim:
            where = {"target": "box"}
            if way == "session":
                opened = await shim.call(
                    "ssh_session_open", {"target": "box", "durability": "held"}
                )
                where = {"session": opened["structuredContent"]["session_id"]}
            tool = "ssh_exec" if way == "exec" else "ssh_session_run"
            asked = {"name": tool, "arguments": {**where, "command": command}}
            await shim.call(tool, {**where, "command": "true"})
            ident = await shim.start("tools/call", asked)
            await soon(lambda: _on_disk(world) > 500_000, "it is on disk")
            before = resource.prlimit(world.pid, resource.RLIMIT_NOFILE)
            resource.prlimit(world.pid, resource.RLIMIT_NOFILE, (3, before[1]))
            try:
                gate.touch()
                result = (await shim.reply(ident))["result"]
            finally:
                resource.prlimit(world.pid, resource.RLIMIT_NOFILE, before)
            assert "isError" not in result, result
            told = result["structuredContent"]
            assert told["exit_code"] == 3
            assert "could not be read just now" in told["note"]
            read = {"job_id": told["job_id"], "tail_lines": 1}
            again = (await shim.call("ssh_job_read", read))["structuredContent"]
            assert (again["stdout"], again["exit_code"]) == ("100000\n", 3)


def _on_disk(world: World) -> int:
    files = (world.state / "jobs").glob("*/*.seg")
    return sum(file.stat().st_size for file in files)
