"""The shim on the wire: a spawned process, raw lines, a daemon without SSH."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.daemon import FakeDaemon
from fakes.forked import Forking
from fakes.mcp_wire import STATELESS, Wire
from holdfast_shim.version import VERSION

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MIB = 1024 * 1024


@pytest.fixture
async def daemon(short_path: Path) -> AsyncIterator[FakeDaemon]:
    async with FakeDaemon(short_path / "hf.sock") as running:
        yield running


def wire(daemon: FakeDaemon, *args: str, **env: str) -> Wire:
    return Wire("--socket", str(daemon.socket), "--no-autostart", *args, env=env)


def error_of(result: dict[str, Any]) -> dict[str, Any]:
    """Return the typed error, which text and JSON must both tell."""
    assert result["isError"] is True
    error = result["structuredContent"]["error"]
    assert isinstance(error, dict)
    assert result["structuredContent"]["ok"] is False
    text = result["content"][0]["text"]
    assert error["reason"] in text
    assert error["message"] in text
    return error


async def test_malformed_lines_are_answered_and_the_next_one_works(
    daemon: FakeDaemon,
) -> None:
    """Issue 2, bad input: malformed JSON lines, before and after the first call."""
    async with wire(daemon) as shim:
        for _ in range(2):
            for line, code in (
                (b"{nonsense\n", -32700),
                (b"\xff\xff\n", -32700),
                (b"5\n", -32600),
                (b"[]\n", -32600),
            ):
                await shim.send(line)
                assert (await shim.receive())["error"]["code"] == code
            await shim.send(b"\n\r\n")
            result = await shim.call("ssh_exec", {"command": "echo on"})
            assert result["content"][0]["text"].endswith("\non")


@pytest.mark.parametrize("stage", [1, 2])
async def test_a_64_mb_line_is_refused_without_being_held(
    daemon: FakeDaemon, stage: int
) -> None:
    """Issue 2, bad input: a 64 MB line; memory stays bounded in both stages."""
    async with wire(daemon) as shim:
        # An answer first: a shim still starting would count its own start as growth.
        await shim.request("ping")
        if stage == 2:
            await shim.call("ssh_hosts")
        before = peak(shim)
        await shim.send(b'{"jsonrpc":"2.0","id":1,"method":"')
        for _ in range(64):
            await shim.send(b"x" * MIB)
        await shim.send(b'"}\n')
        reply = await shim.receive()
        assert (reply["id"], reply["error"]["code"]) == (None, -32600)
        assert peak(shim) - before < 24 * MIB
        result = await shim.call("ssh_exec", {"command": "echo on"})
        assert "isError" not in result


def peak(shim: Wire) -> int:
    """Return the most memory the shim ever had, in bytes."""
    status = Path(f"/proc/{shim.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


async def test_a_message_may_arrive_in_pieces_and_many_at_once(
    daemon: FakeDaemon,
) -> None:
    async with wire(daemon) as shim:
        ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n'
        for part in (ping[:7], ping[7:20], ping[20:] + ping):
            await shim.send(part)
        assert [(await shim.receive())["id"] for _ in range(2)] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"command": 5}, "command"),
        ({"command": "echo", "nonsense": 1}, "nonsense"),
        ({"command": "echo \ud800"}, "command"),
        ({"command": "echo", "env": []}, "env"),
        ({"command": "echo " + "x" * 5 * MIB}, "command"),
        ([], "arguments"),
        ("x", "arguments"),
    ],
)
async def test_bad_arguments_are_a_result_that_names_the_field(
    daemon: FakeDaemon, arguments: Any, field: str
) -> None:
    """Issue 2, bad input: wrong types, unknown argument, lone surrogate, 5 MB."""
    async with wire(daemon) as shim:
        error = error_of(await shim.call("ssh_exec", arguments))
        assert error["reason"] == "INVALID_ARGUMENT"
        assert field in (error["field"] or error["message"])
        assert error["ran"] == "no"
        assert daemon.runs == []


async def test_what_models_get_nearly_right_is_taken(daemon: FakeDaemon) -> None:
    """Contract section 4: integers as strings, and Gemini's injected argument."""
    async with wire(daemon) as shim:
        arguments = {
            "command": "echo on",
            "wait_seconds": "5",
            "wait_for_previous": True,
        }
        assert "isError" not in await shim.call("ssh_exec", arguments)
        assert daemon.runs[0].wait_seconds == 5


async def test_an_unknown_tool_is_a_tool_error_that_names_near_ones(
    daemon: FakeDaemon,
) -> None:
    """TR-09: unknown tool is a tool error."""
    async with wire(daemon) as shim:
        error = error_of(await shim.call("ssh_exce\ud800", {}))
        assert error["reason"] == "UNKNOWN_TOOL"
        assert "ssh_exec" in error["hint"]
        assert error["ran"] == "no"


async def test_a_planned_tool_says_so_and_no_guess_leads_to_harm(
    daemon: FakeDaemon,
) -> None:
    """TR-09."""
    async with wire(daemon) as shim:
        error = error_of(await shim.call("ssh_exec_many", {}))
        assert error["message"].endswith("is not available yet in this release")
        assert error["hint"] == "use ssh_exec"
        assert "did you mean" not in error_of(await shim.call("ssh_open", {}))["hint"]
        hint = error_of(await shim.call("ssh_job_rstop", {}))["hint"]
        assert hint.startswith("did you mean ssh_job_list or ssh_job_stop")


async def test_the_daemons_typed_errors_come_through(daemon: FakeDaemon) -> None:
    """TR-09: typed error results."""
    async with wire(daemon) as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "refuse"}))
        assert error == {
            "reason": "HOST_NOT_ALLOWED",
            "message": "db1 is not allowed",
            "hint": "ask for another host",
            "ran": "no",
            "allowed": "web*",
        }


async def test_an_answer_without_a_result_is_a_typed_error(daemon: FakeDaemon) -> None:
    """TR-09: typed error results."""
    async with wire(daemon) as shim:
        error = error_of(await shim.call("ssh_exec", {"command": "silent"}))
        assert (error["reason"], error["ran"]) == ("INTERNAL", "unknown")


async def test_progress_rises_strictly_and_only_for_who_asked(
    daemon: FakeDaemon,
) -> None:
    """TR-12: progress."""
    async with wire(daemon) as shim:
        meta = {"progressToken": "p1"}
        arguments = {"command": "progress 4"}
        await shim.call("ssh_exec", arguments, _meta=meta)
        values = [note["params"]["progress"] for note in shim.notes]
        assert len(values) == 4
        assert values == sorted(set(values))
        assert {note["params"]["progressToken"] for note in shim.notes} == {"p1"}
        assert shim.notes[0]["params"]["message"] == "line 0"
        await shim.call("ssh_exec", arguments)
        assert len(shim.notes) == 4


@pytest.mark.parametrize("meta", [{}, STATELESS])
async def test_a_cancelled_call_gets_no_reply_and_its_wait_ends(
    daemon: FakeDaemon, meta: dict[str, Any]
) -> None:
    """TR-12: cancellation stops the waiting."""
    async with wire(daemon) as shim:
        params = {"name": "ssh_exec", "arguments": {"command": "wait"}, "_meta": meta}
        ident = await shim.start("tools/call", params)
        await daemon.begun.wait()
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        await shim.send({**note, "params": {"requestId": ident}})
        await daemon.cancelled.wait()
        other = await shim.request("tools/list", {"_meta": meta})
        assert other["id"] != ident
        assert shim.notes == []


async def test_cancelling_ends_the_wait_whenever_it_comes(daemon: FakeDaemon) -> None:
    """TR-12: grpc lost about one in a thousand that came just as a request was sent."""
    async with wire(daemon) as shim:
        params = {"name": "ssh_exec", "arguments": {"command": "wait"}}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        for _ in range(200):
            daemon.begun, daemon.cancelled = asyncio.Event(), asyncio.Event()
            ident = await shim.start("tools/call", params)
            await daemon.begun.wait()
            await shim.send({**note, "params": {"requestId": ident}})
            await daemon.cancelled.wait()


async def test_a_call_cancelled_in_the_same_breath_gets_no_reply(
    daemon: FakeDaemon,
) -> None:
    """TR-12: the cancellation may arrive before the call was begun."""
    async with wire(daemon) as shim:
        await shim.call("ssh_hosts")
        call = {"jsonrpc": "2.0", "id": 90, "method": "tools/call"}
        params = {"name": "ssh_exec", "arguments": {"command": "wait"}}
        note = {"jsonrpc": "2.0", "method": "notifications/cancelled"}
        lines = [{**call, "params": params}, {**note, "params": {"requestId": 90}}]
        await shim.send(b"".join(json.dumps(x).encode() + b"\n" for x in lines))
        await shim.request("ping")
        assert shim.notes == []


async def test_calls_run_side_by_side(daemon: FakeDaemon) -> None:
    """TR-01: a long call does not hold up the next."""
    async with wire(daemon) as shim:
        params = {"name": "ssh_exec", "arguments": {"command": "wait"}}
        waiting = [await shim.start("tools/call", params) for _ in range(20)]
        assert "isError" not in await shim.call("ssh_exec", {"command": "echo on"})
        daemon.release.set()
        replies = [await shim.receive() for _ in waiting]
        assert sorted(reply["id"] for reply in replies) == waiting


async def test_a_batch_of_calls_is_answered_in_one_array(daemon: FakeDaemon) -> None:
    """TR-10: 2025-03-26 has batches."""
    async with wire(daemon) as shim:
        await shim.initialize("2025-03-26")
        call = {"jsonrpc": "2.0", "method": "tools/call"}
        params = {"name": "ssh_exec", "arguments": {"command": "echo on"}}
        await shim.send([{**call, "id": n, "params": params} for n in ("a", "b")])
        replies = await shim.receive()
        assert sorted(reply["id"] for reply in replies) == ["a", "b"]
        assert all("isError" not in reply["result"] for reply in replies)


async def test_the_daemon_is_told_who_calls_and_with_which_settings(
    daemon: FakeDaemon,
) -> None:
    """Contract section 3: the environment of one client, sent with each call."""
    env = {
        "SSH_DEFAULT_HOST": "web1",
        "SSH_ALLOWED_HOSTS": "web*,db1",
        "CLAUDE_CODE_SESSION_ID": "s1",
    }
    async with wire(daemon, **env) as shim:
        await shim.initialize(name="gemini-cli-mcp-client")
        await shim.call("ssh_hosts")
        caller = daemon.callers[-1]
        assert (caller.name, caller.version) == ("gemini-cli-mcp-client", "1")
        assert (caller.tool, caller.instance) == ("ssh_hosts", "s1")
        assert caller.default_host == "web1"
        assert list(caller.allowed_hosts) == ["web*", "db1"]
        assert caller.max_output_chars == 36_000
        assert caller.pid == shim.process.pid
        assert not caller.read_only
        await shim.call("ssh_hosts", _meta=STATELESS)
        assert daemon.callers[-1].name == "wire"
        assert daemon.callers[-1].max_output_chars == 30_000


async def test_a_wrong_setting_is_told_with_each_call(daemon: FakeDaemon) -> None:
    """Contract section 3: people see a failing tool, not a dead server's stderr."""
    async with wire(daemon, SSH_DEFAULT_PORT="ssh") as shim:
        assert (await shim.initialize())["serverInfo"]
        error = error_of(await shim.call("ssh_exec", {"command": "echo on"}))
        assert error["reason"] == "INVALID_ARGUMENT"
        assert "SSH_DEFAULT_PORT" in error["message"]
        assert daemon.runs == []


async def test_every_run_has_a_request_id_of_its_own_or_the_models(
    daemon: FakeDaemon,
) -> None:
    """NF-17: a repeated call can be told from a second command."""
    async with wire(daemon) as shim:
        for given in ({}, {}, {"request_id": "mine"}):
            await shim.call("ssh_exec", {"command": "echo on", **given})
        first, second, third = (run.request_id for run in daemon.runs)
        assert first
        assert second
        assert first != second
        assert third == "mine"


async def names(shim: Wire) -> list[str]:
    listed = await shim.request("tools/list")
    return [tool["name"] for tool in listed["result"]["tools"]]


async def test_toolsets_choose_what_is_listed_and_callable(daemon: FakeDaemon) -> None:
    """TR-11: tool groups save context."""
    async with wire(daemon, "--toolsets", "hosts") as shim:
        assert await names(shim) == ["ssh_hosts", "ssh_connect", "ssh_disconnect"]
        error = error_of(await shim.call("ssh_exec", {"command": "echo on"}))
        assert error["reason"] == "UNKNOWN_TOOL"
        assert "--toolsets" in error["hint"]
        assert "ssh_exec" not in (await shim.initialize())["instructions"]


async def test_read_only_lists_only_what_changes_nothing(daemon: FakeDaemon) -> None:
    """Contract section 4: and the daemon is told, for it refuses the rest."""
    async with wire(daemon, "--read-only") as shim:
        shown = await names(shim)
        assert shown[:3] == ["ssh_job_list", "ssh_job_read", "ssh_wait"]
        assert "ssh_session_read" in shown
        assert not {"ssh_exec", "ssh_session_run", "ssh_connect"} & set(shown)
        await shim.call("ssh_exec", {"command": "refuse"})
        assert daemon.callers[-1].read_only


async def test_output_schemas_are_offered_only_where_json_is_always_sent(
    daemon: FakeDaemon,
) -> None:
    """Contract section 4, result form."""
    for form, offered in (("auto", False), ("text", False), ("structured", True)):
        async with wire(daemon, "--results", form) as shim:
            listed = (await shim.request("tools/list"))["result"]["tools"]
            tools = {tool["name"]: tool for tool in listed}
            for name in ("ssh_exec", "ssh_hosts"):
                assert ("outputSchema" in tools[name]) == offered
            if offered:
                schema = tools["ssh_hosts"]["outputSchema"]
                # Clients check failures against it too, and those have other fields.
                assert "required" not in schema
                assert schema["properties"]["hosts"]
            always = [t["name"] for t in listed if t.get("_meta")]
            assert always == ["ssh_exec"]


async def test_an_idle_and_a_used_shim_stay_small(
    daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PK-08: the most memory ever taken, generously above the bench's bars."""
    monkeypatch.setattr(Forking, "allowed", False)
    async with wire(daemon) as shim:
        await names(shim)
        assert peak(shim) < 18 * MIB
        for _ in range(50):
            await shim.call("ssh_exec", {"command": "echo on"})
        assert peak(shim) < 50 * MIB


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast_shim.mcp_stdio", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["--nonsense"], "--toolsets"),
        (["serve"], "--socket"),
        (["--toolsets", "exec,nonsense"], "forwards"),
        (["--toolsets"], "--toolsets"),
        (["--toolsets", ","], "exec"),
        (["--results=pretty"], "structured"),
        (["--socket"], "--socket"),
    ],
)
def test_a_wrong_command_line_names_what_is_known(args: list[str], named: str) -> None:
    """Contract section 1: exit 2, and nothing on stdout."""
    ended = run(*args)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert named in ended.stderr


def test_version_and_help_need_no_client() -> None:
    """Contract section 1."""
    assert run("--version").stdout == f"holdfast-mcp {VERSION}\n"
    told = run("--help")
    assert told.returncode == 0
    for option in ("--socket", "--toolsets", "--read-only", "--results"):
        assert option in told.stdout
