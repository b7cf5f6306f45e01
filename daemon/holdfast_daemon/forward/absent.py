"""Durable forwards of an earlier daemon that wait for their hosts to be found."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast_daemon.hosts.host import Host
from holdfast_daemon.policy.entry import names_from

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.forward.book import Book
    from holdfast_daemon.forward.forward import Forward
    from holdfast_daemon.forward.store import Saved


class Absent:
    """Those that are neither back nor given up, with why they are not back."""

    def __init__(self, book: Book) -> None:
        """Take for given up what is not among those that are away in `book`."""
        self._book = book
        self._forwards: dict[str, Forward] = {}
        self._unseen: dict[Forward, asyncio.Future[None]] = {}

    def add(self, forward: Forward) -> None:
        """Have it wait; nobody has looked for its host yet."""
        self._forwards[forward.about.id] = forward
        self._unseen[forward] = asyncio.get_running_loop().create_future()

    def __contains__(self, forward: Forward) -> bool:
        """Whether it still waits."""
        ident = forward.about.id
        return self._forwards.get(ident) is forward and ident in self._book.away

    def list(self) -> Sequence[Forward]:
        """Return all of them, the newest first."""
        return [one for one in reversed(self._forwards.values()) if one in self]

    def told(self, forward: Forward, why: str) -> None:
        """Take why it is not back: it was looked for."""
        if forward in self:
            forward.last_error = why
        self.seen(forward)

    def seen(self, forward: Forward) -> None:
        """Let nobody wait for its return any more."""
        looked = self._unseen.pop(forward, None)
        if looked is not None:
            looked.set_result(None)

    async def looked(self) -> None:
        """Return when each of them is back, or was looked for."""
        if self._unseen:
            await asyncio.wait(self._unseen.values())

    def take(self, forward: Forward) -> bool:
        """Have it wait no more; return whether it did."""
        waited = forward in self
        if waited:
            del self._book.away[forward.about.id]
        if self._forwards.get(forward.about.id) is forward:
            del self._forwards[forward.about.id]
        return waited


def host_of(saved: Saved) -> Host:
    """Return its host as far as that was written down: enough to be shown."""
    about = saved.about
    names = names_from(about.target, about.address)
    return Host(
        name=about.target,
        hostname=names.hostname or about.target,
        user=saved.user,
        port=saved.port,
    )
