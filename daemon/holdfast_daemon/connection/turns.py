"""Whose turn it is to shake hands with a server: so many at once, per server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Hashable

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_Turn = asyncio.Future[None]


class Turns:
    """Budgets of handshakes; one lives only while somebody is in it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budgets: dict[Hashable, Budget[_Turn]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, host: Host, *, urgent: bool) -> AsyncGenerator[None]:
        """Wait for a turn and have it until the end of the block."""
        await self.take(host, urgent=urgent)
        try:
            yield
        finally:
            self.end(host)

    async def take(self, host: Host, *, urgent: bool) -> None:
        """Wait for a turn; have it until `end`."""
        budget = self._budgets.setdefault(host.server, Budget())
        turn: _Turn = asyncio.get_running_loop().create_future()
        if budget.enter(turn, self._limits.handshakes_per_host, urgent=urgent):
            return
        try:
            await turn
        except asyncio.CancelledError:
            if not budget.forget(turn):
                self.end(host)
            raise

    @property
    def taken(self) -> int:
        """How many handshakes are under way, with all servers."""
        return sum(budget.taken for budget in self._budgets.values())

    def crowded(self, host: Host) -> bool:
        """Whether others shake hands with that server, or wait to."""
        budget = self._budgets.get(host.server)
        return budget is not None and budget.taken > 1

    def end(self, host: Host) -> None:
        """Give a turn back."""
        budget = self._budgets[host.server]
        for following in budget.leave(self._limits.handshakes_per_host):
            # One that gave up in this moment gives its place back by itself.
            if not following.done():
                following.set_result(None)
        if budget.idle:
            del self._budgets[host.server]
