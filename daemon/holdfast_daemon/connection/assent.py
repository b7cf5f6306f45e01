"""Has the rules asked again for whoever waited for a connection.

A person who logs in takes their time, and the rules may be others afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.entry import Wish
    from holdfast_daemon.hosts.host import Host

# Seconds: who has a connection sooner was let in just now, by the same rules.
_LONG = 0.1


class Since(NamedTuple):
    """When a wait began, and the rules of then."""

    at: float
    rules: object


def _none() -> object:
    return None


class Assent:
    """What a pool does before it gives a connection to one who waited for it."""

    def __init__(self, clock: Clock) -> None:
        self._ask: Callable[[Host], Awaitable[None]] | None = None
        self._rules: Callable[[], object] = _none
        self._clock = clock

    def go_by(
        self, ask: Callable[[Host], Awaitable[None]], rules: Callable[[], object]
    ) -> None:
        """Ask `ask`, which raises when the call at work may not reach a host any more.

        `rules` returns what they are made of: another thing when they are changed.
        """
        self._ask, self._rules = ask, rules

    def now(self) -> Since:
        """Return when a wait begins."""
        return Since(self._clock.monotonic(), self._rules())

    async def confirm(
        self, wish: Wish, since: Since, give_back: Callable[[], None]
    ) -> None:
        """Return when `wish` may have what it waited for `since` then.

        What is urgent always may: it ends something.

        Raises:
            DaemonError: It may not, and what it had was given back.
        """
        waited = self._clock.monotonic() - since.at
        same = waited <= _LONG and self._rules() is since.rules
        if self._ask is None or wish.urgent or same:
            return
        try:
            await self._ask(wish.host)
        except BaseException:
            give_back()
            raise
