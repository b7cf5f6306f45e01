"""A command in a kept shell that prints more than its host may keep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools

if TYPE_CHECKING:
    from pathlib import Path

MIB = 1024 * 1024
SIZE = 8 * MIB

pytestmark = pytest.mark.needs_sshd


async def test_what_the_host_drops_once_it_is_here_is_no_loss_and_no_absence(
    tmp_path: Path,
) -> None:
    """SE-02, EX-12: all of it comes, and nobody is told that the host was away."""
    home = {"SetEnv": f"HOME={tmp_path}/sshd"}
    limits = f"{QUICK}kept_bytes = {MIB}\n"
    with (
        Sshd(tmp_path / "sshd", options=home) as host,
        served(host, limits=limits) as world,
    ):
        async with tools(world) as ssh:
            await ssh.told("ssh_session_open", target="box", session_name="s")
            told = await ssh.told(
                "ssh_session_run",
                session="s",
                command=f"head -c {SIZE} /dev/zero | tr '\\0' x | fold -w 127",
                wait_seconds=0,
            )
            told = await ssh.ended(told["job_id"])
            await ssh.told("ssh_session_close", session="s", force=True)
    assert (told["status"], told["exit_code"]) == ("exited", 0)
    # each line has a newline behind it, but for the last
    assert told["next_offset"] == SIZE + (SIZE - 1) // 127
    assert "note" not in told, told["note"]
