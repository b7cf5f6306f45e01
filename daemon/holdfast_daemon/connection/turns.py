"""Whose turn it is to shake hands with a server: so many at once, per server."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Budget

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_Turn = asyncio.Future[None]


class Turns:
    """Budgets of handshakes; one lives only while somebody is in it."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budgets: dict[tuple[str, int], Budget[_Turn]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, host: Host, *, urgent: bool) -> AsyncGenerator[None]:
        """Wait for a turn and have it until the end of the block."""
        await self._take(host, urgent=urgent)
        try:
            yield
        finally:
            self._end(host)

    async def _take(self, host: Host, *, urgent: bool) -> None:
        budget = self._budgets.setdefault(host.place, Budget())
        turn: _Turn = asyncio.get_running_loop().create_future()
        if budget.enter(turn, self._limits.handshakes_per_host, urgent=urgent):
            return
        try:
            await turn
        except asyncio.CancelledError:
            if not budget.forget(turn):
                self._end(host)
            raise

    def _end(self, host: Host) -> None:
        budget = self._budgets[host.place]
        for following in budget.leave(self._limits.handshakes_per_host):
            # One that gave up in this moment gives its place back by itself.
            if not following.done():
                following.set_result(None)
        if budget.idle:
            del self._budgets[host.place]
