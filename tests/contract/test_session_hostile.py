"""What a command prints to be taken for something else, or to hold us up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.tools import served_at_home, tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]

# So much may one look take; drawn out by hand it was minutes.
_SECONDS = 20.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with served_at_home(tmp_path) as one:
        yield one


async def test_an_endless_line_behind_a_command(world: World) -> None:
    """SE-09, OB-04: one long line is shown at once, and nobody else waits for it."""
    async with tools(world) as ssh:
        opened = await ssh.told("ssh_session_open", target="box", shell="bash")
        session = opened["session_id"]
        await ssh.told("ssh_session_run", session=session, command="true")
        await ssh.told(
            "ssh_session_write",
            session=session,
            input="head -c 40000 /dev/zero | tr '\\0' x; echo; echo all of it\n",
        )
        async with asyncio.timeout(60):
            await ssh.told(
                "ssh_session_read",
                session=session,
                until="^all of it",
                wait_seconds=20,
                max_output_chars=0,
            )
        async with asyncio.timeout(_SECONDS):
            told = await ssh.told(
                "ssh_session_read", session=session, offset=0, max_output_chars=90000
            )
        assert "x" * 40000 in told["output"]
        assert "/kept/" not in told["output"]


@pytest.mark.parametrize(
    ("first", "rest"),
    [("\\033[3", "1m"), ("\\033]0;ti", "tle\\007"), ("\\033]0;title\\033", "\\\\")],
)
async def test_an_escape_that_comes_in_two_parts(
    world: World, first: str, rest: str
) -> None:
    """SE-22: who reads between them gets no half of it as text."""
    async with tools(world) as ssh:
        opened = await ssh.told("ssh_session_open", target="box", shell="dash")
        session = opened["session_id"]
        told = await ssh.told(
            "ssh_session_write",
            session=session,
            input=f"stty -echo; printf 'shown{first}'; read x; printf '{rest}red\\n'\n",
        )
        before = told["output"]
        async with asyncio.timeout(40):
            while not before.endswith("shown"):
                told = await ssh.told(
                    "ssh_session_read", session=session, wait_seconds=2
                )
                before += told["output"]
        told = await ssh.told(
            "ssh_session_write",
            session=session,
            input="\n",
            until="red",
            wait_seconds=20,
        )
        assert told["output"].split("\n")[0] == "red"


@pytest.mark.parametrize("size", [10, 100_000])
async def test_what_only_begins_like_an_end(
    world: World, tmp_path: Path, size: int
) -> None:
    """SE-02, SE-11: who reads the script's own files still has its own exit code."""
    async with tools(world) as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", shell="bash", durability="remote"
        )
        session = opened["session_id"]
        nonce = f"{tmp_path}/.cache/holdfast/kept/{session}/r/1/n"
        told = await ssh.told(
            "ssh_session_run",
            session=session,
            command=f"printf '\\036%s:run 0:' \"$(cat {nonce})\";"
            f" head -c {size} /dev/zero | tr '\\0' x; (exit 3)",
        )
        assert (told["status"], told["exit_code"]) == ("exited", 3)
        assert told["stdout_bytes"] == len("\x1e:run 0:") + 32 + size
