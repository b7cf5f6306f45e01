"""Forms that a client shows to a person."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast_shim import elicit
from holdfast_shim.elicit import Forms
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    import pytest

NEEDED = CallError("LOGIN_NEEDED", "a code", metadata={"name": "web1"})


async def test_a_late_answer_takes_no_newer_form_from_those_who_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AU-13: one form for each host, also after one that nobody answered in time."""
    shown: list[asyncio.Future[dict[str, Any]]] = []

    def send(_: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        shown.append(asyncio.get_running_loop().create_future())
        return shown[-1]

    forms = Forms(send)
    monkeypatch.setattr(elicit, "SECONDS", 20.0)
    first = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.sleep(0)
    monkeypatch.setattr(elicit, "SECONDS", 0.0)
    assert await forms.accepted(NEEDED) is False
    monkeypatch.setattr(elicit, "SECONDS", 20.0)
    second = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.sleep(0)
    shown[0].set_result({"action": "accept"})
    assert await first
    third = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.sleep(0)
    assert len(shown) == 2
    shown[1].set_result({"action": "accept"})
    assert await second
    assert await third


async def test_a_form_goes_with_the_last_who_waits() -> None:
    """AU-13, PK-06: a call that found one just taken back would never be answered."""
    shown: list[asyncio.Future[dict[str, Any]]] = []

    def send(_: dict[str, Any]) -> asyncio.Future[dict[str, Any]]:
        shown.append(asyncio.get_running_loop().create_future())
        return shown[-1]

    forms = Forms(send)
    two = [asyncio.create_task(forms.accepted(NEEDED)) for _ in range(2)]
    await asyncio.sleep(0)
    two[0].cancel()
    await asyncio.gather(two[0], return_exceptions=True)
    assert not shown[0].done()
    two[1].cancel()
    # Runs behind the cancelled one, before anybody heard of that.
    next_ = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.gather(two[1], return_exceptions=True)
    await asyncio.sleep(0)
    assert shown[0].cancelled()
    shown[1].set_result({"action": "accept"})
    assert await next_
