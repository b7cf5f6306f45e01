"""A host that goes down at once, before its disk has what was written to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from fakes.links import Collector
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.runs import Program, Runs, new_nonce

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


@pytest.mark.parametrize("gone", ["typed", ""])
async def test_what_may_have_brought_it_down_is_not_told_never_to_have_run(
    tmp_path: Path, gone: str
) -> None:
    """SE-02, NF-09: "run it again" was the advice, and down it went again."""
    async with kept_on(tmp_path) as kept:
        standing, _ = await kept.start("sone")
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        nonce, sink = new_nonce(), Collector()
        async with asyncio.timeout(40):
            line = await runs.start("sone", 1, nonce, family, "echo go; cat", sink)
            await sink.wait_for(b"go")
            line.close()
            place = kept.room / "sone"
            boot = (place / "boot").read_text()
            (place / "boot").write_text("another\n")
            if gone:
                (place / "r" / "1" / gone).unlink()
            else:
                # at once: what runs there writes into it still
                (place / "r" / "1").rename(tmp_path / "gone")
            line = await runs.follow("sone", 1, nonce, (0, 0), Collector())
            end = await line.ended()
            # what is left of it here can be ended then
            (place / "boot").write_text(boot)
        assert (end.not_begun, end.exit_code, end.gone) == (False, None, False), end
        assert end.lost


async def test_a_durable_command_that_may_have_brought_it_down(tmp_path: Path) -> None:
    """NF-10: the same, where it is not known whether it was begun."""
    async with kept_on(tmp_path) as kept:
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        async with asyncio.timeout(40):
            await runs.begin("jone", new_nonce(), Program("sleep 300"))
            boot = (kept.room / "jone" / "boot").read_text()
            (kept.room / "jone" / "boot").write_text("another\n")
            (kept.room / "jone" / "r" / "1" / "typed").unlink()
            begun = await runs.ever("jone")
            (kept.room / "jone" / "boot").write_text(boot)
        assert begun
