"""A session whose opening was cut off: it is looked for, and no second one is made."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy, Way
from fakes.sshd import Sshd
from fakes.tools import QUICK, failure, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.tools import Tools

SETSID = shutil.which("setsid")

pytestmark = pytest.mark.needs_sshd


OPENED = {"target": "box", "session_name": "s", "durability": "remote"}


class Slow:
    """A host where a session begins when the gate says so, once."""

    def __init__(self, place: Path) -> None:
        programs, self._gate = place / "bin", place / "gate"
        self._held, self._slow = place / "held", programs / "setsid"
        os.mkfifo(self._gate)
        programs.mkdir()
        path = f"{programs}:{os.environ['PATH']}"
        self.options = {"SetEnv": f"HOME={place}/sshd PATH={path}"}
        self.room = place / "sshd" / ".cache" / "holdfast" / "kept"

    async def begin(self, ssh: Tools, **more: str) -> int:
        """Have a session opened; return the call, once its host is at it."""
        words = f"#!/bin/sh\n: >{self._held}\nread -r _ <{self._gate}\n"
        self._slow.write_text(f'{words}exec {SETSID} "$@"\n')
        self._slow.chmod(0o755)
        params = {"name": "ssh_session_open", "arguments": OPENED | more}
        call = await ssh.wire.start("tools/call", params)
        await soon(self._held.exists, "it begins")
        return call

    async def go_on(self) -> None:
        """Let it, and wait until it is there."""
        self._slow.unlink()
        await asyncio.to_thread(self._gate.write_text, "go\n")
        await soon(lambda: list(self.room.glob("s*/shpid")), "it is there")

    async def nothing_left(self) -> None:
        """Wait until the host keeps nothing."""
        await soon(lambda: not list(self.room.glob("s*/kind")), "nothing is left there")


async def test_what_may_have_been_opened_is_found_by_its_name(tmp_path: Path) -> None:
    """NF-09, SE-11: the answer is lost; the same call again finds what it opened."""
    slow = Slow(tmp_path)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            call = await slow.begin(ssh)
            proxy.freeze(Way.DOWN)
            await slow.go_on()
            await asyncio.to_thread(proxy.rst)
            proxy.heal()
            error = failure((await ssh.wire.reply(call))["result"])
            assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
            told = await ssh.told("ssh_session_open", **OPENED)
            assert (told["created"], told["reused"]) == (False, True)
            assert told["session_id"] in error["hint"]
            run = await ssh.told("ssh_session_run", session="s", command="echo here")
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            assert len(list(slow.room.glob("s*/kind"))) == 1
            await ssh.told("ssh_session_close", session="s", force=True)
        await slow.nothing_left()


@pytest.mark.parametrize("durability", ["remote", "auto"])
async def test_what_was_being_opened_when_the_daemon_stopped_is_found(
    tmp_path: Path, durability: str
) -> None:
    """NF-20, SE-11: the next daemon looks for it, and the same call finds it."""
    slow = Slow(tmp_path)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        served(host, limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            call = await slow.begin(ssh, durability=durability)
            await asyncio.to_thread(world.stop)
            error = failure((await ssh.wire.reply(call))["result"])
            assert error["reason"] in {"CONNECTION_LOST", "DRAINING", "DAEMON_LOST"}
            assert error["ran"] == "unknown"
        await slow.go_on()
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            told = await ssh.told(
                "ssh_session_open", **OPENED | {"durability": durability}
            )
            assert (told["created"], told["reused"]) == (False, True)
            run = await ssh.told("ssh_session_run", session="s", command="echo here")
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            assert len(list(slow.room.glob("s*/kind"))) == 1
            await ssh.told("ssh_session_close", session="s", force=True)
        await slow.nothing_left()


@pytest.mark.parametrize("durability", ["remote", "auto"])
async def test_what_was_begun_and_not_attached_to_when_the_daemon_stopped_is_found(
    tmp_path: Path, durability: str
) -> None:
    """NF-20, SE-11: it stops between the shell's start and the first look at it."""
    programs, held, gate = tmp_path / "bin", tmp_path / "held", tmp_path / "gate"
    opened = OPENED | {"durability": durability}
    room = tmp_path / "sshd" / ".cache" / "holdfast" / "kept"
    programs.mkdir()
    os.mkfifo(gate)
    # who attaches writes down when
    words = f"#!/bin/sh\n[ ! -s shpid ] || {{ : >{held}; read -r _ <{gate}; }}\n"
    (programs / "date").write_text(f'{words}exec {shutil.which("date")} "$@"\n')
    (programs / "date").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    options = {"SetEnv": f"HOME={tmp_path}/sshd PATH={path}"}
    with (
        Sshd(tmp_path / "sshd", options=options) as host,
        served(host, limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            params = {"name": "ssh_session_open", "arguments": opened}
            call = await ssh.wire.start("tools/call", params)
            await soon(held.exists, "it is about to attach")
            await asyncio.to_thread(world.stop)
            error = failure((await ssh.wire.reply(call))["result"])
            assert error["ran"] == "unknown", error
        (programs / "date").unlink()
        await asyncio.to_thread(world.start)
        # and the one after that
        await asyncio.to_thread(world.stop)
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            told = await ssh.told("ssh_session_open", **opened)
            assert (told["created"], told["reused"]) == (False, True)
            assert len(list(room.glob("s*/kind"))) == 1
            await ssh.told("ssh_session_close", session="s", force=True)
        await soon(lambda: not list(room.glob("s*/kind")), "nothing is left there")


async def test_a_link_lost_over_and_over_says_nothing_of_what_a_host_can_keep(
    tmp_path: Path,
) -> None:
    """SE-11, NF-09: no shell held by the daemon is opened in its place."""
    programs, held, gate = tmp_path / "bin", tmp_path / "held", tmp_path / "gate"
    programs.mkdir()
    os.mkfifo(gate)
    # what writes the script there
    words = f"#!/bin/sh\n: >{held}\nread -r _ <{gate}\n"
    (programs / "cat").write_text(words)
    (programs / "cat").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    options = {"SetEnv": f"HOME={tmp_path}/sshd PATH={path}"}
    with (
        Sshd(tmp_path / "sshd", options=options) as host,
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            params = {"name": "ssh_session_open", "arguments": {"target": "box"}}
            call = await ssh.wire.start("tools/call", params)
            for _ in range(3):
                await soon(held.exists, "it is written")
                held.unlink()
                await asyncio.to_thread(proxy.rst)
            error = failure((await ssh.wire.reply(call))["result"])
            assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "no")
            assert (await ssh.told("ssh_session_list"))["sessions"] == []


def deadly(place: Path) -> tuple[dict[str, str], Path]:
    """Return options of a host that kills whoever sleeps next, once, when armed."""
    programs, armed = place / "bin", place / "armed"
    programs.mkdir()
    sleep = programs / "sleep"
    kill = f"rm {armed}; kill -s KILL $PPID"
    real = shutil.which("sleep")
    sleep.write_text(
        f'#!/bin/sh\nif [ -e {armed} ]; then {kill}; fi\nexec {real} "$@"\n'
    )
    sleep.chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    return {"SetEnv": f"HOME={place}/sshd PATH={path}"}, armed


@pytest.mark.parametrize("durability", ["remote", "auto"])
async def test_one_whose_script_is_killed_behind_its_start_is_found(
    tmp_path: Path, durability: str
) -> None:
    """SE-11: what was to tell of it is gone, as for want of memory; it is not."""
    options, armed = deadly(tmp_path)
    opened = OPENED | {"durability": durability}
    room = tmp_path / "sshd" / ".cache" / "holdfast" / "kept"
    with Sshd(tmp_path / "sshd", options=options) as host, served(host) as world:
        async with tools(world) as ssh:
            armed.touch()
            error = await ssh.refused("ssh_session_open", **opened)
            assert (error["reason"], error["ran"]) == ("PROTOCOL_ERROR", "unknown")
            told = await ssh.told("ssh_session_open", **opened)
            assert (told["created"], told["reused"]) == (False, True)
            run = await ssh.told("ssh_session_run", session="s", command="echo here")
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            assert len(list(room.glob("s*/kind"))) == 1
            await ssh.told("ssh_session_close", session="s", force=True)
        await soon(lambda: not list(room.glob("s*/kind")), "nothing is left there")


async def test_one_that_is_found_before_its_shell_is_there_runs_commands(
    tmp_path: Path,
) -> None:
    """SE-03, SE-11: its kind was not told yet, and held for none."""
    options, armed = deadly(tmp_path)
    gate, real = tmp_path / "gate", shutil.which("script")
    if real is None:
        pytest.skip("no script here: run packaging/test-packages.sh")
    os.mkfifo(gate)
    slow = tmp_path / "bin" / "script"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] || read -r _ <{gate}\nexec {real} "$@"\n'
    )
    slow.chmod(0o755)
    room = tmp_path / "sshd" / ".cache" / "holdfast" / "kept"
    with Sshd(tmp_path / "sshd", options=options) as host, served(host) as world:
        async with tools(world) as ssh:
            armed.touch()
            error = await ssh.refused("ssh_session_open", **OPENED)
            assert error["ran"] == "unknown", error
            await soon(lambda: list(room.glob("s*/pump")), "its output is waited for")
            told = await ssh.told("ssh_session_open", **OPENED)
            assert (told["created"], told["reused"]) == (False, True)
            running = asyncio.create_task(
                ssh.told("ssh_session_run", session="s", command="echo here")
            )
            jobs = world.state / "jobs"
            await soon(lambda: list(jobs.glob("*")), "the run is begun")
            await asyncio.to_thread(gate.write_text, "go\n")
            run = await running
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            await ssh.told("ssh_session_close", session="s", force=True)
        await soon(lambda: not list(room.glob("s*/kind")), "nothing is left there")


async def test_a_durable_command_whose_script_is_killed_is_followed(
    tmp_path: Path,
) -> None:
    """NF-10: it is not said that it did not run, and it runs once."""
    options, armed = deadly(tmp_path)
    runs = tmp_path / "runs"
    with Sshd(tmp_path / "sshd", options=options) as host, served(host) as world:
        async with tools(world) as ssh:
            armed.touch()
            command = f"echo ran >>{runs}; exit 4"
            told = await ssh.run(command, durable=True)
            told = await ssh.ended(told["job_id"])
            assert (told["status"], told["exit_code"]) == ("exited", 4), told
            assert not armed.exists()
            assert runs.read_text() == "ran\n"


async def test_one_that_is_found_before_it_is_set_up_is_not_lost(
    tmp_path: Path,
) -> None:
    """SE-11: what is to keep its output is not there yet, and never was."""
    slow = Slow(tmp_path)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        Proxy(host.port) as proxy,
        served(proxy.config(host, tmp_path / "config"), limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            call = await slow.begin(ssh)
            await asyncio.to_thread(proxy.rst)
            error = failure((await ssh.wire.reply(call))["result"])
            assert error["ran"] == "unknown", error
            asking = asyncio.create_task(ssh.told("ssh_session_open", **OPENED))
            # its host was asked, as whoever attaches writes down
            (place,) = slow.room.glob("s*/kind")
            seen = place.with_name("seen")
            before = seen.stat().st_ino
            await soon(lambda: seen.stat().st_ino != before, "it is looked for")
            await slow.go_on()
            told = await asking
            assert (told["created"], told["reused"]) == (False, True)
            run = await ssh.told("ssh_session_run", session="s", command="echo here")
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            await ssh.told("ssh_session_close", session="s", force=True)
        await slow.nothing_left()
