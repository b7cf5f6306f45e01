"""How a host is asked that has not got the script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.kept import asking, script
from holdfast_daemon.kept.asking import Answer, Asking

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Host:
    shown = "box"


class _Tidied(Asking):
    """A host where others tidy up so often what was written; it does the rest."""

    def __init__(self, times: int) -> None:
        super().__init__(cast("Any", None), cast("Any", _Host()), cast("Any", None))
        ends = [script.ABSENT] * times
        self._ends: Iterator[int] = iter(ends)
        self.did: list[str] = []
        self.last: tuple[object, ...] = ()

    async def _run(
        self,
        operation: str,
        words: tuple[str, ...],
        stdin: bytes,
        *,
        urgent: bool = False,
    ) -> Answer:
        self.did.append(operation or "put")
        self.last = (words, stdin, urgent)
        code = next(self._ends, 0) if operation else 0
        return Answer(ChannelEnd(exit_code=code), b"", b"")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_FIRST", 0.001)
    monkeypatch.setattr(asking, "_MOST", 0.01)


@pytest.mark.parametrize("times", [0, 1, 5, 9])
async def test_what_others_tidy_is_written_again(times: int) -> None:
    """SE-08: many who find nothing there tidy at once, and a shell is begun beside."""
    host = _Tidied(times)
    assert (await host.ask("start")).end.exit_code == 0
    assert host.did == ["start", "put"] * times + ["start"]


async def test_a_host_that_keeps_nothing_is_told_in_the_end() -> None:
    """SE-08: its cache directory may be emptied by itself."""
    host = _Tidied(1000)
    with pytest.raises(StateError) as told:
        await host.ask("start")
    assert told.value.reason is Reason.NOT_KEPT
    assert 5 < len(host.did) < 30
