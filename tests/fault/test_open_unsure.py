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

    async def begin(self, ssh: Tools) -> int:
        """Have a session opened; return the call, once its host is at it."""
        words = f"#!/bin/sh\n: >{self._held}\nread -r _ <{self._gate}\n"
        self._slow.write_text(f'{words}exec {SETSID} "$@"\n')
        self._slow.chmod(0o755)
        params = {"name": "ssh_session_open", "arguments": OPENED}
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


async def test_what_was_being_opened_when_the_daemon_stopped_is_found(
    tmp_path: Path,
) -> None:
    """NF-20, SE-11: the next daemon looks for it, and the same call finds it."""
    slow = Slow(tmp_path)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        served(host, limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            call = await slow.begin(ssh)
            await asyncio.to_thread(world.stop)
            error = failure((await ssh.wire.reply(call))["result"])
            assert error["reason"] in {"CONNECTION_LOST", "DRAINING", "DAEMON_LOST"}
            assert error["ran"] == "unknown"
        await slow.go_on()
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            told = await ssh.told("ssh_session_open", **OPENED)
            assert (told["created"], told["reused"]) == (False, True)
            run = await ssh.told("ssh_session_run", session="s", command="echo here")
            assert (run["stdout"], run["exit_code"]) == ("here\n", 0)
            assert len(list(slow.room.glob("s*/kind"))) == 1
            await ssh.told("ssh_session_close", session="s", force=True)
        await slow.nothing_left()
