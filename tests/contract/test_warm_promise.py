"""Channels opened ahead are not lost with callers that go away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncssh
import pytest

from fakes.asyncssh_server import LOOPBACK, USER, Odd
from fakes.links import make_limits
from holdfast_daemon.connection.waiting import Carried, Start
from holdfast_daemon.connection.warm import Warm

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def warm() -> AsyncIterator[Warm]:
    """On a server whose channels no shell waits on."""
    async with (
        Odd() as odd,
        asyncssh.connect(
            LOOPBACK, odd.port, username=USER, known_hosts=None, config=None
        ) as connection,
    ):
        limits = make_limits(channels_waiting=1, channels_waiting_seconds=60)
        kept = Warm(
            connection,
            limits,
            Start(None),
            Carried(),
            room=lambda: 10,
            calm=lambda: True,
        )
        yield kept
        kept.close()


async def test_a_channel_promised_to_a_caller_that_goes_away_is_kept(
    warm: Warm,
) -> None:
    """Issue 3 point 5: cancelled in the moment it came, it was open for nobody."""
    start = Start(b"nothing")
    assert await warm.take(start) is None
    before = asyncio.all_tasks()
    warm.fill()
    (opening,) = asyncio.all_tasks() - before
    caller = asyncio.create_task(warm.take(start))
    # runs right after the channel was promised, before the caller can
    await asyncio.sleep(0)
    opening.add_done_callback(lambda _: caller.cancel())
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert opening.done()
    assert warm.count == 1
    kept = await warm.take(start)
    assert kept is not None
    assert kept.usable


async def test_a_caller_that_went_away_before_leaves_the_channel_to_the_next(
    warm: Warm,
) -> None:
    """Issue 3 point 5."""
    start = Start(b"nothing")
    assert await warm.take(start) is None
    before = asyncio.all_tasks()
    warm.fill()
    (opening,) = asyncio.all_tasks() - before
    first = asyncio.create_task(warm.take(start))
    second = asyncio.create_task(warm.take(start))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    # one promise for one channel: the second opens its own
    assert await second is None
    async with asyncio.timeout(40):
        await opening
    assert warm.count == 1
