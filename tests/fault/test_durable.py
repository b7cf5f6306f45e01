"""Commands kept on a host: they outlive their link, the daemon, and its upgrade."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes.kept import kept_on
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import Result, Tools, served, tools
from fakes.watch import alive, moment, soon
from fakes.world import program
from holdfast_daemon.errors import StateError
from holdfast_daemon.kept.runs import Program, Runs, new_nonce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    # what it keeps is below its directory, and goes with it
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def kept(host: Sshd) -> list[str]:
    """Return what the host keeps."""
    room = host.directory / "home" / ".cache" / "holdfast" / "kept"
    return sorted(path.parent.name for path in room.glob("*/kind"))


async def forgotten(host: Sshd) -> None:
    """Wait until the host keeps nothing."""
    await soon(lambda: not kept(host), "the host keeps nothing")


async def ended(ssh: Tools, job_id: str) -> Result:
    """Wait for a job's end, whatever daemon knows it, and read all of it."""
    async with asyncio.timeout(60):
        while True:
            told = await ssh.call("ssh_job_read", job_id=job_id, wait_seconds=5)
            if "isError" in told:
                reason = told["structuredContent"]["error"]["reason"]
                assert reason in {"DAEMON_LOST", "DAEMON_UNAVAILABLE", "DRAINING"}
                continue
            if told["structuredContent"]["status"] != "running":
                return await ssh.read(job_id, offset=0)


async def test_its_result_is_that_of_any_command(host: Sshd) -> None:
    """NF-10: output of both streams, exit code, input, directory, environment."""
    with served(host) as world:
        async with tools(world) as ssh:
            result = await ssh.run(
                'cat; echo "$A $PWD $(umask)"; echo e >&2; exit 5',
                durable=True,
                cwd="/usr",
                env={"A": "it's $HOME", "hf_here": "/nowhere"},
                stdin="in\nput",
            )
            plain = await ssh.run("umask")
            assert (result["status"], result["exit_code"]) == ("exited", 5)
            mask = plain["stdout"].strip()
            assert result["stdout"] == f"in\nputit's $HOME /usr {mask}\n"
            assert result["stderr"] == "e\n"
            shell = await ssh.run(
                "shopt -q login_shell && echo $0 $1",
                durable=True,
                shell="bash -l",
            )
            assert shell["stdout"] == "bash\n", shell
            killed = await ssh.run("kill -9 $$", durable=True)
            assert not killed["ok"]
            assert killed["exit_code"] == 137 or killed["signal"] == "KILL"
            big = await ssh.run("head -c 3000000 /dev/zero", durable=True)
            assert big["stdout_bytes"] == 3_000_000
            # the host keeps nothing of what ended
            await forgotten(host)


async def test_a_path_that_leads_nowhere_is_its_own(host: Sshd) -> None:
    """NF-10: with such a PATH it never ran, for want of a program of ours."""
    with served(host) as world:
        async with tools(world) as ssh:
            for more in ({}, {"shell": "bash"}):
                told = await ssh.run(
                    "echo $PATH", durable=True, env={"PATH": "/nowhere"}, **more
                )
                assert (told["exit_code"], told["stdout"]) == (0, "/nowhere\n"), told


@pytest.mark.parametrize(
    ("arguments", "reason", "field"),
    [
        ({"cwd": "/no/where"}, "CWD_FAILED", "/no/where"),
        ({"shell": "no-such-shell"}, "SHELL_FAILED", "no-such-shell"),
        ({"tty": True}, "INVALID_ARGUMENT", "tty"),
        ({"sudo": True}, "INVALID_ARGUMENT", "sudo"),
        ({"env": {"not a name": "x"}}, "INVALID_ARGUMENT", "env"),
        ({"command": "  "}, "INVALID_ARGUMENT", "command"),
    ],
)
async def test_what_cannot_be_is_refused(
    host: Sshd, arguments: dict[str, Any], reason: str, field: str
) -> None:
    """NF-10: nothing ran, nothing is left, and the message names what was wrong."""
    with served(host) as world:
        async with tools(world) as ssh:
            given = {
                "command": f"touch {host.directory}/ran",
                "durable": True,
                **arguments,
            }
            told = await ssh.call("ssh_exec", **given)
            error = told["structuredContent"]["error"]
            assert (error["reason"], error["ran"]) == (reason, "no"), told
            assert field in error["message"]
            assert not (host.directory / "ran").exists()
            assert kept(host) == []


async def test_it_outlives_kill_of_the_daemon(host: Sshd) -> None:
    """NF-10, NF-20: after `kill -9` output goes on at its byte; the code is told."""
    gate = host.directory / "gate"
    count = "i=0; while [ $i -lt 2000 ]; do i=$((i+1)); echo line $i; done"
    with served(host) as world:
        async with tools(world) as ssh:
            job = await ssh.start(
                f"echo $$; {count}; echo half >&2; until [ -e {gate} ]; do sleep 0.1;"
                f" done; {count}; exit 7",
                durable=True,
            )
            pid = await printed_pid(ssh, job)
            for _ in range(3):
                world.kill()
                assert alive(pid)
                world.start()
                told = await ssh.read(job, tail_lines=1)
                assert told["status"] == "running", told
            world.kill()
            gate.touch()
            await soon(lambda: not alive(pid), "pid has ended")
            world.start()
            told = await ended(ssh, job)
            assert (told["status"], told["exit_code"]) == ("exited", 7)
            lines = [f"line {i}" for i in range(1, 2001)]
            followed = world.cli("job", job, check=False)
            assert followed.stdout.decode().split("\n") == [
                str(pid), *lines, *lines, "",
            ]  # fmt: skip
            assert followed.stderr.startswith(b"half\n")
            await forgotten(host)


async def test_a_stop_of_the_daemon_leaves_it(host: Sshd) -> None:
    """NF-10, NF-20: SIGTERM hangs up on plain commands, and on no durable one."""
    with served(host) as world:
        async with tools(world) as ssh:
            durable = await ssh.start("echo $$; sleep 1000; echo over", durable=True)
            plain = await ssh.start("echo $$; sleep 1000")
            pids = [await printed_pid(ssh, job) for job in (durable, plain)]
            code, said = await asyncio.to_thread(stopped_under, world, durable)
            assert code == 255
            assert b"goes on on its host" in said
            await soon(lambda: not alive(pids[1]), "the plain one has ended")
            assert alive(pids[0])
            world.start()
            row = await ssh.told("ssh_job_list", running_only=True)
            assert [one["job_id"] for one in row["jobs"]] == [durable]
            async with asyncio.timeout(40):
                while not (stopped := await ssh.told("ssh_job_stop", job_id=durable))[
                    "stopped"
                ]:
                    assert "call again" in stopped["note"], stopped
            assert stopped["status"] == "cancelled"
            await soon(lambda: not alive(pids[0]), "pids[0] has ended")
            assert "over" not in (await ssh.read(durable, offset=0))["stdout"]


async def test_it_outlives_its_link(host: Sshd, tmp_path: Path) -> None:
    """NF-09, NF-10: every line once through cuts; a cut beginning is settled."""
    with Proxy(host.port, seed=10) as proxy:
        config = proxy.config(host, tmp_path / "config")
        with served(config) as world:
            async with tools(world) as ssh:
                gate = tmp_path / "gate"
                job = await ssh.start(
                    "for i in $(seq 40); do echo $i; sleep 0.05; done;"
                    f" until [ -e {gate} ]; do sleep 0.1; done; exit 3",
                    durable=True,
                )
                for _ in range(5):
                    await ssh.read(job, wait_seconds=1)
                    proxy.rst()
                gate.touch()
                told = await ended(ssh, job)
                assert (told["status"], told["exit_code"]) == ("exited", 3), told
                lines = [str(i) for i in range(1, 41)]
                assert told["stdout"].split() == lines
                assert "could not be reached" in told["note"]


async def test_its_host_ends_it_when_its_time_is_over(host: Sshd) -> None:
    """EX-05, NF-10: the hard limit holds while no daemon is there."""
    with served(host) as world:
        async with tools(world) as ssh:
            job = await ssh.start(
                "trap '' INT; echo $$; sleep 1000", durable=True, timeout_seconds=2
            )
            pid = await printed_pid(ssh, job)
            world.kill()
            await soon(lambda: not alive(pid), "pid has ended")
            world.start()
            told = await ended(ssh, job)
            assert (told["status"], told["timed_out"]) == ("timed_out", True)
            assert not told["ok"]


async def test_it_is_stopped_and_signalled(host: Sshd) -> None:
    """NF-10: all of it, what it left in the background too."""
    with served(host) as world:
        async with tools(world) as ssh:
            job = await ssh.start(
                "trap 'echo hup' HUP; sh -c 'trap \"\" INT; echo $$; exec sleep 1000' &"
                " while :; do sleep 0.1; done",
                durable=True,
            )
            left = await printed_pid(ssh, job)
            told = await ssh.told("ssh_job_stop", job_id=job, signal="HUP")
            assert (told["stopped"], told["status"]) == (False, "running")
            await soon_printed(ssh, job, "hup")
            told = await ssh.told("ssh_job_stop", job_id=job)
            assert (told["stopped"], told["status"]) == (True, "cancelled")
            await soon(lambda: not alive(left), "nothing of it is left")
            await forgotten(host)


def stopped_under(world: World, job: str) -> tuple[int, bytes]:
    """Stop the daemon under somebody who follows `job`; return what that one saw."""
    with subprocess.Popen(
        [program("holdfast"), "--no-autostart", "job", job, "--follow"],
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as looking:
        assert looking.stdout is not None
        looking.stdout.readline()
        assert world.stop() == 0
        _, said = looking.communicate(timeout=20)
    return looking.returncode, said


async def printed_pid(ssh: Tools, job: str) -> int:
    """Return the process id that a job prints first."""
    await soon_printed(ssh, job, "\n")
    return int((await ssh.read(job, offset=0))["stdout"].split()[0])


async def soon_printed(ssh: Tools, job: str, word: str) -> None:
    """Wait until a job has printed a word."""
    async with asyncio.timeout(40):
        while word not in (await ssh.read(job, offset=0, wait_seconds=1))["stdout"]:
            pass


async def test_a_person_looks_at_it_and_wipes_it(host: Sshd) -> None:
    """NF-10, NF-18: `holdfast sessions --on` shows it; wiped, it was killed."""
    with served(host) as world:
        async with tools(world) as ssh:
            job = await ssh.start("echo begun; sleep 1000", durable=True)
            await soon_printed(ssh, job, "begun")
            found = json.loads(world.cli("sessions", "--on", "box", "--json").stdout)
            assert [(one["id"], one["kind"]) for one in found["kept"]] == [(job, "job")]
            assert "sleep 1000" in found["kept"][0]["command"]
            assert kept(host) == [job]
            refused = world.cli("sessions", "--on", "box", "--wipe", job, check=False)
            assert (refused.returncode, b"--force" in refused.stderr) == (1, True)
            world.cli("sessions", "--on", "box", "--wipe", job, "--force")
            result = await ended(ssh, job)
            assert (result["ok"], result["exit_code"]) == (False, 137), result
            await forgotten(host)


async def test_the_same_request_runs_once(host: Sshd) -> None:
    """NF-10, NF-17: the same request_id gives the same job, also after a crash."""
    with served(host) as world:
        async with tools(world) as ssh:
            given = {"durable": True, "request_id": "r1", "wait_seconds": 0}
            command = f"echo ran >>{host.directory}/runs; sleep 0.5"
            first = await ssh.run(command, **given)
            world.kill()
            world.start()
            again = await ssh.run(command, **given)
            assert again["job_id"] == first["job_id"]
            await ended(ssh, first["job_id"])
            assert (await ssh.run(f"cat {host.directory}/runs"))["stdout"] == "ran\n"


@pytest.mark.parametrize(
    ("place", "runs", "status", "code"),
    [
        ("exec.durable.recorded", 0, "lost", None),
        ("exec.durable.begun", 1, "exited", 4),
        ("exec.durable.ended", 1, "exited", 4),
        ("exec.durable.forgotten", 1, "exited", 4),
    ],
)
async def test_a_crash_at_each_step_runs_it_once_at_most(
    host: Sshd, place: str, runs: int, status: str, code: int | None
) -> None:
    """NF-10, NF-20: its end is told as it was, or that it never ran."""
    count = host.directory / "runs"
    with served(host) as world:
        world.stop()
        world.start(HOLDFAST_FAILPOINT=place, HOLDFAST_TESTING="1")
        async with tools(world) as ssh:
            given = {"request_id": "once", "durable": True, "target": "box"}
            command = f"echo ran >>{count}; echo out; exit 4"
            first = world.pid
            await ssh.call("ssh_exec", command=command, **given)
            # the next one is asked, and nobody who is about to die
            await soon(lambda: not alive(first), "it died there")
            async with asyncio.timeout(40):
                while not (jobs := (await ssh.told("ssh_job_list"))["jobs"]):
                    await moment()
            told = await ended(ssh, jobs[0]["job_id"])
            assert (told["status"], told.get("exit_code")) == (status, code), told
            assert told["stdout"] == "out\n" * runs
            assert (count.read_text() if runs else "") == "ran\n" * runs
            assert count.exists() == bool(runs)
            if not runs:
                assert "never ran" in told["note"]
            await forgotten(host)


async def test_a_host_that_was_away_at_the_start_forgets_it_later(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-10, NF-20: once somebody is connected to it; nobody logs in for that."""
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config")) as world,
    ):
        world.stop()
        world.start(HOLDFAST_FAILPOINT="exec.durable.forgotten", HOLDFAST_TESTING="1")
        first = world.pid
        async with tools(world, "--no-autostart") as ssh:
            await ssh.call("ssh_exec", command="true", durable=True, target="box")
            await soon(lambda: not alive(first), "it died there")
        assert kept(host)
        proxy.refuse()
        await asyncio.to_thread(world.start)
        await soon(lambda: "left on its host" in world.log.read_text(), "it was tried")
        proxy.heal()
        async with tools(world, "--no-autostart") as ssh:
            assert (await ssh.run("echo here"))["stdout"] == "here\n"
            await forgotten(host)


async def test_one_past_its_time_is_known_until_its_host_has_forgotten_it(
    tmp_path: Path,
) -> None:
    """NF-10: its host is slow, there are too many others, and the daemon is killed."""
    programs, held, gate = tmp_path / "bin", tmp_path / "held", tmp_path / "gate"
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    programs.mkdir()
    os.mkfifo(gate)
    wait = f"case $1 in -rf) : >{held}; read -r _ <{gate} ;; esac"
    slow = f'#!/bin/sh\n{wait}\nexec {shutil.which("rm")} "$@"\n'
    path = f"PATH={programs}:{os.environ['PATH']}"
    limits = "jobs_kept = 10\nreap_seconds = 0.1\n"
    with (
        Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home} {path}"}) as host,
        served(host, limits=limits) as world,
    ):
        async with tools(world, "--no-autostart") as ssh:
            (programs / "rm").write_text(slow)
            (programs / "rm").chmod(0o755)
            one = await ssh.run("true", durable=True)
            await soon(held.exists, "its host is told to forget it")
            others = [(await ssh.run("true"))["job_id"] for _ in range(12)]
            # the first of them goes, for which it was in the way
            async with asyncio.timeout(40):
                while "isError" not in await ssh.call("ssh_job_read", job_id=others[0]):
                    await moment()
            assert (await ssh.read(one["job_id"], offset=0))["exit_code"] == 0
            await asyncio.to_thread(world.kill)
        (programs / "rm").unlink()
        await asyncio.to_thread(world.start)
        await forgotten(host)


async def test_what_was_settled_never_begins(host: Sshd) -> None:
    """NF-10: who asks whether it began, and is told no, can rely on it."""
    async with kept_on(host.directory / "other") as one:
        asking = one.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        assert not await runs.ever("jone")
        with pytest.raises(StateError, match="before"):
            await runs.begin("jone", new_nonce(), Program("touch ran"))
        await runs.begin("jtwo", new_nonce(), Program("true"))
        assert await runs.ever("jtwo")
        with pytest.raises(StateError, match="before"):
            await runs.begin("jtwo", new_nonce(), Program("true"))
        # where the name only was taken, nothing is listed
        await one.keeper.wipe("jone")


def test_a_person_begins_one(host: Sshd) -> None:
    """NF-10, NF-18: `holdfast exec --durable` shows its output and ends as it does."""
    with served(host) as world:
        words = ("exec", "--durable", "box", "cat; echo e >&2; exit 3")
        done = world.cli(*words, stdin="é in\n".encode(), check=False)
        assert (done.returncode, done.stdout) == (3, "é in\n".encode()), done
        job, _, rest = done.stderr.decode().partition(" is kept on its host\n")
        assert rest == "e\n"
        done = world.cli("--json", *words, stdin=b"in\n", check=False)
        told = json.loads(done.stdout)
        assert (done.returncode, told["exit_code"], told["stdout"]) == (3, 3, "in\n")
        assert told["job_id"] not in job
        done = world.cli(*words, stdin=b"\xff", check=False)
        assert (done.returncode, b"UTF-8" in done.stderr) == (2, True)
        done = world.cli("exec", "--durable", "-tt", "box", "true", check=False)
        assert done.returncode == 255
        assert b"tty and durable" in done.stderr
        rows = json.loads(world.cli("jobs", "--json").stdout)["jobs"]
        assert len(rows) == 2, rows
