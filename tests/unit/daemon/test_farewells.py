"""What is still due to hosts whose connections are to be closed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

from fakes.watch import moment
from holdfast_daemon.connection import farewells
from holdfast_daemon.connection.farewells import Farewells

if TYPE_CHECKING:
    import pytest

    from holdfast_daemon.hosts.host import Host


class _Host:
    def __init__(self, account: str, through: str = "") -> None:
        self.account = account
        self._through = through

    def needs(self, other: _Host) -> bool:
        """Whether it is that one, or behind it."""
        return other.account in {self.account, self._through}


class _Telling:
    def __init__(self, host: _Host) -> None:
        self.host = cast("Host", host)
        self.over = asyncio.Event()
        self.did: list[str] = []

    def nudge(self) -> None:
        """Note it."""
        self.did.append("nudge")

    def rest(self) -> None:
        """Note it."""
        self.did.append("rest")


BOX = _Host("box")
BEHIND = _Host("behind", "box")
OTHER = _Host("other")


def host(one: _Host) -> Any:
    return cast("Any", one)


async def test_who_parts_waits_for_what_can_be_told() -> None:
    """SE-08: a durable command's end, too, before its connection is closed."""
    due = Farewells(lambda account: account != "behind")
    mine, behind, other = _Telling(BOX), _Telling(BEHIND), _Telling(OTHER)
    with due.due(behind), due.due(other):
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            with due.due(mine):
                parting = group.create_task(due.part(host(BOX)))
                await moment()
                assert mine.did == ["nudge"]
                assert not parting.done()
        assert mine.did == ["nudge", "rest"]
        # it can't be told anything now, and makes no connection for it either
        assert behind.did == ["rest"]
        assert other.did == []
    assert mine.over.is_set()


async def test_nobody_waits_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-08: a host that does not answer is told over the next connection."""
    monkeypatch.setattr(farewells, "_PARTING_SECONDS", 0.01)
    monkeypatch.setattr(farewells, "_STOPPING_SECONDS", 0.01)
    due = Farewells(lambda _: True)
    mine = _Telling(BOX)
    with due.due(mine):
        await due.part(host(BOX))
        await due.stop()
    assert mine.did == ["nudge", "rest", "nudge"]


async def test_hosts_that_may_be_there_again_are_told_now() -> None:
    """NF-09: one that was reached, or all after a sleep."""
    due = Farewells(lambda _: False)
    mine, other = _Telling(BOX), _Telling(OTHER)
    with due.due(mine), due.due(other):
        due.nudge(host(BOX))
        assert (mine.did, other.did) == (["nudge"], [])
        due.nudge()
    assert (mine.did, other.did) == (["nudge", "nudge"], ["nudge"])
