"""A host that is away for longer than anybody counts to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fakes.kept import Reading, kept_on
from fakes.watch import soon
from holdfast_daemon.kept import follower

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.kept.line import Line

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

# A pause that doubled each time would be longer than a float holds.
_LOOKS = 1100


async def test_what_was_looked_for_all_night_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09, SE-11: at half a minute a look this takes nine hours."""
    monkeypatch.setattr(follower, "_FIRST", 0.0005)
    monkeypatch.setattr(follower, "_MOST", 0.001)
    async with kept_on(tmp_path) as kept:
        _, nonce = await kept.start("sone")
        looks, attach = 0, kept.keeper.attach

        async def counted(*given: Any, **more: Any) -> Line:
            nonlocal looks
            looks += 1
            return await attach(*given, **more)

        monkeypatch.setattr(kept.keeper, "attach", counted)
        reading = Reading(kept, "sone", nonce)
        try:
            await reading.follower.attached()
            kept.sshd.stop()
            await soon(lambda: looks > _LOOKS, "it was looked for often", 60)
            assert reading.follower.away
            kept.sshd.start()
            await reading.follower.attached()
            await reading.follower.write(b"echo ba''ck\n")
            await soon(lambda: b"back" in reading.data, "it goes on")
        finally:
            await reading.follower.close()
