"""When the shim ends, what it waits for, and what it must not import."""

from __future__ import annotations

import asyncio
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import holdfast
import holdfast_shim
from fakes.daemon import FakeDaemon
from fakes.mcp_wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SHIM = [sys.executable, "-m", "holdfast_shim.mcp_stdio"]
PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon(short_path / "hf.sock") as running:
        yield running


def options(daemon: FakeDaemon) -> list[str]:
    return ["--socket", str(daemon.socket), "--no-autostart"]


def request(method: str, ident: int = 1, **params: Any) -> bytes:
    message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
    return json.dumps(message).encode() + b"\n"


def run_of(command: str, ident: int = 1) -> bytes:
    arguments = {"command": command}
    return request("tools/call", ident, name="ssh_exec", arguments=arguments)


def test_answering_the_tool_list_imports_neither_asyncio_nor_grpc() -> None:
    """PK-08: the first stage stays small because it imports next to nothing."""
    ended = subprocess.run(
        [sys.executable, "-X", "importtime", *SHIM[1:]],
        input=request("initialize") + request("tools/list", 2),
        capture_output=True,
        timeout=20,
        check=True,
    )
    assert len(ended.stdout.splitlines()) == 2
    lines = ended.stderr.decode().splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if "|" in line}
    assert "holdfast_shim.protocol" in imported
    heavy = {"asyncio", "grpc", "google.protobuf", "argparse", "dataclasses"}
    heavy |= {"holdfast_shim.dispatch", "holdfast_shim.settings", "subprocess"}
    assert not imported & heavy


async def test_it_ends_with_its_input_before_and_after_the_first_call(
    daemon: FakeDaemon,
) -> None:
    """PK-06: the shim exits on stdin EOF."""
    for calls in (0, 1):
        async with Wire(*options(daemon)) as shim:
            await shim.request("ping")
            for _ in range(calls):
                await shim.call("ssh_hosts")
            shim.close_stdin()
            assert await shim.ended() == 0


async def test_it_ends_with_its_input_while_a_call_waits(daemon: FakeDaemon) -> None:
    """PK-06: only the wait ends; the daemon keeps what runs."""
    async with Wire(*options(daemon)) as shim:
        arguments = {"command": "wait"}
        await shim.start("tools/call", {"name": "ssh_exec", "arguments": arguments})
        await daemon.begun.wait()
        shim.close_stdin()
        assert await shim.ended() == 0
        await asyncio.wait_for(daemon.cancelled.wait(), 40)


async def test_calls_piped_into_it_are_answered_before_it_ends(
    daemon: FakeDaemon,
) -> None:
    """PK-06: `printf … | holdfast-mcp` works, even without a last newline."""
    async with Wire(*options(daemon)) as shim:
        assert shim.process.stdin is not None
        shim.process.stdin.write(PING + run_of("echo on", 2).strip())
        shim.close_stdin()
        assert (await shim.reply(2))["result"]["content"]
        assert await shim.ended() == 0


@pytest.mark.parametrize("used", [False, True])
async def test_it_ends_with_its_parent_though_the_pipe_is_held_elsewhere(
    daemon: FakeDaemon, used: bool
) -> None:
    """PK-06: parent death ends the shim, in both stages."""
    words = json.dumps([*SHIM, *options(daemon)])
    parent = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        f"import subprocess as s; p = s.Popen({words}); print(p.pid, flush=True); "
        "p.wait()",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert parent.stdin is not None
    assert parent.stdout is not None
    try:
        shim = os.pidfd_open(int(await parent.stdout.readline()))
        parent.stdin.write(run_of("echo on") if used else PING)
        assert b'"result"' in await asyncio.wait_for(parent.stdout.readline(), 40)
        parent.send_signal(signal.SIGKILL)
        ended = select.poll()
        ended.register(shim, select.POLLIN)
        assert await asyncio.to_thread(ended.poll, 20_000), "the shim lives on"
        os.close(shim)
    finally:
        # The test's ends of both pipes were open all the while.
        await asyncio.wait_for(parent.communicate(), 40)


async def test_input_from_a_file_is_read_to_its_end(
    daemon: FakeDaemon, tmp_path: Path
) -> None:
    """TR-01: stdin may be a file, which can't be waited for."""
    source = tmp_path / "in"
    source.write_bytes(PING + run_of("echo one", 2) + run_of("echo two", 3))
    with source.open("rb") as given, (tmp_path / "out").open("wb") as taken:
        process = await asyncio.create_subprocess_exec(
            *SHIM, *options(daemon), stdin=given, stdout=taken
        )
        assert await asyncio.wait_for(process.wait(), 40) == 0
    lines = (tmp_path / "out").read_text().splitlines()
    replies = [json.loads(line) for line in lines]
    assert sorted(reply["id"] for reply in replies) == [1, 2, 3]


async def test_one_socket_may_be_both_ends(daemon: FakeDaemon) -> None:
    """TR-01: some clients spawn with a socket pair instead of pipes."""
    ours, theirs = socket.socketpair()
    process = await asyncio.create_subprocess_exec(
        *SHIM, *options(daemon), stdin=theirs.fileno(), stdout=theirs.fileno()
    )
    theirs.close()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    writer.write(PING + run_of("echo on", 2))
    for ident in (1, 2):
        line = await asyncio.wait_for(reader.readline(), 40)
        assert json.loads(line)["id"] == ident
    writer.close()
    await writer.wait_closed()
    assert await asyncio.wait_for(process.wait(), 40) == 0


async def test_a_client_that_stops_reading_blocks_nothing(daemon: FakeDaemon) -> None:
    """NF-03: the shim reads on, and every reply arrives once the client reads again."""
    async with Wire(*options(daemon)) as shim:
        for ident in range(60):
            await shim.send(run_of("flood 30000", ident))
        await shim.send(run_of("wait", 99))
        # 1.8 MB of replies do not fit a pipe, yet this request got through.
        await daemon.begun.wait()
        daemon.release.set()
        replies = [await shim.receive() for _ in range(61)]
        assert {reply["id"] for reply in replies} == {*range(60), 99}


@pytest.mark.parametrize("used", [False, True])
async def test_a_client_that_closed_its_end_is_no_reason_for_noise(
    daemon: FakeDaemon, used: bool
) -> None:
    """PK-06: EPIPE on stdout ends the shim quietly."""
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        *SHIM,
        *options(daemon),
        stdin=asyncio.subprocess.PIPE,
        stdout=write,
        stderr=asyncio.subprocess.PIPE,
    )
    os.close(write)
    os.close(read)
    assert process.stdin is not None
    process.stdin.write(run_of("echo on") if used else PING)
    await process.stdin.drain()
    assert await asyncio.wait_for(process.wait(), 40) == 0
    _, noise = await process.communicate()
    assert noise == b""


def test_without_stdin_it_ends_at_once() -> None:
    """PK-06: a closed stdin is an ended client."""
    words = ["sh", "-c", 'exec "$@" <&-', "sh", *SHIM]
    ended = subprocess.run(words, capture_output=True, timeout=20, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, b"", b"")


def test_an_upgrade_underneath_it_leaves_no_call_without_an_answer(
    tmp_path: Path,
) -> None:
    """NF-20: its second stage, of another release, can't be loaded into the first."""
    ours = Path(holdfast_shim.__path__[0])
    theirs = tmp_path / ours.name
    shutil.copytree(ours, theirs, ignore=shutil.ignore_patterns("__pycache__"))
    with subprocess.Popen(
        SHIM,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    ) as shim:
        assert shim.stdin is not None
        assert shim.stdout is not None
        shim.stdin.write(PING)
        shim.stdin.flush()
        assert b"result" in shim.stdout.readline()
        (theirs / "dispatch.py").write_text(
            "from holdfast_shim.protocol import SomethingNew\n"
        )
        out, err = shim.communicate(run_of("true", 2) + run_of("false", 3), 20)
    answers = [json.loads(line) for line in out.splitlines()]
    assert [one["id"] for one in answers] == [2, 3]
    for one in answers:
        assert "was upgraded or removed" in one["error"]["message"]
        assert "SomethingNew" in one["error"]["message"]
    assert (shim.returncode, err) == (1, b"")


@pytest.mark.parametrize(
    "theirs", [None, "raise TypeError('a file of the new release')\n"]
)
async def test_an_upgrade_in_mid_life_is_told_as_that(
    daemon: FakeDaemon, tmp_path: Path, theirs: str | None
) -> None:
    """NF-20, EX-20: the buggy shim asked for a report, and said it may have run."""
    ours = Path(holdfast.__path__[0])
    copy = tmp_path / ours.name
    shutil.copytree(ours, copy, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"PYTHONPATH": str(tmp_path)}
    async with Wire(*options(daemon), program=SHIM, env=env) as shim:
        assert "isError" not in await shim.call("ssh_exec", {"command": "echo on"})
        if theirs is None:
            (copy / "v1" / "forward_pb2.py").unlink()
        else:
            (copy / "v1" / "forward_pb2.py").write_text(theirs)
        result = await shim.call("ssh_forward_list")
        error = result["structuredContent"]["error"]
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
        assert "was upgraded or removed" in error["message"]
        assert "restart" in error["hint"]
        # What it has loaded goes on.
        assert "isError" not in await shim.call("ssh_exec", {"command": "echo on"})
