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
    monkeypatch.setattr(elicit, "SECONDS", 0.0)
    assert await forms.accepted(NEEDED) is False
    monkeypatch.setattr(elicit, "SECONDS", 20.0)
    second = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.sleep(0)
    shown[0].set_result({"action": "accept"})
    for _ in range(3):
        await asyncio.sleep(0)
    third = asyncio.create_task(forms.accepted(NEEDED))
    await asyncio.sleep(0)
    assert len(shown) == 2
    shown[1].set_result({"action": "accept"})
    assert await second
    assert await third
