"""What hosts are still to be told of what ended there."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    from holdfast_daemon.hosts.host import Host

# Who disconnects waits so long for what hosts are being told.
_PARTING_SECONDS = 8.0
# The same for a daemon that stops: the next one goes on with it.
_STOPPING_SECONDS = 0.5


class Telling(Protocol):
    """One of them.

    Attributes:
        host: Who is told.
        over: Set once it is said, or given up.
    """

    host: Host
    over: asyncio.Event

    def nudge(self) -> None:
        """Try again now."""
        ...

    def rest(self) -> None:
        """Make no connection for it any more."""
        ...


class Farewells:
    """Those under way, to be heard before connections are closed."""

    def __init__(self, connected: Callable[[Hashable], bool]) -> None:
        """Ask `connected` whether an account can be told anything now."""
        self._connected = connected
        self._due: list[Telling] = []

    @contextlib.contextmanager
    def due(self, one: Telling) -> Generator[None]:
        """Count it in until the block ends."""
        self._due.append(one)
        try:
            yield
        finally:
            self._due.remove(one)
            one.over.set()

    async def part(self, host: Host) -> None:
        """Let `host` be told what is due before its connections are closed."""
        due = [one for one in self._due if one.host.needs(host)]
        await self._said(due, _PARTING_SECONDS)
        for one in due:
            one.rest()

    async def stop(self) -> None:
        """Let what can be told at once be told."""
        await self._said([*self._due], _STOPPING_SECONDS)

    def nudge(self, host: Host | None = None) -> None:
        """Try again now where that waits: `host`, or any, may be there again."""
        for one in self._due:
            if host is None or one.host.account == host.account:
                one.nudge()

    async def _said(self, due: list[Telling], seconds: float) -> None:
        told = [one for one in due if self._connected(one.host.account)]
        for one in told:
            one.nudge()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for one in told:
                    await one.over.wait()
