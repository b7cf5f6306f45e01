"""The rows of stdio, by raw lines through the real shim and daemon, on a real host."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import PREFIX, STATELESS, Wire
from fakes.tools import content, failure, served, text, tools

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = pytest.mark.needs_sshd

HANDSHAKES = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    """Yield a daemon of this module."""
    with served(sshd) as one:
        yield one


@pytest.mark.parametrize("version", HANDSHAKES)
async def test_every_revision_with_a_handshake_reaches_a_host(
    world: World, version: str
) -> None:
    """TR-10, TR-01: the version asked for is the one spoken; a command runs."""
    async with Wire(env=world.environment) as wire:
        shaken = await wire.initialize(version)
        assert shaken["protocolVersion"] == version
        ran = await wire.call("ssh_exec", {"target": "box", "command": "echo on"})
        assert "on" in text(ran).splitlines()
        if version >= "2025-06-18":
            assert ran["structuredContent"]["exit_code"] == 0


async def test_the_revision_without_a_handshake_reaches_a_host(world: World) -> None:
    """TR-10: 2026-07-28; each request brings its version, nothing comes before it."""
    async with Wire(env=world.environment) as wire:
        ran = await wire.call(
            "ssh_exec", {"target": "box", "command": "echo on"}, _meta=STATELESS
        )
        assert content(ran)["stdout"] == "on\n"
        unknown = STATELESS | {f"{PREFIX}protocolVersion": "2031-01-01"}
        refused = await wire.request("tools/list", {"_meta": unknown})
        assert refused["error"]["code"] == -32022
        assert "2026-07-28" in json.dumps(refused["error"]["data"])


async def test_tools_are_annotated_and_refuse_in_types(world: World) -> None:
    """TR-09: hints on each tool; what is unknown or wrong is a tool's typed error."""
    async with tools(world) as ssh:
        listed = (await ssh.wire.request("tools/list"))["result"]["tools"]
        hints = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert all(hints <= tool["annotations"].keys() for tool in listed)
        nearest = failure(await ssh.call("ssh_exce", command="true"))
        assert nearest["reason"] == "UNKNOWN_TOOL"
        assert "ssh_exec" in nearest["hint"]
        assert nearest["ran"] == "no"
        absent = failure(
            await ssh.call("ssh_exec", target="nowhere.invalid", command="x")
        )
        assert absent["ran"] == "no"


async def test_groups_of_tools_save_context(world: World) -> None:
    """TR-11: --toolsets lists some, which work; the rest is refused by name."""
    async with tools(world) as ssh:
        whole = await offered(ssh.wire)
    async with tools(world, "--toolsets", "exec") as ssh:
        some = await offered(ssh.wire)
        assert "ssh_exec" in some
        assert some.keys() < whole.keys()
        assert len(json.dumps(some)) < len(json.dumps(whole)) / 2
        assert (await ssh.run("echo on"))["stdout"] == "on\n"
        refused = failure(await ssh.call("ssh_hosts"))
        assert refused["reason"] == "UNKNOWN_TOOL"
        assert "--toolsets" in refused["hint"]
    async with tools(world, "--toolsets", "exec", "--read-only") as ssh:
        assert "ssh_exec" not in await offered(ssh.wire)


async def offered(wire: Wire) -> dict[str, Any]:
    """Return the tools by name, as they cost context."""
    listed = (await wire.request("tools/list"))["result"]["tools"]
    return {tool["name"]: tool for tool in listed}


async def test_a_long_command_tells_its_progress(world: World) -> None:
    """TR-12: with a token; the numbers grow, and the last line of output is told."""
    async with tools(world) as ssh:
        ran = await ssh.wire.call(
            "ssh_exec",
            {"target": "box", "command": "for i in 1 2 3; do echo $i; sleep 1; done"},
            _meta={"progressToken": "t"},
        )
        assert content(ran)["stdout"] == "1\n2\n3\n"
        told = [note["params"] for note in ssh.wire.notes]
        assert {one["progressToken"] for one in told} == {"t"}
        numbers = [one["progress"] for one in told]
        assert numbers == sorted(set(numbers)) != []
        assert {one["message"] for one in told} <= {"", "1", "2", "3"}


async def test_a_cancelled_call_gets_no_answer_and_its_command_runs_on(
    world: World,
) -> None:
    """TR-12: `notifications/cancelled` ends the waiting alone."""
    async with tools(world) as ssh:
        command = "echo up; sleep 30"
        params = {
            "name": "ssh_exec",
            "arguments": {"target": "box", "command": command},
            "_meta": {"progressToken": 1},
        }
        call = await ssh.wire.start("tools/call", params)
        begun = await ssh.wire.receive()
        assert begun["method"] == "notifications/progress"
        cancel = {"requestId": call, "reason": "enough"}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": cancel}
        await ssh.wire.send(note)
        listed = await ssh.told("ssh_job_list", running_only=True)
        (job,) = (row for row in listed["jobs"] if row["command"] == command)
        await ssh.stop(job["job_id"])
        ended = await ssh.ended(job["job_id"])
        assert ended["stdout"] == "up\n"
        # its answer would have come before that of what was asked later
        assert all("id" not in message for message in ssh.wire.notes)


async def test_a_shim_behind_ssh_is_a_client_like_any_other(
    world: World, sshd: Sshd
) -> None:
    """PK-03, TR-01: the tunnel is ssh itself, on which stdio goes as it is."""
    names = ("HOLDFAST_SOCKET", "HOLDFAST_STATE_DIR", "HOLDFAST_CONFIG")
    given = [f"{name}={world.environment[name]}" for name in names]
    shim = [sys.executable, "-m", "holdfast_shim.mcp_stdio", "--no-autostart"]
    there = f"exec {shlex.join(['env', *given, *shim])}"
    ssh = ["ssh", "-F", str(sshd.config), "-T", "box", there]
    async with Wire(env=world.environment, program=ssh) as wire:
        await wire.initialize(name="far")
        ran = await wire.call("ssh_exec", {"target": "box", "command": "echo on"})
        assert content(ran)["stdout"] == "on\n"
        status = await asyncio.to_thread(world.cli_json, "status")
        assert "far/1" in {row["name"] for row in status["clients"]}
        wire.close_stdin()
        assert await wire.ended(10) == 0
