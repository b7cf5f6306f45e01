from __future__ import annotations

import asyncio
import math
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.errors import DaemonError, InputError, LinkError, Reason
from holdfast_daemon.waiting.first import First
from holdfast_daemon.waiting.sight import Sight
from holdfast_daemon.waiting.thing import (
    Asked,
    ForwardIs,
    HostIs,
    JobEnds,
    PortOpens,
    SessionEnds,
    SessionPrints,
    SessionQuiet,
    read,
)

GOOD: list[tuple[dict[str, Any], object]] = [
    ({"job_id": " j1 "}, JobEnds("j1")),
    ({"session": "s"}, SessionPrints("s")),
    ({"session": "s", "until": " a "}, SessionPrints("s", " a ")),
    ({"session": "s", "quiet_seconds": 0.5}, SessionQuiet("s", 0.5)),
    ({"session": "s", "exited": True}, SessionEnds("s")),
    ({"target": "h", "state": "up"}, HostIs("h", up=True)),
    ({"target": "h", "state": "down"}, HostIs("h", up=False)),
    ({"target": "h", "port": 1}, PortOpens("h", 1)),
    ({"target": "h", "port": 65535}, PortOpens("h", 65535)),
    ({"forward": "f", "state": "up"}, ForwardIs("f", up=True)),
]


@pytest.mark.parametrize(("asked", "thing"), GOOD)
def test_one_thing_is_read(asked: dict[str, Any], thing: object) -> None:
    """NF-11."""
    assert read(Asked(**asked), "any_of[0]") == thing


texts = st.sampled_from(["", "x", "up", "down"])
anything = st.builds(
    Asked,
    job_id=texts,
    session=texts,
    until=texts,
    quiet_seconds=st.none() | st.floats(),
    exited=st.booleans(),
    target=texts,
    port=st.none() | st.integers(0, 2**32 - 1),
    forward=texts,
    state=texts,
)


def outcome(asked: Asked) -> object:
    try:
        return read(asked, "any_of[3]")
    except InputError as error:
        return error


@given(anything)
def test_an_entry_is_one_thing_or_refused(asked: Asked) -> None:
    """NF-11: nothing that was asked for is left out without a word."""
    thing = outcome(asked)
    if isinstance(thing, InputError):
        assert "any_of[3]" in thing.message
        assert thing.metadata["field"].startswith("any_of[3]")
        return
    given_ = [
        name
        for name, value in asked._asdict().items()
        if value not in ("", None, False)
    ]
    assert len(given_) <= 2
    if isinstance(thing, SessionQuiet):
        assert 0 < thing.seconds < math.inf


class Thing:
    """Comes, fails, or can't come any more, when a test says so."""

    def __init__(self, what: str, *, came: bool = False, slow: bool = False) -> None:
        self.what = what
        self.came = came
        self.seen = asyncio.Event()
        if not slow:
            self.seen.set()
        self.over = asyncio.Event()
        self.error: DaemonError | None = None

    async def look(self) -> None:
        await self.seen.wait()
        if self.error is not None:
            raise self.error

    async def come(self) -> None:
        await self.over.wait()

    def sight(self) -> Sight:
        return Sight("here" if self.came else "away", self.came)

    def arrive(self) -> None:
        self.came = True
        self.over.set()


async def passed(first: First, seconds: float, look_seconds: float = 0) -> int:
    """Wait, and return how many signs of life came."""
    count = 0
    waiting = first.wait(seconds, look_seconds=look_seconds, interval=0.01)
    async with asyncio.timeout(40), aclosing(waiting):
        async for _ in waiting:
            count += 1
    return count


async def test_the_first_that_comes_ends_it() -> None:
    one, two = Thing("one"), Thing("two")
    first = First([one, two])
    asyncio.get_running_loop().call_later(0.05, two.arrive)
    assert await passed(first, 9) > 0
    assert (first.index, first.hopeless) == (1, False)


async def test_of_two_that_came_the_one_named_first_is_told() -> None:
    first = First([Thing("a"), Thing("b", came=True), Thing("c", came=True)])
    await passed(first, 0)
    assert first.index == 1


async def test_each_is_looked_at_even_without_time() -> None:
    slow = Thing("slow", slow=True)
    first = First([Thing("one"), slow])

    def arrive() -> None:
        slow.came = True
        slow.seen.set()

    asyncio.get_running_loop().call_later(0.05, arrive)
    await passed(first, 0, look_seconds=9)
    assert first.index == 1


async def test_one_that_can_not_come_any_more_does_not_end_it() -> None:
    gone, comes = Thing("gone"), Thing("comes")
    gone.over.set()
    first = First([gone, comes])
    asyncio.get_running_loop().call_later(0.05, comes.arrive)
    await passed(first, 9)
    assert (first.index, first.hopeless) == (1, False)
    first = First([gone])
    await passed(first, 9)
    assert (first.index, first.hopeless) == (None, True)


async def test_one_that_came_and_went_again_at_once_has_come() -> None:
    """NF-11: a session that was quiet for long enough and printed just then.

    On BUGGY code: it could come no more, and nobody was told that it had.
    """
    brief, loop = Thing("brief"), asyncio.get_running_loop()

    def blink() -> None:
        brief.arrive()
        loop.call_soon(setattr, brief, "came", False)

    loop.call_later(0.05, blink)
    first = First([Thing("one"), brief])
    await passed(first, 9)
    assert (first.index, first.hopeless) == (1, False)


async def test_a_failure_is_told_unless_another_came() -> None:
    bad = Thing("bad")
    bad.error = LinkError(Reason.CONNECTION_LOST, "no")
    with pytest.raises(LinkError):
        await passed(First([Thing("one"), bad]), 9)
    first = First([bad, Thing("two", came=True)])
    await passed(first, 9)
    assert first.index == 1


async def test_it_can_be_stopped() -> None:
    first = First([Thing("one")])
    why = LinkError(Reason.DRAINING, "stopping")
    asyncio.get_running_loop().call_later(0.05, first.stop, why)
    with pytest.raises(LinkError, match="stopping"):
        await passed(first, 9)


async def test_nothing_is_left_behind() -> None:
    before = len(asyncio.all_tasks())
    first = First([Thing("one"), Thing("two", slow=True)])
    await passed(first, 0.03)
    assert (first.index, first.hopeless) == (None, False)
    assert len(asyncio.all_tasks()) == before
