"""Sessions that the daemon holds, of accounts whose login does more than usual."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from fakes.framed import Session, Sessions, place
from fakes.tools import tools

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("terminals")]

# what a login does once that waits for a home on another machine
_LATE = """
[ -e ~/late ] && rm ~/late && read -r _ <~/gate
"""
_IMPATIENT = "channels_waiting = 0\nmarker_seconds = 0.3\n"


@contextlib.asynccontextmanager
async def opened_early(home: Path, **more: str) -> AsyncGenerator[Session]:
    """Open a session whose login goes on only after it."""
    (home / ".bashrc").write_text(_LATE)
    os.mkfifo(home / "gate")
    with place(home, _IMPATIENT) as at:
        async with tools(at.world) as ssh:
            await ssh.told("ssh_exec", target="box", command="true")
            (home / "late").touch()
            one = await Sessions(ssh, at, "beside").open("bash", **more)
            await asyncio.to_thread((home / "gate").write_text, "go on\n")
            yield one


async def test_a_login_that_takes_long_is_heard_late(tmp_path: Path) -> None:
    """SE-02: the streams are apart all the same; they came as one, or in its way."""
    async with opened_early(tmp_path) as one:
        ssh = one.ssh
        await ssh.told(
            "ssh_session_read", session=one.id, until="[#$] $", wait_seconds=20
        )
        told = await one.run("echo out; echo err >&2; (exit 3)")
        assert (told["stdout"], told["stderr"]) == ("out\n", "err\n"), told
        assert told["exit_code"] == 3
        seen = await ssh.told("ssh_session_read", session=one.id, offset=0)
        assert "holdfast" not in seen["output"]


async def test_a_directory_that_is_not_there_is_told_late(tmp_path: Path) -> None:
    """SE-05: the session was opened by then, so it ends."""
    async with opened_early(tmp_path, cwd="/nowhere") as one:
        told = await one.ssh.told(
            "ssh_session_read", session=one.id, until="never printed", wait_seconds=20
        )
        assert told["running"] is False, told
        assert told["exit_code"] == 1, told
