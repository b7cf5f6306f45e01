"""How often a host is told that what ended there can go, and when not."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest

from fakes.watch import moment
from holdfast_daemon.connection.pauses import Pauses
from holdfast_daemon.errors import (
    DaemonError,
    LinkError,
    NeedsError,
    Reason,
    StateError,
)
from holdfast_daemon.kept import farewell
from holdfast_daemon.kept.farewell import Farewell

if TYPE_CHECKING:
    from collections.abc import Iterator

LOST = LinkError(Reason.CONNECTION_LOST, "cut")
LOGIN = NeedsError(Reason.LOGIN_NEEDED, "it asks for a code")
NOT_KEPT = StateError(Reason.NOT_KEPT, "nothing can be written there")


class _Host:
    account = "me@there"


class _Pool:
    """Says whether anybody is connected; the last word holds."""

    def __init__(self, *connected: bool) -> None:
        self._words = list(connected)
        self.asked = 0
        self.pauses = Pauses()

    def connected(self, account: object) -> bool:
        """Say so."""
        assert account == _Host.account
        self.asked += 1
        return self._words.pop(0) if len(self._words) > 1 else self._words[0]


class _Telling:
    """Fails in these ways, and works then."""

    def __init__(self, *errors: DaemonError) -> None:
        self._errors: Iterator[DaemonError] = iter(errors)
        self.times = 0

    async def __call__(self) -> None:
        """Tell the host."""
        self.times += 1
        for error in self._errors:
            raise error


def one(pool: _Pool, tell: _Telling, seconds: float = 60) -> Farewell:
    return Farewell(cast("Any", pool), cast("Any", _Host()), tell, seconds)


@pytest.fixture
def _slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "_FIRST", 1000.0)
    monkeypatch.setattr(farewell, "_MOST", 1000.0)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(farewell, "_FIRST", 0.001)
    monkeypatch.setattr(farewell, "_MOST", 0.01)


async def test_it_is_told_again_where_the_link_was_lost() -> None:
    """SE-08, NF-09: whether anybody is connected or not."""
    tell = _Telling(LOST, LinkError(Reason.HOST_UNREACHABLE, "no route"))
    assert await one(_Pool(False), tell).say("sone")
    assert tell.times == 3


async def test_it_is_given_up_in_the_end() -> None:
    """SE-08: what is left there is told in the log, and by its record."""
    tell = _Telling(*[LOST] * 10_000)
    assert not await one(_Pool(False), tell, 1).say("sone")
    assert 5 < tell.times < 1000


async def test_it_is_never_why_a_person_is_asked_to_log_in() -> None:
    """NF-07: a host that asks for a code is left alone until somebody logged in."""
    tell = _Telling(LOST, LOGIN)
    pool = _Pool(False, False, False, True)
    assert await one(pool, tell).say("sone")
    assert (tell.times, pool.asked) == (3, 4)
    tell = _Telling(LOGIN)
    assert not await one(_Pool(False), tell, 0.2).say("sone")
    assert tell.times == 1


async def test_who_disconnected_is_not_connected_again_for_it() -> None:
    """SE-08: it is told over the next connection that somebody makes."""
    tell, pool = _Telling(), _Pool(False, False, True)
    parting = one(pool, tell)
    parting.rest()
    assert await parting.say("sone")
    assert (tell.times, pool.asked) == (1, 3)


async def test_a_host_that_keeps_nothing_is_asked_once() -> None:
    """SE-08: there is nothing to be forgotten, or nobody to do it."""
    tell = _Telling(NOT_KEPT)
    assert not await one(_Pool(True), tell).say("sone")
    assert tell.times == 1


@pytest.mark.usefixtures("_slow")
async def test_a_nudge_makes_it_try_at_once() -> None:
    """NF-09: the network is back."""

    class _Nudging(_Telling):
        async def __call__(self) -> None:
            parting.nudge()
            await super().__call__()

    tell = _Nudging(LOST)
    parting = one(_Pool(True), tell)
    assert await parting.say("sone")
    assert tell.times == 2


@pytest.mark.usefixtures("_slow")
@pytest.mark.parametrize("late", [False, True])
async def test_the_short_connection_of_another_is_enough(late: bool) -> None:
    """SE-08: it came while this one paused, and was gone again before its end."""
    tell = _Telling(LOST) if late else _Telling()
    pool = _Pool(False, True)
    parting = one(pool, tell)
    if not late:
        parting.rest()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        said = group.create_task(parting.say("sone"))
        if late:
            await moment()
            assert tell.times == 1
            parting.rest()
        while not pool.asked:
            await moment()
        await moment()
        for account in ("other@there", _Host.account):
            assert not said.done()
            pool.pauses.connected(account)
            await moment()
    assert said.result()
