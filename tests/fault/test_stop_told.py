"""Calls that the daemon's stop cuts off are told what there is, in a real session."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(60)]

# of which calls that wait get less than half
LIMITS = f"{QUICK}stop_seconds = 10\n"


async def test_a_call_that_waits_is_told_what_there_is(tmp_path: Path) -> None:
    """NF-20: the daemon stops, and nobody is left to guess whether keys were typed."""
    typed, home = tmp_path / "typed", {"SetEnv": f"HOME={tmp_path}"}
    with (
        Sshd(tmp_path / "sshd", options=home) as host,
        served(host, limits=LIMITS) as world,
    ):
        async with tools(world, "--no-autostart") as ssh:
            for name in ("one", "two"):
                await ssh.told("ssh_session_open", target="box", session_name=name)
            # where nothing more is shown
            silent = "stty -echo; printf re''ady; exec sleep 1000\n"
            await ssh.told(
                "ssh_session_write", session="one", input=silent, until="ready"
            )
            shown = await ssh.told("ssh_session_read", session="one")
            read = {"session": "one", "wait_seconds": 50}
            read["offset"] = shown["next_offset"]
            keys = f"touch {typed}\n"
            write = {"session": "two", "input": keys, "wait_seconds": 50}
            write["until"] = "never shown"
            calls = [("ssh_session_read", read), ("ssh_session_write", write)]
            asking = asyncio.create_task(ssh.together(*calls))
            await soon(typed.exists, "it is typed")
            assert await asyncio.to_thread(world.stop) == 0
            read_, written = [content(result) for result in await asking]
            assert (read_["running"], read_["output"]) == (True, "")
            assert (written["running"], written["bytes_written"]) == (True, len(keys))
            assert "never shown" not in written["output"]
