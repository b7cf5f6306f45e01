"""Commands in sessions on a host go on when the daemon ends, and are gone on with.

`make soak` runs them long: HOLDFAST_RUN_MIB and HOLDFAST_RUN_KILLS say how long.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.restarting import AWAY, ENDS, crash
from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator
    from pathlib import Path

    from fakes.world import World

SEED = 4
MIB = float(os.environ.get("HOLDFAST_RUN_MIB", "6"))
KILLS = int(os.environ.get("HOLDFAST_RUN_KILLS", "3"))

pytestmark = [
    pytest.mark.needs_sshd,
    pytest.mark.timeout(90 + MIB * 2 + KILLS * 6),
]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "remote-home"
    home.mkdir()
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(world: World, **arguments: Any) -> AsyncGenerator[Tools]:
    """Open a session on the host, and end it there in the end."""
    async with tools(world, "--no-autostart") as ssh:
        await ssh.told(
            "ssh_session_open",
            target="box",
            session_name="one",
            durability="remote",
            **arguments,
        )
        try:
            yield ssh
        finally:
            await patiently(ssh, "ssh_session_close", session="one", force=True)


async def patiently(ssh: Tools, tool: str, **arguments: Any) -> Result:
    """Call until the daemon is there again, and the session is free."""
    async with asyncio.timeout(40):
        while True:
            told = await ssh.call(tool, **arguments)
            if "isError" not in told:
                return dict(told["structuredContent"])
            error = told["structuredContent"]["error"]
            assert error["ran"] != "yes", told
            assert error["reason"] in {*AWAY, "SESSION_BUSY"}, told
            await asyncio.sleep(0.05)


def room(host: Sshd) -> Path:
    return host.directory.parent / "remote-home/.cache/holdfast/kept"


def counting(gate: Path, ran: Path) -> str:
    """Return a command: what it prints depends on how often, and how far, it ran."""
    return (
        f"echo ran >> {ran}; for n in 1 2 3; do echo out $n; echo err $n >&2; done;"
        f" until [ -e {gate} ]; do sleep 0.02; done;"
        " for n in 4 5 6; do echo out $n; echo err $n >&2; done; (exit 7)"
    )


LINES = range(1, 7)


@contextlib.asynccontextmanager
async def counted(
    host: Sshd, directory: Path
) -> AsyncGenerator[tuple[World, Proxy, Tools, str]]:
    """Have it count over a link that can be cut; yield the job, once it waits."""
    gate, ran = host.directory / "gate", host.directory / "ran"
    with (
        Proxy(host.port) as proxy,
        served(proxy.config(host, directory / "config")) as world,
    ):
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=counting(gate, ran),
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "err 3\n")
            yield world, proxy, ssh, told["job_id"]


@ENDS
async def test_a_command_goes_on_and_its_job_is_the_same(
    host: Sshd, end: Callable[[World], None]
) -> None:
    """NF-20, NF-10: killed or restarted: one run, its output once, its exit code."""
    gate, ran = host.directory / "gate", host.directory / "ran"
    with served(host, limits=f"{QUICK}session_turn_seconds = 1\n") as world:
        async with (
            opened(world) as ssh,
            tools(world, "--no-autostart", client="other") as other,
        ):
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=counting(gate, ran),
                wait_seconds=0,
            )
            job_id = told["job_id"]
            await ssh.until(job_id, "err 3\n")
            await asyncio.to_thread(end, world)
            job = await patiently(ssh, "ssh_job_read", job_id=job_id, offset=0)
            assert job["status"] == "running"
            assert "exit_code" not in job
            # nobody else may run anything there meanwhile
            busy = await other.refused(
                "ssh_session_run", session="one", command="echo no"
            )
            assert (busy["reason"], busy["ran"]) == ("SESSION_BUSY", "no")
            waiting = asyncio.create_task(
                ssh.told("ssh_wait", any_of=[{"job_id": job_id}], wait_seconds=20)
            )
            await asyncio.to_thread(gate.touch)
            first = await waiting
            assert job_id in json.dumps(first)
            for client in (other, ssh):
                job = await client.ended(job_id)
                assert (job["status"], job["exit_code"]) == ("exited", 7)
                whole = await client.read(job_id, offset=0)
                assert whole["stdout"] == "".join(f"out {n}\n" for n in LINES)
                assert whole["stderr"] == "".join(f"err {n}\n" for n in LINES)
            assert ran.read_text() == "ran\n"
            again = await patiently(
                other, "ssh_session_run", session="one", command="echo on"
            )
            assert (again["stdout"], again["exit_code"]) == ("on\n", 0)
        verdict = await asyncio.to_thread(world.cli_json, "audit", "--verify")
        assert verdict["intact"], verdict


async def ended_unseen(
    world: World, ssh: Tools, job_id: str, gate: Path, over: Callable[[], object]
) -> Result:
    """Let a command end while the daemon is dead; return what the next tells of it."""
    await asyncio.to_thread(world.kill)
    await asyncio.to_thread(gate.touch)
    await soon(over, "it ended on its host")
    await asyncio.to_thread(world.start)
    await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
    return await ssh.ended(job_id)


async def test_one_that_ended_while_nobody_looked_is_told(host: Sshd) -> None:
    """NF-20, NF-10: the daemon was dead when it ended; its code is known still."""
    gate, ran = host.directory / "gate", host.directory / "ran"
    done = host.directory / "done"
    with served(host) as world:
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=f"cd /usr; {counting(gate, ran)}; r=$?; touch {done};"
                " (exit $r)",
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "err 3\n")
            job = await ended_unseen(world, ssh, told["job_id"], gate, done.exists)
            assert (job["status"], job["exit_code"]) == ("exited", 7)
            whole = await ssh.read(told["job_id"], offset=0)
            assert whole["stdout"] == "".join(f"out {n}\n" for n in LINES)
            after = await patiently(
                ssh, "ssh_session_run", session="one", command="pwd"
            )
            assert (after["stdout"], after["cwd"]) == ("/usr\n", "/usr")
            assert ran.read_text() == "ran\n"


async def test_its_shell_may_end_with_it_meanwhile(host: Sshd) -> None:
    """NF-20, SE-11: `exit 5` in a command, the daemon dead: 5, and all it printed."""
    gate = host.directory / "gate"
    with served(host) as world:
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=f"echo on; until [ -e {gate} ]; do sleep 0.02; done; echo off;"
                " exit 5",
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "on\n")
            left = room(host)
            job = await ended_unseen(
                world, ssh, told["job_id"], gate, lambda: list(left.glob("s*/rc"))
            )
            assert (job["status"], job["exit_code"]) == ("exited", 5)
            assert "shell ended" in job["note"]
            assert (await ssh.read(told["job_id"], offset=0))["stdout"] == "on\noff\n"
            read = await ssh.told("ssh_session_read", session="one", wait_seconds=5)
            while read["running"]:
                read = await ssh.told("ssh_session_read", session="one", wait_seconds=1)
            assert (read["exit_reason"], read["exit_code"]) == ("exited", 5)
            await soon(lambda: not list(room(host).glob("s*")), "nothing is left there")


async def test_a_daemon_killed_again_and_again_loses_nothing(host: Sshd) -> None:
    """NF-20, SE-06: each line once through many deaths, and stopped by its own id."""
    total, kills = 400, 4
    with served(host) as world:
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=f"n=0; while [ $n -lt {total} ]; do n=$((n+1)); echo line $n;"
                " sleep 0.01; done; echo whole; sleep 300",
                wait_seconds=0,
                timeout_seconds=0,
            )
            job_id = told["job_id"]
            for number in range(1, kills + 1):
                await ssh.until(job_id, f"line {number * total // (kills + 2)}\n")
                await asyncio.to_thread(crash, world)
                await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
            await ssh.until(job_id, "whole\n")
            whole = await ssh.read(job_id, offset=0, max_output_chars=100_000)
            lines = "".join(f"line {n}\n" for n in range(1, total + 1))
            assert whole["stdout"] == f"{lines}whole\n"
            stopped = await ssh.stop(job_id)
            assert stopped["status"] == "cancelled", stopped
            after = await patiently(
                ssh, "ssh_session_run", session="one", command="echo free"
            )
            assert after["stdout"] == "free\n"


async def test_its_time_limit_holds_after_a_restart(host: Sshd) -> None:
    """NF-20, SE-14: what ran before counts, and the session is free again."""
    with served(host) as world:
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command="echo on; sleep 300",
                timeout_seconds=8,
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "on\n")
            await asyncio.to_thread(crash, world)
            await patiently(ssh, "ssh_job_read", job_id=told["job_id"], wait_seconds=0)
            job = await ssh.ended(told["job_id"])
            assert job["status"] == "timed_out"
            after = await patiently(
                ssh, "ssh_session_run", session="one", command="echo free"
            )
            assert after["stdout"] == "free\n"


async def test_a_host_that_is_away_after_the_restart_is_waited_for(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-09, NF-20: still running, said so, and gone on with once it is back."""
    gate, ran = host.directory / "gate", host.directory / "ran"
    async with counted(host, tmp_path) as (world, proxy, ssh, job_id):
        await asyncio.to_thread(world.kill)
        proxy.refuse()
        proxy.rst()
        await asyncio.to_thread(world.start)
        job = await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=1)
        assert job["status"] == "running"
        gate.touch()
        proxy.heal()
        job = await ssh.ended(job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 7)
        whole = await ssh.read(job_id, offset=0)
        assert whole["stdout"] == "".join(f"out {n}\n" for n in LINES)
        assert ran.read_text() == "ran\n"


async def test_what_was_never_typed_is_never_run(host: Sshd, tmp_path: Path) -> None:
    """NF-17, NF-20: its record is there, and the host was never told: said so."""
    ran = host.directory / "ran"
    with Proxy(host.port) as proxy:
        config = proxy.config(host, tmp_path / "config")
        with served(config, limits=f"{QUICK}session_turn_seconds = 1\n") as world:
            async with opened(world) as ssh:
                await ssh.told("ssh_session_run", session="one", command="true")
                proxy.freeze()
                told = await ssh.told(
                    "ssh_session_run",
                    session="one",
                    command=f"echo ran >> {ran}",
                    wait_seconds=0,
                )
                await asyncio.to_thread(world.kill)
                proxy.rst()
                proxy.heal()
                await asyncio.to_thread(world.start)
                await patiently(
                    ssh, "ssh_job_read", job_id=told["job_id"], wait_seconds=0
                )
                found = await ssh.ended(told["job_id"])
                assert found["status"] == "lost"
                assert "never ran" in found["note"]
                assert "exit_code" not in found
                after = await patiently(
                    ssh, "ssh_session_run", session="one", command=f"ls {ran}"
                )
                assert after["exit_code"] != 0
                assert not ran.exists()


async def test_one_that_the_daemon_dies_under_is_typed_once_at_most(
    host: Sshd,
) -> None:
    """NF-17, NF-20: it died as it was to type it, and nobody types it again."""
    ran = host.directory / "ran"
    with served(host) as world:
        async with opened(world) as ssh:
            await ssh.told("ssh_session_run", session="one", command="true")
            await asyncio.to_thread(world.stop)
            await asyncio.to_thread(
                world.start,
                HOLDFAST_FAILPOINT="session.run.begun",
                HOLDFAST_TESTING="1",
            )
            error = await ssh.refused(
                "ssh_session_run", session="one", command=f"echo ran >> {ran}"
            )
            assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            after = await patiently(
                ssh, "ssh_session_run", session="one", command=f"ls {ran}"
            )
            assert after["exit_code"] != 0
            jobs = await patiently(ssh, "ssh_job_list")
            for job in jobs["jobs"]:
                if "echo ran" in job["command"]:
                    assert job["status"] == "lost"
                    assert "exit_code" not in job


async def test_a_stop_that_does_not_arrive_is_no_end(
    host: Sshd, tmp_path: Path
) -> None:
    """EX-15, NF-20: the host is away: not stopped, said so, and its own end is told."""
    gate = host.directory / "gate"
    async with counted(host, tmp_path) as (_, proxy, ssh, job_id):
        proxy.refuse()
        proxy.rst()
        stopped = await ssh.stop(job_id)
        assert not stopped["stopped"]
        assert stopped["status"] == "running"
        assert "exit_code" not in stopped
        gate.touch()
        proxy.heal()
        # whoever uses the session has its host looked for at once
        await ssh.told("ssh_session_read", session="one")
        job = await ssh.ended(job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 7)


async def test_its_own_client_may_answer_what_it_asks(host: Sshd) -> None:
    """NF-20, SE-14: after the restart as before it; nobody else may type."""
    with served(host) as world:
        async with (
            opened(world) as ssh,
            tools(world, "--no-autostart", client="other") as other,
        ):
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command="echo name?; read x </dev/tty; echo hello $x",
                wait_seconds=0,
            )
            await ssh.until(told["job_id"], "name?\n")
            await asyncio.to_thread(crash, world)
            error = await other.refused(
                "ssh_session_write", session="one", input="other\n"
            )
            assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
            await patiently(ssh, "ssh_session_write", session="one", input="mine\n")
            job = await ssh.ended(told["job_id"])
            assert (job["status"], job["exit_code"]) == ("exited", 0)
            whole = await ssh.read(told["job_id"], offset=0)
            assert whole["stdout"] == "name?\nhello mine\n"


async def test_much_output_comes_once_through_many_deaths(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-20, NF-10: the host drops only what is on our disk: SHA-256 equal."""
    data = base64.encodebytes(random.Random(SEED).randbytes(int(MIB * 1024 * 768)))
    source = host.directory / "data"
    await asyncio.to_thread(source.write_bytes, data)
    limits = f"{QUICK}kept_bytes = 1048576\nkept_patience_seconds = 300\n"
    with Proxy(host.port, seed=SEED) as proxy:
        config = proxy.config(host, tmp_path / "config")
        with served(config, limits=limits) as world:
            async with opened(world) as ssh:
                proxy.throttle(2 * 1024 * 1024)
                told = await ssh.told(
                    "ssh_session_run",
                    session="one",
                    command=f"cat {source}; (exit 3)",
                    wait_seconds=0,
                )
                job_id = told["job_id"]
                for number in range(1, KILLS + 1):
                    await reached(ssh, job_id, len(data) * number // (KILLS + 1))
                    await asyncio.to_thread(crash, world)
                proxy.throttle(0)
                await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
                job = await ssh.ended(job_id)
                assert (job["status"], job["exit_code"]) == ("exited", 3), job
                assert job["stdout_bytes"] == len(data)
                got = hashlib.sha256()
                offset = 0
                while offset < len(data):
                    page = await ssh.read(
                        job_id, offset=offset, max_output_chars=900_000
                    )
                    got.update(page["stdout"].encode())
                    assert page["next_offset"] > offset
                    offset = page["next_offset"]
                assert got.hexdigest() == hashlib.sha256(data).hexdigest()


async def reached(ssh: Tools, job_id: str, size: int) -> None:
    """Wait until so much of a job's output is here."""
    async with asyncio.timeout(60 + MIB):
        while True:
            told = await patiently(ssh, "ssh_job_read", job_id=job_id, wait_seconds=0)
            if told["stdout_bytes"] >= size:
                return
            assert told["status"] == "running", told
            await asyncio.sleep(0.05)


async def test_a_shell_killed_meanwhile_leaves_no_success(host: Sshd) -> None:
    """NF-20, SE-11: SIGKILL of the shell while nobody looks: a loss or a signal."""
    with served(host) as world:
        async with opened(world) as ssh:
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command="echo $$; sleep 300",
                wait_seconds=0,
            )
            shown = await ssh.until(told["job_id"], "\n")
            await asyncio.to_thread(world.kill)
            os.kill(int(shown["stdout"]), signal.SIGKILL)
            await soon(lambda: list(room(host).glob("s*/rc")), "its shell is gone")
            await asyncio.to_thread(world.start)
            await patiently(ssh, "ssh_job_read", job_id=told["job_id"], wait_seconds=0)
            job = await ssh.ended(told["job_id"])
            assert job.get("exit_code") != 0
            assert job["status"] != "running"
