"""What a person at a terminal sees of an agent's commands: shells on a real host."""

from __future__ import annotations

import asyncio
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.kept import spare_fish
from fakes.sshd import Sshd
from fakes.terminal import sitting
from fakes.tools import served, tools
from fakes.world import program

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]


@pytest.mark.parametrize("durability", ["held", "remote"])
@pytest.mark.parametrize("shell", ["bash", "dash", "zsh", "fish"])
async def test_what_starts_a_command_is_not_seen(
    short_path: Path, shell: str, durability: str
) -> None:
    """NF-05: its words, output and end are told; prompts and what one types stay."""
    where = shutil.which(shell)
    if where is None:
        pytest.skip(f"{shell} is not installed")
    spare_fish(short_path)
    with (
        Sshd(short_path, options={"SetEnv": f"HOME={short_path}"}) as sshd,
        served(sshd) as world,
    ):
        async with tools(world) as ssh, sitting() as person:
            await ssh.told(
                "ssh_session_open",
                target="box",
                session_name="one",
                shell=where,
                durability=durability,
                cols=100,
                rows=30,
            )
            call = {"session": "one", "timeout_seconds": 20}
            told = await ssh.told("ssh_session_run", command="echo before", **call)
            assert told["exit_code"] == 0
            person.resize(100, 30)
            await person.run(
                program("holdfast"), "--no-autostart", "attach", "one", "--watch",
                env=world.environment,
            )  # fmt: skip
            await person.until(r"leave with[^\r]*\r\n")
            for word in ("one", "two"):
                told = await ssh.told(
                    "ssh_session_run", command=f"echo {word}; sh -c 'exit 7'", **call
                )
                assert told["exit_code"] == 7
                await person.until(f"runs: echo {word}; sh")
                await person.until(f"[\r\n]{word}\r\n")
                await person.until("── exit 7 ──")
            await ssh.told(
                "ssh_session_write",
                session="one",
                input="echo typed-'x'; . '/nonexistent/holdfast'\n",
                until="typed-x",
            )
            # fish draws each word by itself
            await person.until("nonexistent/holdfast")
            await person.until("typed-x")
            # fish tells its window's title too what was typed
            plain = re.sub(rb"\x1b\][^\x07]*\x07", b"", person.said)
            plain = re.sub(rb"\x1b\[[0-9;?]*[@-~]", b"", plain)
            assert re.search(rb"/holdfast-|/kept/s", plain) is None, plain
            assert re.search(rb"'/[a-z]\b", plain) is None, plain
            await ssh.told("ssh_session_close", session="one", force=True)
            async with asyncio.timeout(40):
                await person.ended()
