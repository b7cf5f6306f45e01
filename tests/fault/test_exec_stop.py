"""What ends a command ends all of it, or says that it could not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import alive, connected, records, soon
from holdfast.v1 import exec_pb2, exec_pb2_grpc

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_stop"),
]


def pids(printed: str) -> list[int]:
    return [int(word) for word in printed.split()]


def kill(*numbers: int) -> None:
    for pid in numbers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize(
    ("ignored", "ended_by"), [("", "INT"), ("INT", "TERM"), ("INT TERM", "KILL")]
)
@pytest.mark.parametrize("how", ["timeout", "stop"])
async def test_int_term_and_kill_are_sent_in_turn(
    ssh: Tools, ignored: str, ended_by: str, how: str
) -> None:
    """EX-05, EX-16: a process that ignores INT and TERM is killed."""
    trap = f"trap '' {ignored}; " if ignored else ""
    command = f"{trap}echo $$; sleep 100; sleep 100; sleep 100"
    if how == "timeout":
        # a busy host may take its time until it ignores anything
        result = await ssh.run(command, timeout_seconds=3)
        assert (result["status"], result["timed_out"]) == ("timed_out", True)
    else:
        job = await ssh.start(command)
        await ssh.until(job, "\n")
        assert (await ssh.stop(job))["stopped"] is True
        result = await ssh.read(job, offset=0)
        assert (result["status"], result["timed_out"]) == ("cancelled", False)
    assert result["signal"] == ended_by
    assert "note" not in result
    (pid,) = pids(result["stdout"])
    assert not alive(pid)


async def test_children_of_the_group_go_with_it(ssh: Tools, tty: bool) -> None:
    """EX-05: background children too, which a shell lets ignore INT."""
    quiet = "sleep 300 >/dev/null 2>&1 </dev/null & echo $!; "
    loud = "sleep 300 & echo $!; "
    nested = "sh -c 'trap \"\" INT TERM HUP; sleep 300; sleep 300' & echo $!; "
    result = await ssh.run(
        f"{quiet}{loud}{nested}echo $$; wait; sleep 300",
        timeout_seconds=6,
        tty=tty,
    )
    assert result["status"] == "timed_out"
    assert "note" not in result
    found = pids(result["stdout"])
    assert len(found) == 4
    assert [pid for pid in found if alive(pid)] == []


async def test_a_stop_ends_children_that_outlive_their_shell(ssh: Tools) -> None:
    """EX-16: the shell dies of the first signal, the rest of its group of a later."""
    job = await ssh.start("sleep 300 >/dev/null 2>&1 & echo $!; wait")
    printed = (await ssh.until(job, "\n"))["stdout"]
    result = await ssh.stop(job)
    assert (result["stopped"], result["status"]) == (True, "cancelled")
    assert not any(map(alive, pids(printed)))


async def test_a_process_that_left_its_group_is_told(ssh: Tools) -> None:
    """EX-05: what left the group and holds the output can't be ended by it."""
    command = "setsid sh -c 'echo $$; exec sleep 300' & echo $$; wait"
    result = await ssh.run(command, timeout_seconds=6)
    found = pids(result["stdout"])
    try:
        assert (result["status"], result["ok"]) == ("timed_out", False)
        assert "exit_code" not in result
        assert "left the group" in result["note"]
        assert "still runs" in result["note"]
        assert sorted(map(alive, found)) == [False, True]
    finally:
        kill(*found)


async def test_a_stop_that_leaves_something_behind_says_so(ssh: Tools) -> None:
    """EX-05, EX-16: `stopped` is not claimed."""
    job = await ssh.start("setsid sh -c 'echo $$; exec sleep 300' & wait")
    (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
    try:
        result = await ssh.stop(job)
        assert (result["stopped"], result["status"]) == (False, "cancelled")
        assert "still runs" in result["note"]
        assert alive(pid)
    finally:
        kill(pid)


# alone: it has 0.4 s for it
@pytest.mark.timed
async def test_a_command_that_cleans_up_when_interrupted_gets_to_do_it(
    ssh: Tools,
) -> None:
    """EX-05, EX-06: what it prints on its way out is kept, and so is its code."""
    command = "trap 'echo cleaned; exit 7' INT; echo up; sleep 100 & wait"
    result = await ssh.run(command, timeout_seconds=6)
    assert result["stdout"] == "up\ncleaned\n"
    assert (result["status"], result["exit_code"]) == ("timed_out", 7)


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "KILL"])
async def test_one_signal_ends_a_running_job(ssh: Tools, name: str) -> None:
    """EX-21: sent to the whole group, and the job tells what ended it."""
    job = await ssh.start("echo $$; exec sleep 300")
    (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
    result = await ssh.stop(job, signal=name)
    assert (result["stopped"], result["signal"]) == (True, name)
    assert not alive(pid)


async def test_a_signal_that_is_handled_leaves_the_job_running(ssh: Tools) -> None:
    """EX-21: the job goes on, and its own code tells of its end later."""
    trap = "trap 'echo got it' INT; echo up; while :; do sleep 0.1; done"
    job = await ssh.start(f"trap 'exit 9' TERM; {trap}")
    await ssh.until(job, "up")
    result = await ssh.stop(job, signal="INT")
    assert (result["stopped"], result["status"]) == (False, "running")
    await ssh.until(job, "got it")
    result = await ssh.stop(job, signal="TERM")
    assert (result["stopped"], result["exit_code"]) == (True, 9)


async def test_stopping_twice_changes_nothing(ssh: Tools) -> None:
    """EX-16: a job that has ended keeps its outcome."""
    job = str((await ssh.run("exit 4"))["job_id"])
    for _ in range(2):
        result = await ssh.stop(job)
        assert (result["stopped"], result["status"]) == (False, "exited")
        assert (result["exit_code"], result["note"]) == (4, "it had ended before")


async def test_two_stops_at_once_agree(ssh: Tools) -> None:
    """EX-16: several clients may stop one job."""
    job = await ssh.start("trap '' INT; echo $$; sleep 300; sleep 300")
    (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
    call = ("ssh_job_stop", {"job_id": job})
    for result in await ssh.together(call, call, call):
        told = result["structuredContent"]
        assert (told["stopped"], told["status"]) == (True, "cancelled")
    assert not alive(pid)


async def test_a_frozen_host_is_told_and_nothing_hangs(sshd: Sshd) -> None:
    """EX-05: the timeout holds, and the answer says that it may still run."""
    limits = QUICK + "channel_open_seconds = 3\nconnect_timeout_seconds = 3\n"
    with served(sshd, limits=limits) as world:
        async with tools(world) as ssh:
            job = await ssh.start("echo $$; exec sleep 300", timeout_seconds=15)
            (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
            os.kill(sshd.pid, signal.SIGSTOP)
            frozen = sshd.freeze_connections()
            try:
                result = await ssh.ended(job)
                assert (result["status"], result["ok"]) == ("timed_out", False)
                assert "exit_code" not in result
                assert "may still run" in result["note"]
            finally:
                os.kill(sshd.pid, signal.SIGCONT)
                sshd.thaw(frozen)
                kill(pid)
            assert (await ssh.run("echo again"))["stdout"] == "again\n"


async def test_a_command_whose_link_is_frozen_is_still_stopped(sshd: Sshd) -> None:
    """EX-05: over a new connection, once the old one is known to be dead."""
    limits = QUICK + "keepalive_seconds = 3\nkeepalive_misses = 1\n"
    with served(sshd, limits=limits) as world:
        async with tools(world) as ssh:
            job = await ssh.start("echo $$; exec sleep 300")
            (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
            frozen = sshd.freeze_connections()
            os.kill(pid, signal.SIGCONT)
            try:
                result = await ssh.stop(job)
                assert result["status"] == "cancelled"
                assert "exit_code" not in result
                assert not alive(pid)
                # No word of its end came: it is not told as one that is known.
                again = await ssh.stop(job)
                assert again["stopped"] is False
                assert "must be looked up on the host" in again["note"]
                told = await asyncio.to_thread(
                    world.cli, "job", job, "--stop", check=False
                )
                assert told.returncode == 1
                assert (
                    told.stdout == f"what became of job {job} is not known\n".encode()
                )
                assert b"must be looked up on the host" in told.stderr
            finally:
                sshd.thaw(frozen)
                kill(pid)


async def test_who_stops_it_and_goes_away_has_it_stopped(sshd: Sshd) -> None:
    """EX-16: the rest of the stop was never done, and its end told as cancelled."""
    command = "trap 'echo met' INT; echo $$; while :; do sleep 20; done"
    with served(sshd, limits="stop_grace_seconds = 2\n") as world:
        async with tools(world) as ssh, connected(world) as client:
            job = await ssh.start(command)
            (pid,) = pids((await ssh.until(job, "\n"))["stdout"])
            stub = exec_pb2_grpc.ExecServiceStub(client.channel)
            request = exec_pb2.StopJobRequest(job_id=job)
            stopping = stub.StopJob(request, metadata=client.metadata("test"))
            await ssh.until(job, "met")
            stopping.cancel()
            told = await ssh.ended(job)
            assert (told["status"], told["signal"]) == ("cancelled", "TERM")
            assert not alive(pid)


async def test_a_signal_waits_for_a_shell_that_still_starts(tmp_path: Path) -> None:
    """EX-21: it was lost, as nobody knew yet to whom, and the command ran after all."""
    home = tmp_path / "home"
    home.mkdir()
    limits = "stop_grace_seconds = 20\nchannels_waiting = 0\n"
    with (
        Sshd(tmp_path, options={"SetEnv": f"HOME={home}"}) as sshd,
        served(sshd, limits=limits) as world,
    ):
        async with tools(world) as ssh:
            await ssh.run("true")
            begun, go = home / "begun", home / "go"
            starting = f"touch {begun}; until [ -e {go} ]; do sleep 0.05; done\n"
            (home / ".bashrc").write_text(starting)
            job = await ssh.start("sleep 300")
            await soon(begun.exists, "its shell starts")
            stopping = asyncio.create_task(ssh.stop(job, signal="KILL"))
            await soon(
                lambda: [r for r in records(world) if "signal" in r["metadata"]],
                "the stop has come",
            )
            go.touch()
            told = await stopping
            assert (told["stopped"], told["signal"]) == (True, "KILL"), told
