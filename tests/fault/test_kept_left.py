"""A shell that ends, and what it leaves in the background with its terminal open."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import pytest

from fakes.kept import KINDS, Reading, kept_on
from fakes.watch import alive, soon

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.kept.standing import Kind

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


@pytest.mark.parametrize("kind", KINDS)
async def test_its_end_is_told_though_something_goes_on(
    tmp_path: Path, kind: Kind
) -> None:
    """SE-08, SE-11: where python3 has the terminal the session ran on for days."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone", kind)
        line, said = await kept.attach("sone", nonce)
        await line.write(b"sleep 90 & echo $! >~/left; echo be''gun\n")
        await said.wait_for(b"begun")
        left = int((tmp_path / "left").read_text())
        await line.write(b"disown -a; echo la''st; exit 3\n")
        try:
            async with asyncio.timeout(40):
                end = await line.ended()
        finally:
            os.kill(left, signal.SIGKILL)
        assert (end.kind, end.exit_code) == ("exited", 3)
        assert b"last" in said.out


async def test_an_end_that_its_full_disk_did_not_take_is_one(tmp_path: Path) -> None:
    """SE-08, SE-11: it was attached again for ever, and never told to have ended."""
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone")
        line, _ = await kept.attach("sone", nonce)
        pump = kept.number("sone", "pump")
        await line.write(b"echo la''st; exit 3\n")
        place = kept.room / "sone"
        await soon(lambda: (place / "rc").exists() and not alive(pump), "it ended")
        line.close()
        out = (place / "out").read_bytes()
        # its code is written down, and what told of it in its output is lost
        before = out.index(b"\x1eholdfast-end:")
        os.truncate(place / "out", before)
        reading = Reading(kept, "sone", nonce)
        try:
            async with asyncio.timeout(40):
                end = await reading.follower.ended()
        finally:
            await reading.follower.close()
        assert (end.kind, end.exit_code, end.signal) == ("none", None, None)
        assert "disk was full" in end.why
        assert (reading.data, reading.times_away) == (out[:before], 0)
