"""What an earlier daemon left on a host is taken up, whatever came in between."""

from __future__ import annotations

import asyncio
import shlex
from typing import TYPE_CHECKING

import pytest

from fakes.restarting import ended, restart
from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools
from fakes.watch import alive, moment, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Result, Tools

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

SESSION = {"target": "box", "session_name": "s", "durability": "remote"}


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def waiting(gate: Path) -> str:
    """Return a command that says who it is, and waits."""
    return f"echo $$; until [ -e {gate} ]; do sleep 0.1; done; echo over; exit 7"


async def printed_pid(ssh: Tools, job: str) -> int:
    await ssh.until(job, "\n")
    return int((await ssh.read(job, offset=0))["stdout"].split()[0])


async def noted(ssh: Tools, job: str, text: str) -> Result:
    """Return how a job stands once its note has `text`."""
    async with asyncio.timeout(40):
        while text not in (told := await ssh.read(job, offset=0)).get("note", ""):
            await moment()
    return told


@pytest.mark.parametrize("times", [1, 2])
async def test_a_durable_command_outlives_a_mistake_in_ssh_config(
    host: Sshd, tmp_path: Path, times: int
) -> None:
    """NF-10, NF-20: it goes on, is ended by no daemon, and its end is told."""
    gate, config = tmp_path / "gate", tmp_path / "config"
    sound = host.config.read_text()
    config.write_text(sound)
    with served(config) as world:
        async with tools(world, "--no-autostart") as ssh:
            job = await ssh.start(waiting(gate), durable=True)
            pid = await printed_pid(ssh, job)
            config.write_text(f"NoSuchOption yes\n{sound}")
            for _ in range(times):
                await asyncio.to_thread(restart, world)
                told = await noted(ssh, job, "nosuchoption")
                assert told["status"] == "running", told
            config.write_text(sound)
            if times > 1:
                await asyncio.to_thread(restart, world)
            gate.touch()
            told = await ended(ssh, job)
            assert (told["status"], told["exit_code"]) == ("exited", 7), told
            assert told["stdout"] == f"{pid}\nover\n"


async def test_a_durable_command_that_may_not_be_followed_is_not_ended(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-10: it is said that it may run, and no daemon has its host kill it."""
    gate, over = tmp_path / "gate", tmp_path / "over"
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            command = f"({waiting(gate)}); : >{over}"
            job = await ssh.start(command, durable=True)
            await printed_pid(ssh, job)
            world.configure(f"[hosts.box]\nenabled = false\n[limits]\n{QUICK}")
            await asyncio.to_thread(restart, world)
            record = world.state / "jobs" / job / "job.json"
            await soon(
                lambda: '"status": "lost"' in record.read_text(), "it is given up"
            )
            world.configure(f"[limits]\n{QUICK}")
            await asyncio.to_thread(restart, world)
            told = await ssh.read(job, offset=0)
            assert told["status"] == "lost", told
            assert "may still run" in told["note"]
            # nothing is due on its host by then
            await soon(lambda: '"kept": null' in record.read_text(), "it is let go of")
            gate.touch()
            await soon(over.exists, "it goes on")


async def test_a_session_outlives_a_mistake_in_ssh_config(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-20, SE-11: its shell is found, and so is the command that runs in it."""
    gate, config = tmp_path / "gate", tmp_path / "config"
    sound = host.config.read_text()
    config.write_text(sound)
    with served(config) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told("ssh_session_open", **SESSION)
            run = f"({waiting(gate)})"
            told = await ssh.told(
                "ssh_session_run", session="s", command=run, wait_seconds=0
            )
            job = told["job_id"]
            await ssh.until(job, "\n")
            config.write_text(f"NoSuchOption yes\n{sound}")
            await asyncio.to_thread(restart, world)
            rows = (await ssh.told("ssh_session_list"))["sessions"]
            assert [one["session_id"] for one in rows] == [opened["session_id"]]
            assert rows[0]["running"], rows
            assert (await ssh.read(job))["status"] == "running"
            config.write_text(sound)
            gate.touch()
            told = await ended(ssh, job)
            assert (told["status"], told["exit_code"]) == ("exited", 7), told
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_a_durable_command_that_minds_no_interrupt_outlives_the_daemon(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-10, NF-20: a signal that did not end it is no stop of it."""
    gate = tmp_path / "gate"
    with served(host) as world:
        async with tools(world, "--no-autostart") as ssh:
            job = await ssh.start(f"trap 'echo int' INT; {waiting(gate)}", durable=True)
            pid = await printed_pid(ssh, job)
            told = await ssh.told("ssh_job_stop", job_id=job, signal="INT")
            assert (told["stopped"], told["status"]) == (False, "running"), told
            await ssh.until(job, "int\n")
            await asyncio.to_thread(restart, world)
            told = await ssh.read(job, offset=0)
            assert told["status"] == "running", told
            assert alive(pid)
            gate.touch()
            told = await ended(ssh, job)
            assert (told["status"], told["exit_code"]) == ("exited", 7), told


@pytest.mark.parametrize("kind", ["durable", "session"])
async def test_a_signal_on_its_way_when_the_daemon_stops_is_no_stop(
    host: Sshd, tmp_path: Path, kind: str
) -> None:
    """NF-10, NF-20: the next daemon tells what became of it."""
    gate = tmp_path / "gate"
    command = f"trap 'echo int' INT; {waiting(gate)}"
    with served(host, limits="stop_grace_seconds = 30.0\n") as world:
        async with tools(world, "--no-autostart") as ssh:
            if kind == "durable":
                job = await ssh.start(command, durable=True)
            else:
                await ssh.told("ssh_session_open", **SESSION)
                told = await ssh.told(
                    "ssh_session_run",
                    session="s",
                    command=f"sh -c {shlex.quote(command)}",
                    wait_seconds=0,
                )
                job = told["job_id"]
            pid = await printed_pid(ssh, job)
            params = {
                "name": "ssh_job_stop",
                "arguments": {"job_id": job, "signal": "INT"},
            }
            call = await ssh.wire.start("tools/call", params)
            await ssh.until(job, "int\n")
            await asyncio.to_thread(restart, world)
            await ssh.wire.reply(call)
            told = await ssh.read(job, offset=0)
            assert told["status"] == "running", told
            assert alive(pid)
            gate.touch()
            told = await ended(ssh, job)
            assert (told["status"], told["exit_code"]) == ("exited", 7), told
            if kind == "session":
                await ssh.told("ssh_session_close", session="s", force=True)
