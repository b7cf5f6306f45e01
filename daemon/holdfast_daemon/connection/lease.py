"""The right to use a connection for a while; moves to another when that one is full."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, Self, TypeVar

from holdfast_daemon.connection.failure import ChannelRefused, LinkGone

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from holdfast_daemon.connection.channel import Channel, Sink, Terminal
    from holdfast_daemon.connection.entry import Entry, Wish
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.connection.standby import Awaited, Script
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.hosts.host import Host

T = TypeVar("T")

# Every refusal lowers what a connection is known to carry, so this ends soon.
_MOVES = 12
# sshd clears a channel away some time after it has said that it closed it.
_PAUSES = (0.01, 0.03, 0.1, 0.3)


class Seats(Protocol):
    """What a lease asks of the pool that gave it."""

    async def another(self, lease: Lease, error: DaemonError) -> Entry:
        """Return a seat on another connection, for one that refused or went away.

        Raises:
            DaemonError: There is none, or too many in a row went away unused.
        """
        ...

    def give_back(self, entry: Entry) -> None:
        """Take back a seat."""
        ...


class Lease:
    """One seat on a connection; leave it by `async with` or `release`."""

    def __init__(self, seats: Seats, wish: Wish, entry: Entry, *, reused: bool) -> None:
        self._seats = seats
        self._released = False
        self.wish = wish
        self.entry = entry
        self.reused = reused

    async def __aenter__(self) -> Self:
        """Keep the seat until the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the seat back."""
        self.release()

    @property
    def host(self) -> Host:
        """Where it leads."""
        return self.wish.host

    @property
    def link(self) -> Link:
        """The connection it is on now."""
        link = self.entry.link
        if link is None:
            raise LinkGone(self.host, "it was not made")
        return link

    async def open(
        self,
        command: str | bytes | Script | Awaited | None,
        sink: Sink,
        *,
        terminal: Terminal | None = None,
        stdin: bytes = b"",
        eof: bool = False,
        fresh: bool = False,
    ) -> Channel:
        """Run `command` as `Link.open` does, elsewhere where this connection is full.

        Nothing that was sent is sent again: only channels the server did not open are
        asked for elsewhere.
        """
        return await self._somewhere(
            lambda link: link.open(
                command, sink, terminal=terminal, stdin=stdin, eof=eof, fresh=fresh
            )
        )

    async def facts(self) -> ShellFacts:
        """Find out about the login shell, for this connection and those that follow."""
        return await self._somewhere(lambda link: link.facts())

    async def _somewhere(self, ask: Callable[[Link], Awaitable[T]]) -> T:
        """Ask this connection, or another one where this one is full or gone."""
        for _ in range(_MOVES):
            link = self.link
            try:
                return await self._patiently(ask, link)
            except (ChannelRefused, LinkGone) as error:
                await self._move(link, error)
        return await ask(self.link)

    async def _patiently(self, ask: Callable[[Link], Awaitable[T]], link: Link) -> T:
        """Ask again where a refusal can only mean a channel not yet cleared away."""
        for again, pause in enumerate(_PAUSES):
            try:
                return await ask(link)
            except ChannelRefused:
                # one that waits is taken at the next try, if it suits
                if not link.waiting and link.channels >= link.peak:
                    raise
                if again:
                    link.spare()
                await asyncio.sleep(pause)
        return await ask(link)

    async def _move(self, link: Link, error: DaemonError) -> None:
        """Change to another connection, where that can help."""
        # A server that refuses the first channel refuses all of them.
        if self._released or (isinstance(error, ChannelRefused) and not link.peak):
            raise error
        self.entry = await self._seats.another(self, error)

    def release(self) -> None:
        """Give the seat back; channels that are open stay open."""
        if not self._released:
            self._released = True
            self._seats.give_back(self.entry)
