"""What others wait for while a file is worked on, through two shims of one daemon."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest

from fakes.filing import Desk, host_of_files
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.tools import Tools

pytestmark = pytest.mark.needs_sshd

_TRIES = 5
# Of the time that the edit takes, so much at most goes by until another is answered.
_SHARE = 0.3


async def longest_wait(other: Tools, edit: asyncio.Task[object]) -> float:
    """Return the longest wait of another client while it goes on, as part of that."""
    begun = time.monotonic()
    longest = 0.0
    while not edit.done():
        asked = time.monotonic()
        await other.told("ssh_hosts")
        longest = max(longest, time.monotonic() - asked)
    return longest / (time.monotonic() - begun)


async def test_nobody_waits_for_an_edit_that_misses(tmp_path: Path) -> None:
    """FI-06: the nearest lines in a large file were looked for while all waited."""
    chance = random.Random(2)

    def row() -> str:
        return ", ".join(chance.choice("01") for _ in range(60))

    path = tmp_path / "table"
    path.write_text("\n".join(row() for _ in range(20_000)))
    edits = [{"old": "\n".join(row()[:60] for _ in range(3)), "new": "x"}]
    shares: list[float] = []
    with host_of_files(tmp_path) as sshd, served(sshd) as world:
        async with tools(world) as ssh, tools(world) as other:
            desk = Desk(ssh, tmp_path)
            await desk.read(path)
            await other.told("ssh_hosts")
            for _ in range(_TRIES):
                edit = asyncio.create_task(
                    desk.refused("ssh_file_edit", path=str(path), edits=edits)
                )
                shares.append(await longest_wait(other, edit))
                assert (await edit)["reason"] == "EDIT_REFUSED"
    assert min(shares) < _SHARE, shares
