"""Tells how a host is reached by now: who holds one may do so for weeks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.hosts.host import Host


class Renewal:
    """What a pool asks before it makes a connection.

    Attributes:
        ask: Returns how the same account is reached now; None: there is nobody to ask.
    """

    def __init__(self) -> None:
        self.ask: Callable[[Host], Awaitable[Host]] | None = None

    async def of(self, host: Host, link: Link | None) -> Host:
        """Return `host` as its next connection is made; `link`: it needs none."""
        if self.ask is None or link is not None:
            return host
        return await self.ask(host)
