"""That a command never runs is said again to who lost the answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from fakes.links import Collector
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.kept import Kept

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]
SECONDS = 30


def runs_of(host: Kept) -> Runs:
    asking = host.keeper.asking
    return Runs(asking.pool, asking.host, asking.limits)


async def test_a_command_that_was_never_typed_is_not_waited_for_the_next_time(
    tmp_path: Path,
) -> None:
    """SE-02, NF-09: two links are lost: what typed it, and the answer to who asked."""
    async with kept_on(tmp_path) as kept:
        standing, _ = await kept.start("sone")
        runs, nonce = runs_of(kept), new_nonce()
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        async with asyncio.timeout(SECONDS):
            for _ in range(3):
                line = await runs.follow("sone", 1, nonce, (0, 0), Collector())
                end = await line.ended()
                assert (end.not_begun, end.exit_code) == (True, None), end
            # what was on its way all the time comes too late, and the next does not
            with pytest.raises(Exception, match="the command was not run"):
                await runs.start("sone", 1, nonce, family, "echo 1", Collector())
            sink = Collector()
            line = await runs.start("sone", 2, nonce, family, "echo 2", sink)
            end = await line.ended()
        line.forget()
        assert (end.exit_code, sink.out) == (0, b"2\n")


async def test_a_durable_command_that_never_began_is_said_so_each_time(
    tmp_path: Path,
) -> None:
    """NF-10: also where its name was taken by then."""
    async with kept_on(tmp_path) as kept:
        runs = runs_of(kept)
        async with asyncio.timeout(SECONDS):
            assert [await runs.ever("jone") for _ in range(3)] == [False] * 3
        # what is nothing but a name is not listed at once
        await kept.keeper.wipe("jone")
