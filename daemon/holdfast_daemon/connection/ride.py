"""The right to lead tunnels through a connection: it takes none of MaxSessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.connection.failure import LinkGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.entry import Entry
    from holdfast_daemon.connection.link import Link


class Ride:
    """Holds one connection, which is not idle meanwhile, until `release`."""

    def __init__(self, entry: Entry, step_off: Callable[[Entry], None]) -> None:
        if entry.link is None:
            raise LinkGone(entry.host, "it was not made")
        self.link: Link = entry.link
        self._entry = entry
        self._step_off = step_off
        self._released = False
        entry.passengers += 1

    def release(self) -> None:
        """Give it back."""
        if not self._released:
            self._released = True
            self._entry.passengers -= 1
            self._step_off(self._entry)
