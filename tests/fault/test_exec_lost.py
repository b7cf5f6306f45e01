"""An outcome that is not known is told as such, and never as exit 0."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from fakes.asyncssh_server import Odd
from fakes.gate import Gate
from fakes.tools import Tools, served, text, tools
from fakes.watch import alive, moment

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.sshd import Sshd

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_lost"),
]


def unknown(result: dict[str, Any]) -> None:
    """Check that nothing in a result can be taken for success."""
    assert (result["status"], result["ok"]) == ("lost", False)
    assert "exit_code" not in result
    assert "signal" not in result


def odd_call(odd: Odd, command: str) -> dict[str, Any]:
    return {
        "target": f"me@127.0.0.1:{odd.port}",
        "command": command,
        "connect": {"host_key_checking": "no"},
    }


async def test_a_link_cut_in_mid_command_loses_the_outcome(
    ssh: Tools, sshd: Sshd
) -> None:
    """EX-01, bad input: lost, with the output so far and what to do; never exit 0."""
    job = await ssh.start("echo early; exec sleep 300")
    await ssh.until(job, "early")
    sshd.drop_connections()
    result = await ssh.ended(job)
    unknown(result)
    assert result["stdout"] == "early\n"
    assert "connection" in result["note"]
    assert "it was started" in result["note"]
    # The next command gets a new connection by itself.
    assert (await ssh.run("echo again"))["stdout"] == "again\n"


async def test_a_call_that_waits_is_told_of_the_cut_at_once(
    ssh: Tools, sshd: Sshd
) -> None:
    """EX-01: in the text too, which is all that some clients show."""
    command = "echo $PPID; exec sleep 300"
    ident = await ssh.wire.start(
        "tools/call",
        {"name": "ssh_exec", "arguments": {"target": "box", "command": command}},
    )
    job = ""
    while not job:
        rows = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
        job = next((row["job_id"] for row in rows if row["command"] == command), "")
        await moment()
    await ssh.until(job, "\n")
    sshd.drop_connections()
    answer = await ssh.wire.reply(ident)
    unknown(answer["result"]["structuredContent"])
    shown = text(answer["result"])
    assert shown.startswith("lost")
    assert "exit 0" not in shown


@pytest.mark.parametrize("command", ["nothing", "cut"])
async def test_a_server_without_an_exit_status_is_no_success(
    ssh: Tools, command: str
) -> None:
    """EX-01, bad input: no exit status, and a cut right behind some output."""
    async with Odd() as odd:
        result = await ssh.told("ssh_exec", **odd_call(odd, command))
        unknown(result)
        assert "exit status" in result["note"] or "connection" in result["note"]
        assert "looked up" in result["note"]
        if command == "cut":
            assert result["stdout"] == "before the cut"


@pytest.mark.parametrize("command", ["exit 0", "exit 44", "signal TERM"])
async def test_a_server_without_a_posix_shell_runs_plain_commands(
    ssh: Tools, command: str
) -> None:
    """EX-01, EX-03: outcome truth table where no words can go before a command."""
    async with Odd() as odd:
        result = await ssh.told("ssh_exec", **odd_call(odd, command))
        word, value = command.split()
        if word == "exit":
            assert (result["status"], result["exit_code"]) == ("exited", int(value))
            assert result["ok"] is (value == "0")
        else:
            assert (result["status"], result["signal"]) == ("signalled", value)
            assert "exit_code" not in result


@pytest.mark.parametrize("given", [{"cwd": "/"}, {"env": {"A": "1"}}, {"shell": "sh"}])
async def test_what_needs_a_posix_shell_is_refused_elsewhere(
    ssh: Tools, given: dict[str, Any]
) -> None:
    """EX-07, EX-08, EX-09: nothing is left out in silence."""
    async with Odd() as odd:
        asked = {**odd_call(odd, "exit 0"), **given}
        error = await ssh.refused("ssh_exec", **asked)
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")


async def test_a_timeout_without_a_process_group_still_ends_the_call(
    ssh: Tools,
) -> None:
    """EX-05: a server that takes no signal; it is said that the command may run on."""
    async with Odd() as odd:
        asked = {**odd_call(odd, "hang"), "timeout_seconds": 4}
        result = await ssh.told("ssh_exec", **asked)
        assert (result["status"], result["ok"]) == ("timed_out", False)
        assert "may still run" in result["note"]
        assert "exit_code" not in result


async def test_a_disconnect_in_mid_command_is_refused_or_told(
    ssh: Tools,
) -> None:
    """EX-01: by force the command is lost, and said to be."""
    job = await ssh.start("echo $$; exec sleep 300")
    pid = int((await ssh.until(job, "\n"))["stdout"])
    error = await ssh.refused("ssh_disconnect", target="box")
    assert job in str(error)
    await ssh.told("ssh_disconnect", target="box", force=True)
    unknown(await ssh.ended(job))
    # ssh leaves a command without a terminal running, and the note says to look.
    os.kill(pid, signal.SIGKILL)


async def test_jobs_outlive_a_daemon_restart_as_far_as_they_can(
    sshd: Sshd,
) -> None:
    """EX-16: an ended job is read as before; a running one says what became of it."""
    with served(sshd) as world:
        async with tools(world) as ssh:
            ended = await ssh.run("echo kept; echo too >&2; exit 5")
            running = await ssh.start("echo $$; exec sleep 300")
            pid = int((await ssh.until(running, "\n"))["stdout"])
            world.stop()
            world.start()
            again = await ssh.read(ended["job_id"], offset=0)
            for field in ("status", "exit_code", "stdout", "stderr", "command"):
                assert again[field] == ended[field]
            # A daemon that stops hangs up on its commands; a lost one can't.
            lost = await ssh.read(running, offset=0)
            assert lost["status"] in {"signalled", "lost"}
            assert "exit_code" not in lost
            assert "daemon" in lost["note"]
            assert lost["stdout"] == f"{pid}\n"
            rows = {
                row["job_id"]: row["status"]
                for row in (await ssh.told("ssh_job_list"))["jobs"]
            }
            assert rows == {ended["job_id"]: "exited", running: lost["status"]}
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_a_killed_daemon_forgets_no_outcome_and_invents_none(
    sshd: Sshd,
) -> None:
    """EX-16: SIGKILL to the daemon; running jobs are lost, never exit 0."""
    with served(sshd, limits="job_write_seconds = 0\n") as world:
        async with tools(world) as ssh:
            running = await ssh.start("echo $$; exec sleep 300")
            pid = int((await ssh.until(running, "\n"))["stdout"])
            ended = await ssh.run("exit 5")
            # Its record was begun after the other's, so that one is written, too.
            record = world.state / "jobs" / ended["job_id"] / "job.json"
            while not record.exists() or b'"exited"' not in record.read_bytes():
                await ssh.told("ssh_job_list")
            world.kill()
            world.start()
            lost = await ssh.read(running, offset=0)
            unknown(lost)
            assert "daemon" in lost["note"]
            assert (await ssh.read(ended["job_id"]))["exit_code"] == 5
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_a_command_that_a_crash_ended_is_known_however_long_it_ran(
    sshd: Sshd,
) -> None:
    """EX-16, NF-17: it went at once, as if long ended, and the call ran again."""
    with served(sshd, limits="job_write_seconds = 0\n") as world:
        async with tools(world) as ssh:
            asked = {"command": "echo $$; exec sleep 300", "request_id": "build"}
            told = await ssh.told("ssh_exec", target="box", wait_seconds=0, **asked)
            job = str(told["job_id"])
            pid = int((await ssh.until(job, "\n"))["stdout"])
            world.kill()
            record = world.state / "jobs" / job / "job.json"
            row = json.loads(record.read_text())
            assert row["status"] == "running"
            row["started"] = (datetime.now(UTC) - timedelta(hours=30)).isoformat()
            record.write_text(json.dumps(row))
            world.start()
            again = await ssh.told("ssh_exec", target="box", wait_seconds=0, **asked)
            unknown(again)
            assert again["job_id"] == job
            assert again["duration_ms"] > 29 * 3_600_000
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


async def test_what_ended_last_is_kept_longest(sshd: Sshd, tmp_path: Path) -> None:
    """EX-16: a long build's result went before those of the quick ones beside it."""
    gate = Gate(tmp_path / "gate")
    with served(sshd, limits="jobs_kept = 10\nreap_seconds = 0.1\n") as world:
        async with tools(world) as ssh:
            long = await ssh.start(f"{gate.wait}; echo built")
            quick = [(await ssh.run("true"))["job_id"] for _ in range(11)]
            gate.open()
            assert (await ssh.ended(long))["exit_code"] == 0
            async with asyncio.timeout(40):
                while len((await ssh.told("ssh_job_list"))["jobs"]) > 10:
                    await moment()
            listed = {j["job_id"] for j in (await ssh.told("ssh_job_list"))["jobs"]}
            assert listed == {long, *quick[2:]}
            assert (await ssh.read(long, offset=0))["stdout"] == "built\n"


async def test_a_background_child_does_not_hold_the_job(ssh: Tools) -> None:
    """EX-01: the shell's exit ends the job, and who held its output goes on."""
    result = await ssh.run("sleep 60 & echo $!; exit 3", wait_seconds=20)
    pid = int(result["stdout"])
    try:
        assert (result["status"], result["exit_code"]) == ("exited", 3)
        assert "background" in result["note"]
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


async def test_output_that_comes_after_the_shells_exit_is_kept(ssh: Tools) -> None:
    """EX-06: a pipeline's last words, while they still come."""
    late = "for i in $(seq 40); do sleep 0.07; echo late $i; done"
    result = await ssh.run(f"( {late} ) & echo first")
    assert result["stdout"] == "first\n" + "".join(f"late {n}\n" for n in range(1, 41))
    assert (result["exit_code"], "note" in result) == (0, False)


async def test_a_child_with_its_output_elsewhere_needs_no_note(ssh: Tools) -> None:
    """EX-01: started as it should be, it holds nothing."""
    result = await ssh.run("nohup sleep 60 >/dev/null 2>&1 </dev/null & echo $!")
    pid = int(result["stdout"])
    try:
        assert (result["exit_code"], "note" in result) == (0, False)
        assert result["duration_ms"] < 10_000
        assert alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)
