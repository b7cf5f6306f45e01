"""What the audit log holds after real calls through the shim and the command line."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import Wire
from fakes.watch import connected, records, run, soon, until
from fakes.world import World
from holdfast_daemon.audit.record import RECOVERED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fakes.sshd import Sshd


def by_call(told: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    calls: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in told:
        calls[record["call_id"]].append(record)
    return calls


def settled(world: World, calls: int) -> list[dict[str, Any]]:
    """Return the records, once so many calls are told and each has its end."""

    def whole() -> list[dict[str, Any]]:
        told = records(world)
        found = by_call(told).values()
        done = [c for c in found if c[-1]["phase"] in ("end", "denied")]
        return told if len(done) == len(found) >= calls else []

    return until(whole, f"{calls} calls are told to the end")


def error_of(result: Mapping[str, Any]) -> dict[str, Any]:
    assert result.get("isError") is True, result
    error = result["structuredContent"]["error"]
    assert isinstance(error, dict)
    return error


async def test_every_call_that_changes_something_leaves_one_start_and_one_end(
    world: World,
) -> None:
    """A5.24, SC-09: through the shim and the command line; looking leaves nothing."""
    box = {"target": "box"}
    async with Wire(env=world.environment) as shim:
        await shim.initialize(name="teller")
        await shim.call("ssh_exec", {**box, "command": "echo on"})
        await shim.call("ssh_exec", {**box, "command": "exit 3"})
        await shim.call("ssh_exec", {**box, "command": "true", "cwd": "/nowhere"})
        await shim.call("ssh_exec", {"target": "no.such.host.invalid", "command": "id"})
        started = await shim.call(
            "ssh_exec", {**box, "command": "sleep 60", "wait_seconds": 0}
        )
        (job,) = [
            row
            for row in (await shim.call("ssh_job_list", {}))["structuredContent"][
                "jobs"
            ]
            if row["status"] == "running"
        ]
        assert job["job_id"] in started["content"][0]["text"]
        await shim.call("ssh_job_read", {"job_id": job["job_id"]})
        await shim.call("ssh_hosts", {})
        await shim.call("ssh_job_stop", {"job_id": job["job_id"]})
        await shim.call("ssh_connect", box)
        await shim.call("ssh_disconnect", box)
    cli = world.cli
    await asyncio.to_thread(cli, "exec", "box", "--", "echo", "cli")
    await asyncio.to_thread(cli, "exec", "box", "--", "exit 4", check=False)
    for looking in ("jobs", "status", "audit", "reload"):
        await asyncio.to_thread(cli, looking)
    told = await asyncio.to_thread(settled, world, 11)
    shapes = [[r["phase"] for r in call] for call in by_call(told).values()]
    assert shapes == [["start", "end"]] * 11
    ends = [r for r in told if r["phase"] == "end"]
    outcomes = {r.get("command", r["event_type"]): r for r in ends}
    assert outcomes["echo on"]["exit_code"] == 0
    assert outcomes["echo on"]["client"] == "teller/1"
    assert outcomes["echo on"]["tool"] == "ssh_exec"
    assert outcomes["echo on"]["principal"] == f"uid:{os.getuid()}"
    assert outcomes["exit 3"]["exit_code"] == 3
    assert outcomes["true"]["result"] == "error"
    assert outcomes["id"]["result"] == "error"
    assert outcomes["sleep 60"]["result"] == "cancelled"
    assert outcomes["echo cli"]["client"].startswith("cli/")
    assert outcomes["exit 4"]["exit_code"] == 4
    assert [r["seq"] for r in told] == list(range(told[0]["seq"], 22 + told[0]["seq"]))


async def test_what_goes_into_a_session_is_recorded_with_its_name(
    world: World,
) -> None:
    """OB-01: neither a command's start nor what was typed named the session."""
    async with Wire(env=world.environment) as shim:
        opened = await shim.call(
            "ssh_session_open", {"target": "box", "session_name": "build"}
        )
        ident = opened["structuredContent"]["session_id"]
        build = {"session": "build"}
        await shim.call("ssh_session_run", {**build, "command": "echo on"})
        secret = "typed-and-not-told"
        await shim.call("ssh_session_write", {**build, "input": secret})
        await shim.call("ssh_session_close", {**build, "force": True})
        opened = await shim.call(
            "ssh_forward_open", {"target": "box", "direction": "dynamic", "name": "f"}
        )
        await shim.call("ssh_forward_close", {"forward": "f"})
    told = await asyncio.to_thread(settled, world, 6)
    starts, ends = (
        [one["metadata"] for one in told if one["phase"] == phase]
        for phase in ("start", "end")
    )
    assert [one.get("session_name") for one in starts] == ["build", *[None] * 5]
    assert [one.get("session") for one in starts] == [None, *["build"] * 3, None, None]
    assert [one.get("session_id") for one in ends] == [*[ident] * 4, None, None]
    assert ends[2]["bytes_typed"] == len(secret)
    assert starts[5]["forward"] == "f"
    assert secret not in str(told)
    said = (await asyncio.to_thread(world.cli, "audit")).stdout.decode()
    assert "SessionService/WriteSession build" in said
    assert "ForwardService/CloseForward f" in said


async def test_a_wait_that_is_given_up_is_recorded_as_that(world: World) -> None:
    """OB-01: it was told as a failure without a cause."""
    async with Wire(env=world.environment) as shim:
        entry = {"target": "box", "port": 1}
        params = {"name": "ssh_wait", "arguments": {"any_of": [entry]}}
        ident = await shim.start("tools/call", params)
        await soon(lambda: records(world), "it began")
        await shim.send(
            {
                "jsonrpc": "2.0",
                "method": "notifications/cancelled",
                "params": {"requestId": ident},
            }
        )
        told = await asyncio.to_thread(settled, world, 1)
    assert [one["phase"] for one in told] == ["start", "end"]
    assert (told[1]["result"], told[1].get("error")) == (
        "cancelled",
        "the caller went away",
    )


CONFIG = """
allowed_hosts = ["box", "off", "web-*"]
[hosts.off]
host = "127.0.0.1"
enabled = false
"""


@pytest.fixture
def guarded(short_path: Path, sshd: Sshd) -> Iterator[World]:
    world = World(short_path, ssh_config=sshd.config)
    world.configure(CONFIG)
    with world:
        yield world


async def _denied(
    world: World,
    tool: str,
    arguments: dict[str, Any],
    *options: str,
    **environment: str,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Have one call refused; return the error and its record."""
    before = len(records(world))
    async with Wire(*options, env={**world.environment, **environment}) as shim:
        error = error_of(await shim.call(tool, arguments))
    assert error["ran"] == "no"
    told = await asyncio.to_thread(
        until, lambda: records(world)[before:], "the refusal is recorded"
    )
    assert len(told) == 1
    assert (told[0]["event_type"], told[0]["phase"]) == ("command_denied", "denied")
    return error, told[0]


async def test_refusals_are_recorded_and_name_what_is_allowed(guarded: World) -> None:
    """SC-01, SC-09, OB-01: allow-lists of file and client, disabled, read-only."""
    on_box = {"target": "box", "command": "touch /nowhere"}
    error, record = await _denied(
        guarded, "ssh_exec", {**on_box, "target": "root@127.0.0.1"}
    )
    assert error["reason"] == "HOST_NOT_ALLOWED"
    assert "box" in error["message"] + error["hint"]
    assert "web-*" in error["message"] + error["hint"]
    assert record["command"] == on_box["command"]
    error, _ = await _denied(guarded, "ssh_exec", on_box, SSH_ALLOWED_HOSTS="db1,db2")
    assert error["reason"] == "HOST_NOT_ALLOWED"
    assert "db1" in error["message"] + error["hint"]
    error, _ = await _denied(
        guarded,
        "ssh_exec",
        {**on_box, "target": "root@127.0.0.1"},
        SSH_ALLOWED_HOSTS="root@127.0.0.1",
    )
    assert error["reason"] == "HOST_NOT_ALLOWED"
    error, _ = await _denied(guarded, "ssh_exec", {**on_box, "target": "off"})
    assert error["reason"] == "HOST_DISABLED"
    error, _ = await _denied(guarded, "ssh_exec", on_box, "--read-only")
    assert error["reason"] == "READ_ONLY"
    error, _ = await _denied(guarded, "ssh_job_stop", {"job_id": "j1"}, "--read-only")
    assert error["reason"] == "READ_ONLY"
    async with Wire(env=guarded.environment) as shim:
        result = await shim.call("ssh_exec", {**on_box, "command": "echo on"})
        assert "isError" not in result
    done = await asyncio.to_thread(
        guarded.cli, "exec", "root@127.0.0.1", "--", "true", check=False
    )
    assert done.returncode != 0
    told = await asyncio.to_thread(settled, guarded, 8)
    assert [r["phase"] for r in told].count("denied") == 7


async def test_a_kill_in_mid_work_leaves_the_log_intact_and_a_flip_is_found(
    world: World,
) -> None:
    """A5.7, A5.24, OB-05: kill -9 under load, then one byte turned over."""
    async with connected(world) as client:
        flood = [
            asyncio.create_task(run(client, f"echo {number}")) for number in range(60)
        ]
        await soon(lambda: len(records(world)) > 20, "it works")
        await asyncio.to_thread(world.kill)
        await asyncio.gather(*flood, return_exceptions=True)
    await asyncio.to_thread(world.start)
    verdict = await asyncio.to_thread(world.cli_json, "audit", "--verify")
    assert verdict["intact"], verdict
    assert verdict["records"] > 20
    assert "intact" in world.cli("audit", "--verify").stdout.decode()
    world.cli("exec", "box", "--", "true")
    log = world.state / "audit" / "audit.jsonl"
    data = bytearray(log.read_bytes())
    place = data.index(b"echo ") + 5
    data[place] ^= 1
    with log.open("r+b") as file:
        file.seek(place)
        file.write(data[place : place + 1])
    found = world.cli("audit", "--verify", "--json", check=False)
    assert found.returncode == 1
    assert b'"intact": false' in found.stdout
    data[place] ^= 1
    with log.open("r+b") as file:
        file.seek(place)
        file.write(data[place : place + 1])
    assert world.cli_json("audit", "--verify")["intact"]


async def test_without_an_audit_log_nothing_runs_and_all_can_be_read(
    world: World, tmp_path: Path
) -> None:
    """A5.18: fail closed and loudly; recovery without a restart."""
    audit, away = world.state / "audit", world.state / "away"
    async with Wire(env=world.environment) as shim:
        first = await shim.call("ssh_exec", {"target": "box", "command": "echo kept"})
        assert "isError" not in first
        running = await shim.call(
            "ssh_exec",
            {"target": "box", "command": "echo up; sleep 60", "wait_seconds": 0},
        )
        assert "isError" not in running
        audit.rename(away)
        audit.touch()
        touched = tmp_path / "touched"

        async def refused() -> dict[str, Any]:
            arguments = {"target": "box", "command": f"touch {touched}"}
            return error_of(await shim.call("ssh_exec", arguments))

        error = await refused()
        assert (error["reason"], error["ran"]) == ("AUDIT_UNAVAILABLE", "no")
        assert str(audit) in error["message"] + error["hint"]
        listed = await shim.call("ssh_job_list", {})
        rows = listed["structuredContent"]["jobs"]
        assert {row["command"]: row["status"] for row in rows} == {
            "echo kept": "exited",
            "echo up; sleep 60": "running",
        }
        job_id = next(r["job_id"] for r in rows if r["command"] == "echo kept")
        read = await shim.call("ssh_job_read", {"job_id": job_id, "offset": 0})
        assert read["content"][0]["text"].endswith("kept")
        status = await asyncio.to_thread(world.cli_json, "status")
        assert str(audit) in status["audit_error"]
        assert b"audit" in (await asyncio.to_thread(world.cli, "status")).stdout
        audit.unlink()
        away.rename(audit)
        await soon(
            lambda: not world.cli_json("status")["audit_error"], "it is written again"
        )
        again = await shim.call("ssh_exec", {"target": "box", "command": "echo again"})
        assert "isError" not in again
        assert not touched.exists()
    os.kill(world.pid, signal.SIGTERM)
    await soon(lambda: not world.socket.exists(), "it stopped")
    told = records(world)
    gap = next(r for r in told if r["event_type"] == RECOVERED)
    assert gap["metadata"]["cause"]
