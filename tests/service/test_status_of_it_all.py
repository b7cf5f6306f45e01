"""`holdfast status`: the daemon's health, what it holds, and who calls."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes.asyncssh_server import mute, raw_server
from fakes.tools import served, tools
from fakes.watch import connected, soon
from fakes.world import program
from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [pytest.mark.xdist_group("status_of_it_all"), pytest.mark.needs_sshd]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


def status(world: World) -> dict[str, Any]:
    found = world.cli_json("status")
    assert isinstance(found, dict)
    return found


def test_the_daemon_is_told_as_it_is(world: World) -> None:
    """OB-03, IN-07: who answers, since when, where, with which configuration."""
    told = status(world)
    version = subprocess.run(
        [program("holdfastd"), "--version"], check=True, capture_output=True, text=True
    ).stdout.split()[-1]
    assert told["version"] == version
    assert told["pid"] == world.pid
    # The transport: so far, this socket.
    assert told["socket"] == str(world.socket)
    assert told["config_file"] == str(world.config)
    assert told["state_dir"] == str(world.state)
    assert (told["config_error"], told["audit_error"]) == ("", "")
    assert told["memory_bytes"] > 1_000_000
    assert told["tasks"] > 0
    words = world.cli("status").stdout.decode()
    for text in (version, str(world.pid), str(world.socket), str(world.config)):
        assert text in words


async def test_connections_are_told_by_server(world: World, sshd: Sshd) -> None:
    """OB-03: which server, in which state, with how many commands; and when gone."""

    def rows() -> list[dict[str, Any]]:
        found = status(world)["connections"]
        assert isinstance(found, list)
        return found

    assert await asyncio.to_thread(rows) == []
    async with tools(world) as ssh:
        await ssh.told("ssh_connect")
        (idle,) = await asyncio.to_thread(rows)
        assert (idle["target"], idle["state"]) == (sshd.target, "ready")
        jobs = [await ssh.start(f"exec sleep 30{n}") for n in range(3)]
        found = await asyncio.to_thread(status, world)
        assert sum(row["channels"] for row in found["connections"]) >= 3
        assert found["jobs_running"] == 3
        for job in jobs:
            await ssh.stop(job, signal="KILL")
        words = (await asyncio.to_thread(world.cli, "status")).stdout.decode()
        assert sshd.target in words
        await ssh.told("ssh_disconnect", target="box", force=True)
        assert await asyncio.to_thread(rows) == []
    assert (await asyncio.to_thread(status, world))["jobs_running"] == 0
    assert (await asyncio.to_thread(status, world))["jobs_kept"] >= 3


async def test_a_connection_that_is_being_made_is_told_as_that(world: World) -> None:
    """OB-03: a person sees what a call waits for."""
    async with raw_server(mute) as port, tools(world, target="") as ssh:
        call = {
            "name": "ssh_connect",
            "arguments": {
                "target": f"me@127.0.0.1:{port}",
                "connect": {"host_key_checking": "no", "connect_timeout_seconds": 20},
            },
        }
        await ssh.wire.start("tools/call", call)

        def connecting() -> bool:
            rows = status(world)["connections"]
            return any(
                str(port) in row["target"] and row["state"] == "connecting"
                for row in rows
            )

        await soon(connecting, "it is shown")


async def test_clients_are_told_by_their_own_names(world: World) -> None:
    """OB-03, NF-18: every MCP client was shown as `unknown`."""
    async with (
        tools(world, client="cursor") as one,
        tools(world, client="codex") as two,
    ):
        for ssh in (one, two, two):
            await ssh.call("ssh_hosts")
        pids = {one.wire.process.pid, two.wire.process.pid}
        told = await asyncio.to_thread(status, world)
        rows = {row["name"]: row for row in told["clients"] if row["pid"] in pids}
        assert set(rows) == {"cursor/1", "codex/1"}
        assert rows["codex/1"]["calls"] > rows["cursor/1"]["calls"]
        words = (await asyncio.to_thread(world.cli, "status")).stdout.decode()
    assert "cursor/1" in words
    assert "unknown" not in words


async def test_the_command_line_and_grpc_tell_the_same(world: World) -> None:
    """NF-18: one answer, whoever asks for it."""
    async with connected(world) as client:
        stub = admin_pb2_grpc.AdminServiceStub(client.channel)
        answer = await stub.Status(
            admin_pb2.StatusRequest(limits=True), metadata=client.metadata()
        )
    printed = await asyncio.to_thread(world.cli_json, "status", "--limits")
    changing = {"uptime_seconds", "memory_bytes", "clients", "connections", "tasks"}
    answered = to_json(answer)
    for name in answered.keys() - changing:
        assert printed[name] == answered[name], name
    assert len(printed["limits"]) > 20
    assert all(row["reason"] and row["name"] for row in printed["limits"])
