"""What is remembered for a while holds nothing of the call that it was for."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from holdfast_daemon.file.writing import WriteAnswer
from holdfast_daemon.rpc.once import Once
from holdfast_daemon.transfer.sync.sync import Sync

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.transfer.sync.past import Begun

ANSWER = WriteAnswer("/there", 1, True, "00", 1, "")


class _Call:
    """What all of a call hangs on: its caller, its ticket, its channel."""


async def test_an_answer_that_is_remembered_does_not_keep_its_call() -> None:
    """NF-17, issue 6 point 8: thousands of them are remembered for ten minutes."""
    once = Once[WriteAnswer](lambda: 600, "another change of a file")
    current: contextvars.ContextVar[_Call] = contextvars.ContextVar("current")
    times = 0

    async def work() -> WriteAnswer:
        nonlocal times
        times += 1
        return ANSWER

    async def call() -> weakref.ref[_Call]:
        one = _Call()
        current.set(one)
        assert await once.do(("me", "r1"), [b"x"], work) is ANSWER
        return weakref.ref(one)

    held = await asyncio.create_task(call())
    await asyncio.sleep(0)
    gc.collect()
    assert held() is None
    assert await once.do(("me", "r1"), [b"x"], work) is ANSWER
    assert times == 1


async def test_what_takes_longer_than_it_is_remembered_is_done_once() -> None:
    """NF-17: the time ran from the beginning, so a second call did it beside itself."""
    once = Once[WriteAnswer](lambda: 0, "another change of a file")
    go, times = asyncio.Event(), 0

    async def work() -> WriteAnswer:
        nonlocal times
        times += 1
        await go.wait()
        return ANSWER

    first = asyncio.create_task(once.do(("me", "r1"), [b"x"], work))
    await asyncio.sleep(0.01)  # past its time
    second = asyncio.create_task(once.do(("me", "r1"), [b"x"], work))
    await asyncio.sleep(0)
    go.set()
    assert await first is await second is ANSWER
    assert times == 1
    await asyncio.sleep(0.01)
    await once.do(("me", "r1"), [b"x"], work)
    assert times == 2


class _Attempt:
    """Rsync's work, with the channel and the connection that it had."""

    def __init__(self, report: object) -> None:
        self.report = report


class _Sync(Sync):
    """One that has nothing to do."""

    held: weakref.ref[_Attempt]

    async def _work(self, job: Job, site: Site, known: Begun) -> None:
        del job, site, known
        attempt = _Attempt(self.report)
        self.held = weakref.ref(attempt)
        cast("Any", self)._attempt = attempt


async def test_a_sync_that_is_remembered_does_not_keep_its_connection() -> None:
    """Issue 6 point 8: the last 200 are, for who repeats a call."""
    request = SimpleNamespace(dry_run=True)
    caller = SimpleNamespace(person=True)
    sync = _Sync(
        cast("Any", request),
        cast("Any", None),
        {},
        caller=cast("Any", caller),
        tell=lambda **_: None,
    )
    report = sync.report
    job = SimpleNamespace(onward=None, interrupt=None)
    await sync(cast("Any", job), cast("Any", None))
    gc.collect()
    assert sync.held() is None
    assert sync.report is report
