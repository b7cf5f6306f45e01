"""Work in threads: what it opened for somebody who gave up is closed."""

from __future__ import annotations

import asyncio
import os
import threading
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.transfer.means.apart import GivenUp, apart, both, heed, taken

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio


async def cancelled(task: asyncio.Task[int], gate: threading.Event) -> None:
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done(), "it waits for its thread"
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_was_opened_for_nobody_is_closed(tmp_path: Path) -> None:
    """NF-15: its number was never closed."""
    begun, gate = asyncio.Event(), threading.Event()
    loop, opened = asyncio.get_running_loop(), list[int]()

    def work() -> int:
        loop.call_soon_threadsafe(begun.set)
        gate.wait(10)
        opened.append(os.open(tmp_path, os.O_RDONLY))
        return opened[0]

    task = asyncio.ensure_future(taken(os.close, work))
    await begun.wait()
    await cancelled(task, gate)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


async def test_what_is_taken_stays_open(tmp_path: Path) -> None:
    file = await taken(os.close, os.open, tmp_path, os.O_RDONLY)
    os.fstat(file)
    os.close(file)


async def test_long_work_hears_that_it_was_given_up() -> None:
    begun = asyncio.Event()
    loop, why = asyncio.get_running_loop(), list[Exception]()

    def work() -> int:
        loop.call_soon_threadsafe(begun.set)
        try:
            while True:
                heed()
        except GivenUp as error:
            why.append(error)
            raise

    task = asyncio.ensure_future(apart(work))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(why) == 1
    await apart(heed)


async def test_both_have_ended_before_one_s_failure_is_told() -> None:
    """A file is not closed while the other still writes it."""
    gate, ended = threading.Event(), list[str]()

    def fail() -> None:
        raise OSError(28, "no space")

    def work() -> None:
        gate.wait(10)
        ended.append("work")

    task = asyncio.ensure_future(both(apart(fail), apart(work)))
    await asyncio.wait({task}, timeout=0.1)
    assert not task.done()
    gate.set()
    with pytest.raises(OSError, match="no space"):
        await task
    assert ended == ["work"]
    with pytest.raises(OSError, match="no space"):
        await both(apart(work), apart(fail))


async def test_both_have_ended_before_somebody_gives_up() -> None:
    gate, ended = threading.Event(), list[str]()

    def work(name: str) -> None:
        gate.wait(10)
        ended.append(name)

    async def all_of_it() -> int:
        await both(apart(work, "one"), apart(work, "other"))
        return 0

    task = asyncio.ensure_future(all_of_it())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await cancelled(task, gate)
    assert sorted(ended) == ["one", "other"]
