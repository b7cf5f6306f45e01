"""Commands that go on while nobody waits, and everybody who reads them."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any

import pytest

from fakes.asyncssh_server import mute, raw_server
from fakes.tools import Tools, content, text, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("jobs_background"),
]


class Gate:
    """Holds a command on the host until the test lets it on."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "gate"

    @property
    def wait(self) -> str:
        """A command that waits here."""
        return f"while ! test -e {self._file}; do sleep 0.02; done"

    def open(self) -> None:
        """Let it on."""
        self._file.touch()


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path)


async def test_a_call_returns_at_its_soft_limit_and_the_command_goes_on(
    ssh: Tools, gate: Gate
) -> None:
    """NF-02, EX-16: a handle comes back, with what was printed so far."""
    began = time.monotonic()
    result = await ssh.call(
        "ssh_exec", command=f"echo early; {gate.wait}; echo late", wait_seconds=8
    )
    assert 8 <= time.monotonic() - began < 40
    told = result["structuredContent"]
    assert (told["status"], told["ok"]) == ("running", False)
    assert told["stdout"] == "early\n"
    assert "exit_code" not in told
    job = told["job_id"]
    # The text tells which call reads on, and that call does.
    found = re.search(r"ssh_job_read job_id=(\w+) offset=(\d+)", text(result))
    assert found is not None
    assert found[1] == job
    gate.open()
    rest = await ssh.read(job, offset=int(found[2]), wait_seconds=20)
    assert (rest["stdout"], rest["exit_code"]) == ("late\n", 0)


async def test_no_wait_at_all_starts_only(ssh: Tools, gate: Gate) -> None:
    """NF-02: wait_seconds 0 returns at once with the job's id."""
    result = await ssh.run(gate.wait, wait_seconds=0)
    assert (result["status"], result["stdout"]) == ("running", "")
    gate.open()
    assert (await ssh.ended(result["job_id"]))["exit_code"] == 0


@pytest.mark.parametrize("seconds", [51, -1, 1e300])
async def test_no_call_waits_longer_than_clients_do(ssh: Tools, seconds: float) -> None:
    """NF-02: 50 s is the most; the error says so."""
    error = await ssh.refused("ssh_exec", command="true", wait_seconds=seconds)
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", "wait_seconds")
    assert "50" in error["message"]
    assert error["ran"] == "no"


async def test_a_job_can_be_listed_read_and_stopped_from_any_client(
    shared: World, ssh: Tools, sshd: Sshd
) -> None:
    """EX-16, NF-02: start, status, output, list and cancel, by another client."""
    job = await ssh.start("echo up; sleep 300")
    async with tools(shared, client="codex", target="") as other:
        await other.wire.call("ssh_job_read", {"job_id": job, "wait_seconds": 5})
        listed = await other.told("ssh_job_list", running_only=True)
        (row,) = [row for row in listed["jobs"] if row["job_id"] == job]
        assert (row["status"], row["target"]) == ("running", "box")
        assert row["command"] == "echo up; sleep 300"
        assert row["client"] == "wire/1"
        assert row["started"].endswith("Z")
        assert (await other.stop(job))["status"] == "cancelled"
    assert (await ssh.read(job, offset=0))["stdout"] == "up\n"
    listed = await ssh.told("ssh_job_list", target="box")
    assert job in [row["job_id"] for row in listed["jobs"]]
    elsewhere = await ssh.told("ssh_job_list", target="another-host")
    assert elsewhere["jobs"] == []


async def test_jobs_are_listed_newest_first(ssh: Tools) -> None:
    """EX-16: with their codes."""
    made = [(await ssh.run(f"exit {n}"))["job_id"] for n in (1, 2)]
    rows = (await ssh.told("ssh_job_list"))["jobs"][:2]
    assert [row["job_id"] for row in rows] == made[::-1]
    assert [row["exit_code"] for row in rows] == [2, 1]


async def test_progress_tells_the_last_line_while_a_command_runs(
    ssh: Tools, gate: Gate
) -> None:
    """EX-15: rising, about once a second, for calls that ask for it."""
    ident = await ssh.wire.start(
        "tools/call",
        {
            "name": "ssh_exec",
            "arguments": {
                "target": "box",
                "command": f"echo step 1; echo step 2; {gate.wait}; echo done",
                "wait_seconds": 45,
            },
            "_meta": {"progressToken": "p1"},
        },
    )
    notes: list[dict[str, Any]] = []
    while len(notes) < 2:
        message = await ssh.wire.receive()
        assert message["method"] == "notifications/progress"
        if message["params"].get("message") in (None, "", "step 1"):
            continue  # it has not printed so far
        notes.append(message["params"])
    gate.open()
    answer = await ssh.wire.reply(ident)
    assert answer["result"]["structuredContent"]["exit_code"] == 0
    assert {note["progressToken"] for note in notes} == {"p1"}
    assert [note["message"] for note in notes] == ["step 2"] * 2
    assert notes[0]["progress"] < notes[1]["progress"]


async def test_a_reader_that_waits_gets_new_output_before_the_end(
    ssh: Tools, gate: Gate
) -> None:
    """EX-15: a wait ends when output came and then paused."""
    job = await ssh.start(f"echo one; {gate.wait}; echo two; sleep 300")
    await ssh.until(job, "one")
    waiting = asyncio.create_task(ssh.read(job, offset=4, wait_seconds=40))
    gate.open()
    result = await waiting
    assert (result["stdout"], result["status"]) == ("two\n", "running")
    await ssh.stop(job, signal="KILL")


@pytest.mark.parametrize("first", ["echo 20000", "seq 20000"])
@pytest.mark.parametrize(
    "look", [{"tail_lines": 1}, {"grep": "20000|more"}, {"stream": "stdout"}]
)
async def test_a_look_that_waits_does_so_each_time(
    ssh: Tools, gate: Gate, first: str, look: dict[str, Any]
) -> None:
    """EX-15: for what is new since the last look; only the first one waited."""
    job = await ssh.start(f"{first}; {gate.wait}; echo more; sleep 300")
    async with asyncio.timeout(40):
        while "20000" not in (await ssh.read(job, tail_lines=1))["stdout"]:
            await moment()
    await ssh.read(job, **look)
    begun = time.monotonic()
    await ssh.read(job, wait_seconds=3, **look)
    assert time.monotonic() - begun > 2.5
    waiting = asyncio.create_task(ssh.read(job, wait_seconds=40, **look))
    gate.open()
    result = await waiting
    if "stream" not in look:
        assert result["stdout"].endswith("more\n")
    assert result["status"] == "running"
    await ssh.stop(job, signal="KILL")


async def test_each_client_has_a_position_of_its_own(shared: World, ssh: Tools) -> None:
    """NF-03: two agents read one job without eating each other's output."""
    job = str((await ssh.run("seq 1 5", max_output_chars=0))["job_id"])
    async with tools(shared, target="") as first, tools(shared, target="") as second:
        assert (await first.read(job, max_output_chars=4))["stdout"] == "1\n2\n"
        assert (await second.read(job))["stdout"] == "1\n2\n3\n4\n5\n"
        assert (await first.read(job))["stdout"] == "3\n4\n5\n"
        for reader in (first, second):
            again = await reader.read(job)
            assert (again["stdout"], again["next_offset"]) == ("", 10)


@pytest.mark.parametrize(
    "look", [{"tail_lines": 1}, {"grep": "3"}, {"offset": 2}, {"stream": "stderr"}]
)
async def test_a_look_does_not_move_the_position(
    shared: World, ssh: Tools, look: dict[str, Any]
) -> None:
    """NF-03: tail, grep and an offset of one's own only look."""
    job = str((await ssh.run("seq 1 5"))["job_id"])
    async with tools(shared, target="") as reader:
        await reader.read(job, **look)
        assert (await reader.read(job))["stdout"] == "1\n2\n3\n4\n5\n"


async def test_a_position_outlives_the_shim(shared: World, ssh: Tools) -> None:
    """NF-03: an editor that restarts its shim within one session reads on."""
    job = str((await ssh.run("seq 1 5"))["job_id"])
    env = {"CLAUDE_CODE_SESSION_ID": "one-session"}
    async with tools(shared, env=env, target="") as before:
        assert (await before.read(job, max_output_chars=4))["stdout"] == "1\n2\n"
    async with tools(shared, env=env, target="") as after:
        assert (await after.read(job))["stdout"] == "3\n4\n5\n"
    async with tools(shared, env={**env, "CLAUDE_CODE_SESSION_ID": "other"}) as other:
        assert (await other.read(job))["stdout"] == "1\n2\n3\n4\n5\n"


async def test_what_a_call_showed_is_not_shown_again(ssh: Tools, gate: Gate) -> None:
    """NF-03: reading on after ssh_exec starts where its answer ended."""
    result = await ssh.run(f"echo a; {gate.wait}; echo b", wait_seconds=8)
    assert result["stdout"] == "a\n"
    gate.open()
    rest = await ssh.read(result["job_id"], wait_seconds=20)
    assert (rest["stdout"], rest["status"]) == ("b\n", "exited")


async def test_the_same_request_twice_runs_once(ssh: Tools, tmp_path: Path) -> None:
    """NF-17: at the same time, and again later."""
    log = tmp_path / "runs"
    asked = {"command": f"echo run >> {log}; sleep 0.3; exit 6", "request_id": "same"}
    call = ("ssh_exec", asked)
    results = await ssh.together(call, call, call)
    results.append(await ssh.call("ssh_exec", **asked))
    told = [result["structuredContent"] for result in results]
    assert {one["job_id"] for one in told} == {told[0]["job_id"]}
    assert {one["exit_code"] for one in told} == {6}
    assert log.read_text() == "run\n"


@pytest.mark.parametrize(
    "change",
    [{"command": "echo other"}, {"cwd": "/"}, {"env": {"A": "1"}}, {"durable": True}],
)
async def test_a_request_id_of_another_command_is_refused(
    ssh: Tools, change: dict[str, Any]
) -> None:
    """NF-17: the earlier job is named, and nothing ran."""
    ident = f"id-{next(iter(change))}"
    first = await ssh.run("true", request_id=ident)
    arguments = {"command": "true", "request_id": ident, **change}
    error = await ssh.refused("ssh_exec", **arguments)
    assert (error["reason"], error["ran"]) == ("REQUEST_ID_REUSED", "no")
    assert error["job_id"] == first["job_id"]


async def test_a_request_that_never_ran_may_be_made_again(
    shared: World, sshd: Sshd
) -> None:
    """NF-17: after a failed connection the id is free."""
    async with tools(shared, target="") as ssh:
        connect = {
            "identity_file": str(sshd.key),
            "known_hosts_file": str(sshd.known_hosts),
            "options": {"Compression": "no"},
        }
        asked = {
            "target": f"{sshd.user}@127.0.0.1:{sshd.port}",
            "command": "echo once",
            "connect": connect,
            "request_id": "again",
        }
        sshd.stop()
        try:
            error = await ssh.refused("ssh_exec", **asked)
            assert (error["reason"], error["ran"]) == ("HOST_UNREACHABLE", "no")
        finally:
            sshd.start()
        assert (await ssh.told("ssh_exec", **asked))["stdout"] == "once\n"


async def test_a_job_that_is_still_connecting_can_be_stopped(ssh: Tools) -> None:
    """EX-16: it never ran, and the caller is told so at once."""
    async with raw_server(mute) as port:
        asked = {"target": f"me@127.0.0.1:{port}", "command": "true"}
        call = {"name": "ssh_exec", "arguments": {**asked, "wait_seconds": 0}}
        ident = await ssh.wire.start("tools/call", call)
        job = ""
        while not job:
            rows = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
            job = next(
                (row["job_id"] for row in rows if str(port) in row["target"]), ""
            )
            await moment()
        assert (await ssh.stop(job))["status"] == "cancelled"
        notes = [note for note in ssh.wire.notes if note.get("id") == ident]
        answer = notes[0] if notes else await ssh.wire.reply(ident)
        told = answer["result"]["structuredContent"]
        assert told["status"] == "cancelled"
        assert "exit_code" not in told


async def test_jobs_with_long_commands_can_be_listed(shared: World, ssh: Tools) -> None:
    """NF-12, EX-16: 40 long scripts made a list that no message could carry."""
    script = f"true {'x' * 120_000}"
    jobs = [(await ssh.run(script))["job_id"] for _ in range(40)]
    listed = await ssh.told("ssh_job_list")
    rows = {row["job_id"]: row["command"] for row in listed["jobs"]}
    for job in jobs:
        assert rows[job].startswith("true xxx")
        assert rows[job].endswith("x…")
        assert len(rows[job]) == 500
    assert (await ssh.read(jobs[0]))["command"] == script
    rows = {row["job_id"]: row["command"] for row in shared.cli_json("jobs")["jobs"]}
    assert rows[jobs[0]].endswith("x…")


async def test_a_list_has_room_in_what_its_client_takes(
    shared: World, gate: Gate
) -> None:
    """NF-12, EX-16: what runs is never left out for what ended, and that is told."""
    env = {"SSH_MAX_OUTPUT_CHARS": "5000"}
    async with tools(shared, env=env) as small:
        running = await small.start(f"{gate.wait}; exit 4")
        quick = [await small.run(f"true {n} {'x' * 200}") for n in range(30)]
        answer = await small.call("ssh_job_list")
        assert len(text(answer)) <= 5000
        listed = content(answer)
        ids = [row["job_id"] for row in listed["jobs"]]
        assert listed["truncated"]
        assert ids[0] == quick[-1]["job_id"]
        assert ids[-1] == running
        assert len(ids) > 8
        rows = shared.cli_json("jobs")["jobs"]
        assert len(rows) > 30
        gate.open()
        assert (await small.ended(running))["exit_code"] == 4
