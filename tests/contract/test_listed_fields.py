"""What a tool answers is what its output schema lists, by real calls of every tool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.syncing import ROOTS
from fakes.tools import Tools, content, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("listed_fields"),
    pytest.mark.needs_sshd,
]

KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}


@pytest.fixture(scope="module")
def shared(sshd: Sshd) -> Iterator[World]:
    more = ROOTS + '[hosts.box]\ntags = ["a", "b"]\ndescription = "for tests"\n'
    with served(sshd, more=more) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(shared: World) -> AsyncIterator[Tools]:
    async with tools(shared, "--results", "structured", "--toolsets", "all") as one:
        yield one


def unlisted(value: Any, schema: dict[str, Any], path: str) -> list[str]:
    """Return where `value` has what `schema` does not tell of, or of another type."""
    kind = schema.get("type")
    if kind == "object":
        if not isinstance(value, dict):
            return [f"{path} is no object"]
        listed = schema.get("properties", {})
        other = schema.get("additionalProperties")
        found: list[str] = []
        for name, item in value.items():
            inner = listed.get(name, other)
            where = f"{path}.{name}"
            if not isinstance(inner, dict):
                found.append(f"{where} is not listed")
            else:
                found += unlisted(item, inner, where)
        return found
    if kind == "array":
        return [
            fault
            for item in value
            for fault in unlisted(item, schema["items"], f"{path}[]")
        ]
    wrong = not isinstance(value, KINDS[str(kind)])
    wrong = wrong or (isinstance(value, bool) and kind != "boolean")
    wrong = wrong or ("enum" in schema and value not in schema["enum"])
    return [f"{path} is {value!r}, not {kind}"] if wrong else []


def _on_files() -> list[tuple[str, dict[str, Any]]]:
    """Return calls on files of the remote home, which they make."""
    there = {"target": "box", "path": "~/listed/a"}
    search = {"target": "box", "pattern": "two", "path": "~/listed"}
    return [
        ("ssh_file_write", {**there, "content": "one\ntwo\n", "make_parents": True}),
        ("ssh_file_write", {**there, "content": "x\n", "mode": "append"}),
        ("ssh_file_edit", {**there, "edits": [{"old": "one", "new": "1"}]}),
        ("ssh_file_read", there),
        ("ssh_file_read", {**there, "max_bytes": 3}),
        ("ssh_dir_list", {"target": "box", "path": "~/listed", "detailed": True}),
        ("ssh_dir_list", {"target": "box", "path": "~"}),
        ("ssh_search", search),
        ("ssh_search", {**search, "output": "content", "limit": 1}),
        ("ssh_search", {**search, "output": "count"}),
        ("ssh_find", {"target": "box", "path": "~/listed", "glob": "**/a"}),
    ]


def _transfers(place: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return calls that bring files from the remote home to this machine."""
    sync = {
        "target": "box",
        "direction": "download",
        "source": "~/listed",
        "destination": str(place / "synced"),
    }
    copy = {
        "target": "box",
        "direction": "download",
        "sources": ["~/listed"],
        "destination": str(place / "copied"),
        "recursive": True,
    }
    return [
        ("ssh_sync", {**sync, "dry_run": True}),
        ("ssh_sync", sync),
        ("ssh_copy", copy),
    ]


async def answers(ssh: Tools, place: Path) -> list[tuple[str, dict[str, Any]]]:
    """Call each tool in the ways that answer with different fields."""
    job = await ssh.start("echo up; exec sleep 300")
    await ssh.until(job, "up")
    cut = {"command": "seq 1 9999; seq 1 9999 >&2", "max_output_chars": 500}
    calls: list[tuple[str, dict[str, Any]]] = [
        ("ssh_exec", {"command": "echo out; echo err >&2; exit 3"}),
        ("ssh_exec", {"command": "kill -KILL $$"}),
        ("ssh_exec", {"command": "sleep 60", "timeout_seconds": 2}),
        ("ssh_exec", {"command": "echo a; sleep 0.8", "wait_seconds": 0.3}),
        ("ssh_exec", cut),
        ("ssh_exec", {"command": "head -c 100 /dev/zero"}),
        ("ssh_exec", {"command": "true", "tty": False, "env": {"A": "b"}}),
        ("ssh_job_list", {}),
        ("ssh_job_list", {"running_only": True}),
        ("ssh_job_read", {"job_id": job, "offset": 0}),
        ("ssh_job_read", {"job_id": job, "grep": "nothing of it"}),
        ("ssh_job_read", {"job_id": job, "tail_lines": 1}),
        ("ssh_hosts", {}),
        ("ssh_connect", {"target": "box"}),
        ("ssh_session_open", {"target": "box", "session_name": "one"}),
        ("ssh_session_open", {"target": "box", "session_name": "one"}),
        ("ssh_session_run", {"session": "one", "command": "echo out; exit_not"}),
        ("ssh_session_write", {"session": "one", "input": "echo in\n"}),
        ("ssh_session_read", {"session": "one", "view": "screen"}),
        ("ssh_session_read", {"session": "one", "view": "raw", "offset": 0}),
        ("ssh_session_read", {"session": "one", "offset": 0, "until": "in"}),
        ("ssh_session_list", {}),
        ("ssh_session_close", {"session": "one"}),
        ("ssh_session_close", {"session": "one"}),
        ("ssh_session_list", {"include_exited": True}),
        *_on_files(),
        *_transfers(place),
        ("ssh_wait", {"any_of": [{"job_id": job}], "wait_seconds": 0}),
        ("ssh_job_stop", {"job_id": job}),
        ("ssh_job_stop", {"job_id": job}),
        ("ssh_wait", {"any_of": [{"session": "one", "exited": True}, {"job_id": job}]}),
        ("ssh_job_read", {"job_id": job, "offset": 0}),
        ("ssh_forward_open", {"target": "box", "direction": "dynamic", "name": "f"}),
        ("ssh_forward_list", {}),
        ("ssh_forward_close", {"forward": "f"}),
        ("ssh_forward_list", {"include_stopped": True}),
        ("ssh_disconnect", {"target": "box", "force": True}),
        ("ssh_disconnect", {"target": "box"}),
    ]
    return [
        (tool, content(await ssh.call(tool, **arguments))) for tool, arguments in calls
    ]


async def test_every_field_that_is_sent_is_listed(ssh: Tools, tmp_path: Path) -> None:
    """EX-02, TR-09: next_offset of ssh_exec was sent and not listed.

    Each tool that is offered is called, so a new one must be added here.
    """
    listed = (await ssh.wire.request("tools/list"))["result"]["tools"]
    schemas = {tool["name"]: tool["outputSchema"] for tool in listed}
    told = await answers(ssh, tmp_path)
    assert {tool for tool, _ in told} == set(schemas)
    faults = [
        fault
        for tool, answer in told
        for fault in unlisted(answer, schemas[tool], tool)
    ]
    assert faults == []
    # The fields that come and go were there, so this test could see them.
    sent = {(tool, name) for tool, answer in told for name in answer}
    for name in ("next_offset", "exit_code", "signal", "note"):
        assert ("ssh_exec", name) in sent
    assert all(row[1]["hosts"] for row in told if row[0] == "ssh_hosts")


async def test_a_command_that_is_told_whole_has_nothing_to_read_on(ssh: Tools) -> None:
    """EX-14: next_offset stands only where there is more."""
    assert "next_offset" not in await ssh.run("echo all")
    more = await ssh.run("seq 1 9999", max_output_chars=100)
    rest = await ssh.read(more["job_id"], offset=more["next_offset"])
    assert rest["stdout"]
