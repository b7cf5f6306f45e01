"""Numbers of commands that never were, and the daemon that comes after."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from pathlib import Path

import pytest

from fakes.kept import kept_on
from fakes.links import Collector
from fakes.watch import soon
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


async def test_a_number_that_was_given_away_is_not_the_next(tmp_path: Path) -> None:
    """SE-02, NF-01: who asks for the last number can tell its shell the next one."""
    async with kept_on(tmp_path) as kept:
        standing, _ = await kept.start("sone")
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        async with asyncio.timeout(40):
            # its link was lost, and this daemon ends before another command
            line = await runs.follow("sone", 1, new_nonce(), (0, 0), Collector())
            assert (await line.ended()).not_begun
            latest = await runs.latest("sone")
            assert latest is not None
            sink = Collector()
            line = await runs.start(
                "sone", latest.number + 1, new_nonce(), family, "echo ran", sink
            )
            assert (await line.ended()).exit_code == 0
        line.forget()
        assert sink.out == b"ran\n"


def led_by(leader: int) -> list[int]:
    """Return the processes of a session of processes, the leader last."""
    found = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    return sorted((one for one in found if sid(one) == leader), reverse=True)


def sid(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


async def test_what_a_full_disk_did_not_note_is_ended_too(tmp_path: Path) -> None:
    """SE-06: its number could not be written down, and its holder was killed."""
    async with kept_on(tmp_path) as kept:
        standing, _ = await kept.start("sone")
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        await runs.prime("sone", wrapper.family(standing.shell))
        noted = kept.room / "sone" / "slots"
        await soon(noted.exists, "its number is noted")
        noted.unlink()
        os.kill(kept.number("sone", "shpid"), signal.SIGSTOP)
        for one in led_by(kept.number("sone", "pid")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        # the end of the block finds out whether anything stays
        await kept.keeper.wipe("sone")
