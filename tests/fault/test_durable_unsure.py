"""A durable command whose link is lost as its host begins it, and needs a person."""

from __future__ import annotations

import asyncio
import os
import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy, Way
from fakes.sshd import Sshd, keygen
from fakes.terminal import Terminal
from fakes.tools import QUICK, served, tools
from fakes.watch import soon
from fakes.world import program

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]

SETSID = shutil.which("setsid")
PHRASE = "canary open sesame"


async def login(world: World) -> None:
    with Terminal() as terminal:
        await terminal.run(program("holdfast"), "login", "box", env=world.environment)
        await terminal.asked("Passphrase of the key .*: ")
        terminal.type(f"{PHRASE}\n")
        await terminal.until("login +publickey")
        assert await terminal.ended() == 0


class Slow:
    """A host that says once that it begins a command, and waits for the gate then."""

    def __init__(self, place: Path) -> None:
        self.held, self._gate = place / "held", place / "gate"
        self._slow = place / "bin" / "setsid"
        self._slow.parent.mkdir()
        os.mkfifo(self._gate)
        path = f"{self._slow.parent}:{os.environ['PATH']}"
        self.options = {"SetEnv": f"HOME={place}/sshd PATH={path}"}
        words = f"#!/bin/sh\n: >{self.held}\nread -r _ <{self._gate}\n"
        self._slow.write_text(f'{words}exec {SETSID} "$@"\n')
        self._slow.chmod(0o755)

    async def go_on(self) -> None:
        self._slow.unlink()
        await asyncio.to_thread(self._gate.write_text, "go\n")


async def test_whether_it_ran_is_asked_once_a_person_has_logged_in(
    tmp_path: Path,
) -> None:
    """NF-07, NF-10: it was said not to have run, and a repeated call ran it twice."""
    slow, ran = Slow(tmp_path), tmp_path / "ran"
    locked = keygen(tmp_path / "locked", passphrase=PHRASE)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        Proxy(host.port) as proxy,
    ):
        host.authorize(locked.with_suffix(".pub"))
        config = tmp_path / "config"
        proxy.config(host, config)
        lines = [one for one in config.read_text().splitlines() if "Identit" not in one]
        config.write_text("\n".join([*lines, f"  IdentityFile {locked}", ""]))
        with served(config) as world:
            await login(world)
            once = {"durable": True, "request_id": "once", "target": "box"}
            once["command"] = f"echo ran >>{ran}; echo out; exit 4"
            async with tools(world) as ssh:
                call = await ssh.wire.start(
                    "tools/call",
                    {"name": "ssh_exec", "arguments": {**once, "wait_seconds": 3}},
                )
                await soon(slow.held.exists, "it begins")
                proxy.freeze(Way.DOWN)
                await slow.go_on()
                await soon(ran.exists, "it ran")
                await asyncio.to_thread(proxy.rst)
                proxy.heal()
                result = (await ssh.wire.reply(call))["result"]
                assert "isError" not in result, result
                told = result["structuredContent"]
                assert told["status"] == "running"
                await login(world)
                again = await ssh.told("ssh_exec", **once, wait_seconds=0)
                assert again["job_id"] == told["job_id"]
                told = await ssh.ended(again["job_id"])
                assert (told["exit_code"], told["stdout"]) == (4, "out\n")
        assert ran.read_text() == "ran\n"


@pytest.mark.parametrize(
    ("asked", "ignored", "name", "code"),
    [
        (["HUP"], "INT TERM", "HUP", 129),
        (["INT"], "HUP TERM", "INT", 130),
        (["INT", "HUP"], "HUP TERM", "INT", 130),
    ],
)
async def test_a_signal_before_it_began_is_sent_once_it_has(
    tmp_path: Path, asked: list[str], ignored: str, name: str, code: int
) -> None:
    """NF-10, EX-21: a word to read its files anew became INT, TERM and KILL."""
    slow = Slow(tmp_path)
    with (
        Sshd(tmp_path / "sshd", options=slow.options) as host,
        served(host, limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            job = await ssh.start(f"trap '' {ignored}; exec sleep 300", durable=True)
            await soon(slow.held.exists, "it begins")
            for one in asked:
                told = await ssh.stop(job, signal=one)
                assert (told["stopped"], told["status"]) == (False, "running"), told
                assert f"once it does, {one} is sent" in told["note"]
            await slow.go_on()
            ended = await ssh.ended(job)
            assert ended.get("signal") == name or ended.get("exit_code") == code, ended
