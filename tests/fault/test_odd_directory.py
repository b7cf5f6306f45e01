"""A session in a directory whose name is of bytes that are no characters."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from fakes.restarting import restart
from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """A directory in the host's home."""
    path = tmp_path / "sshd" / "home" / os.fsdecode(b"caf\xe9")
    path.mkdir(parents=True)
    return path


@pytest.mark.parametrize("durability", ["remote", "held"])
async def test_it_goes_on_there(tmp_path: Path, odd: Path, durability: str) -> None:
    """SE-04, FI-10: each command was answered as a fault of ours, and nothing kept."""
    home = odd.parent
    opening = {"target": "box", "session_name": "s", "durability": durability}
    with (
        Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as sshd,
        served(sshd) as world,
    ):
        async with tools(world) as ssh:
            first = await ssh.told("ssh_session_open", **opening)
            told = await ssh.told("ssh_session_run", session="s", command="cd ~/caf*")
            assert (told["exit_code"], told["cwd"]) == (0, f"{home}/caf\\xe9")
            told = await ssh.told("ssh_session_run", session="s", command="exit 3 | :")
            assert told["exit_code"] == 0
            if durability == "remote":
                await asyncio.to_thread(restart, world)
            record = world.state / "sessions" / first["session_id"] / "session.json"
            kept = json.loads(record.read_text(encoding="utf-8"))["cwd"]
            assert os.fsencode(kept) == os.fsencode(odd)
            told = await ssh.told("ssh_session_run", session="s", command="echo on")
            assert (told["stdout"], told["cwd"]) == ("on\n", f"{home}/caf\\xe9")
            if durability == "remote":
                await ssh.told("ssh_session_close", session="s", force=True)
                return
            sshd.stop()
            sshd.start()
            async with asyncio.timeout(40):
                while (await ssh.told("ssh_session_list"))["sessions"]:
                    await moment()
            again = await ssh.told("ssh_session_open", **opening)
            assert again["created"]
            told = await ssh.told("ssh_session_run", session="s", command="echo on")
            # a channel begins with text, which that is not
            assert told["stdout"] == "on\n"
            assert "caf" not in told["cwd"]
