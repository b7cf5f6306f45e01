"""Output without end: memory stays flat, disks stay capped, and others are served.

HOLDFAST_ENDLESS_SECONDS says for how long (`make soak`: 60). How soon others are served
counts only there: a machine that runs other tests too is no measure.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import memory, moment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

ENDLESS = float(os.environ.get("HOLDFAST_ENDLESS_SECONDS", "2.5"))
SOAK = "HOLDFAST_ENDLESS_SECONDS" in os.environ
SECONDS = 60 + ENDLESS * 3
MIB = 1024 * 1024
# Small enough to be met many times over.
KEPT, SPOOL, RECORDED = 2 * MIB, 2 * MIB, MIB
LIMITS = (
    f"{QUICK}kept_bytes = {KEPT}\nspool_bytes = {SPOOL}\n"
    f"recording_bytes = {RECORDED}\ntranscript_bytes = {RECORDED}\n"
)
# What is on its way: a backlog, segments that are half discarded, records.
SLACK = 4 * MIB
# Of the daemon, once it has been at it for a moment: it holds no output of long ago.
GROWTH = 24 * MIB
P99 = 0.050

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={tmp_path}/sshd"}) as one:
        yield one


def on_disk(directory: Path) -> int:
    """Return what files below it take; holes take nothing."""
    total = 0
    for where, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(f"{where}/{name}").st_blocks * 512
    return total


class Watch:
    """The most that there was of everything."""

    def __init__(self, world: World, host: Sshd, job: str) -> None:
        self._world = world
        # not those of the other commands, of which there are many small ones
        jobs = [world.state / "jobs" / job] if job else []
        self._loud = [world.state / "sessions", *jobs]
        self._host = host
        self.memory: list[int] = []
        self.here = 0
        self.there = 0

    async def look(self) -> None:
        """Look now and then, until cancelled."""
        while True:
            await asyncio.to_thread(self._once)
            await asyncio.sleep(0.2)

    def _once(self) -> None:
        self.memory.append(memory(self._world.pid))
        self.here = max(self.here, sum(map(on_disk, self._loud)))
        self.there = max(self.there, on_disk(self._host.directory / ".cache"))

    @property
    def growth(self) -> int:
        """How much more there was later than when it had begun."""
        begun = max(1, len(self.memory) // 5)
        return max(self.memory[begun:]) - max(self.memory[:begun])


async def served_others(ssh: Tools, seconds: float) -> list[float]:
    """Run commands in another session; return how long each took."""
    took: list[float] = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end:
        told = await ssh.told("ssh_session_run", session="other", command="echo here")
        took.append(time.monotonic() - begun)
        assert (told["stdout"], told["exit_code"]) == ("here\n", 0)
        await asyncio.sleep(0.02)
    return took


@pytest.mark.parametrize("how", ["typed", "run"])
async def test_output_without_end_harms_nobody(host: Sshd, how: str) -> None:
    """EX-13, SE-12: flat memory, capped disks on both sides, others at once."""
    with served(host, limits=LIMITS) as world:
        async with tools(world) as ssh, tools(world) as loud:
            for name in ("other", "loud"):
                await ssh.told(
                    "ssh_session_open",
                    target="box",
                    session_name=name,
                    durability="remote",
                )
            quiet = sorted(await served_others(ssh, 1 + ENDLESS / 10))
            job = await begin(loud, how)
            watch = Watch(world, host, job)
            looking = asyncio.create_task(watch.look())
            took = await served_others(ssh, ENDLESS)
            # so much that it would show if it were kept
            while await discarded(loud, job) < GROWTH + SPOOL:
                took += await served_others(ssh, 0.5)
            took.sort()
            looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await looking
            printed = await discarded(loud, job) + SPOOL
            await stop(loud, job)
            await check_usable(loud)
            for name in ("other", "loud"):
                await ssh.told("ssh_session_close", session=name, force=True)
            p99 = took[int(len(took) * 0.99)]
            figures = (
                f"{how}: {printed / MIB:.0f} MiB in {ENDLESS:g} s; memory"
                f" {max(watch.memory) / MIB:.1f} MiB, of which {watch.growth / MIB:.1f}"
                f" came later; here {watch.here / MIB:.1f}, there"
                f" {watch.there / MIB:.1f} MiB; {len(took)} others, p99"
                f" {p99 * 1000:.1f} ms, worst {took[-1] * 1000:.1f} ms; before it began"
                f" {quiet[int(len(quiet) * 0.99)] * 1000:.1f} ms"
            )
            print(figures)  # noqa: T201  `make soak` shows them
            assert watch.growth <= GROWTH, figures
            assert watch.here <= SPOOL + 2 * RECORDED + SLACK, figures
            assert watch.there <= KEPT + SLACK, figures
            if SOAK:
                assert p99 <= P99, figures


async def begin(loud: Tools, how: str) -> str:
    """Have `yes` print for ever; return its job, where it is one."""
    if how == "typed":
        await loud.told(
            "ssh_session_write", session="loud", input="yes\n", wait_seconds=0
        )
        return ""
    told = await loud.told(
        "ssh_session_run",
        session="loud",
        command="yes",
        wait_seconds=0,
        timeout_seconds=0,
    )
    return str(told["job_id"])


async def discarded(loud: Tools, job: str) -> int:
    """Return how much of what it printed is gone again."""
    if job:
        told = await loud.read(job, max_output_chars=0)
    else:
        told = await loud.told("ssh_session_read", session="loud", max_output_chars=0)
    return int(told["earliest_offset"])


async def stop(loud: Tools, job: str) -> None:
    """End it, as a user does."""
    if job:
        # its end may be behind what was printed before
        await loud.stop(job)
        assert (await loud.ended(job))["status"] == "cancelled"
    else:
        await loud.told(
            "ssh_session_write", session="loud", input="\x03", wait_seconds=0
        )


async def check_usable(loud: Tools) -> None:
    """It is a session like any other again."""
    async with asyncio.timeout(40):
        while True:
            found = await loud.call(
                "ssh_session_run", session="loud", command="echo quiet"
            )
            if "isError" not in found:
                break
            error = found["structuredContent"]["error"]
            assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no"), error
            await moment()
    told = found["structuredContent"]
    assert (told["stdout"], told["exit_code"]) == ("quiet\n", 0)
