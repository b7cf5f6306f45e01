"""Everyone who takes part is told all, in order; who stalls costs nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.exec.job import Status
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.session.frame import (
    Ended,
    KeyboardChanged,
    Printed,
    RunBegan,
    RunEnded,
    RunPrinted,
)
from holdfast_daemon.session.watch import Watchers
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    from holdfast_daemon.session.frame import Frame

MIB = 1024 * 1024


@pytest.fixture
async def spool(tmp_path: Path) -> AsyncIterator[Spool]:
    one = Spool(
        tmp_path / "out", limit_bytes=MIB, segment_bytes=MIB // 8, backlog_bytes=MIB
    )
    yield one
    await one.remove()


async def some(watched: AsyncGenerator[Frame], count: int) -> list[Frame]:
    async with asyncio.timeout(30):
        return [await anext(watched) for _ in range(count)]


async def test_what_happens_stands_between_what_was_printed(spool: Spool) -> None:
    """NF-05: also for one who reads it much later."""
    watchers = Watchers(spool)
    spool.append(Stream.OUT, b"old")
    held = KeyboardChanged("claude", "i")
    watched = watchers.watch(1, [held])
    assert await some(watched, 2) == [held, Printed(b"ld", 3)]
    spool.append(Stream.OUT, b"$ ")
    watchers.tell(RunBegan("j1", "claude", "make"))
    watchers.tell(RunPrinted("j1", b"ok"))
    spool.append(Stream.OUT, b"$ ")
    watchers.tell(RunEnded("j1", Status.EXITED, 0))
    assert await some(watched, 5) == [
        Printed(b"$ ", 5),
        RunBegan("j1", "claude", "make"),
        RunPrinted("j1", b"ok"),
        Printed(b"$ ", 7),
        RunEnded("j1", Status.EXITED, 0),
    ]
    coming = asyncio.create_task(some(watched, 1))
    await asyncio.sleep(0)
    spool.append(Stream.OUT, b"x")
    assert await coming == [Printed(b"x", 8)]
    coming = asyncio.create_task(some(watched, 1))
    await asyncio.sleep(0)
    watchers.tell(Ended("exited", 3))
    assert await coming == [Ended("exited", 3)]
    with pytest.raises(StopAsyncIteration):
        await anext(watched)
    assert len(watchers) == 0


async def test_an_ended_session_is_shown_and_over(spool: Spool) -> None:
    watchers = Watchers(spool)
    spool.append(Stream.OUT, b"bye")
    spool.close()
    watched = watchers.watch(0, [Ended("exited", 0)])
    got = [frame async for frame in watched]
    assert got == [Printed(b"bye", 3), Ended("exited", 0)]


async def test_a_closed_output_waits_for_the_end_without_spinning(spool: Spool) -> None:
    watchers = Watchers(spool)
    spool.close()
    watched = watchers.watch(0)
    coming = asyncio.create_task(some(watched, 1))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not coming.done()
    watchers.tell(Ended("signalled", signal="KILL"))
    assert await coming == [Ended("signalled", signal="KILL")]


async def test_who_stalls_loses_output_of_commands_and_nothing_else(
    spool: Spool,
) -> None:
    """NF-03: bounded, and what is missing is told."""
    watchers = Watchers(spool)
    watched = watchers.watch(0, [KeyboardChanged()])
    await anext(watched)
    watchers.tell(RunBegan("j1", "claude", "yes"))
    piece = b"y" * 65536
    for _ in range(64):
        watchers.tell(RunPrinted("j1", piece))
    watchers.tell(RunEnded("j1", Status.SIGNALLED, signal="INT"))
    watchers.tell(Ended("closed"))
    got = [frame async for frame in watched]
    printed = [frame for frame in got if isinstance(frame, RunPrinted)]
    assert len(printed) <= 16
    assert sum(len(f.data) + f.skipped for f in printed) == 64 * len(piece)
    assert got[0] == RunBegan("j1", "claude", "yes")
    assert got[-2:] == [
        RunEnded("j1", Status.SIGNALLED, signal="INT"),
        Ended("closed"),
    ]


async def test_output_that_was_discarded_is_counted(spool: Spool) -> None:
    watchers = Watchers(spool)
    total = 0
    for _ in range(48):
        spool.append(Stream.OUT, b"z" * 65536)
        total += 65536
        await spool.sync()
    spool.close()
    watched = watchers.watch(0)
    frames: list[Printed] = []
    async with asyncio.timeout(30):
        while not frames or frames[-1].offset < total:
            frame = await anext(watched)
            assert isinstance(frame, Printed)
            frames.append(frame)
    await watched.aclose()
    assert sum(len(f.data) + f.skipped for f in frames) == total
    assert frames[0].skipped > 0
