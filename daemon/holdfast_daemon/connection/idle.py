"""When a connection that nobody uses is closed: by policy, and never while one does."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.entry import Entry
    from holdfast_daemon.limits import Limits

# Whether one is due is asked this often, for the limit may change.
_LOOK_SECONDS = 30.0


class Idle:
    """The idle clocks of connections."""

    def __init__(self, limits: Limits, close: Callable[[Entry, str], None]) -> None:
        """Have those that are due closed by `close`, which is told why."""
        self._limits = limits
        self._close = close

    def look(self, entry: Entry) -> None:
        """Start or stop an entry's clock, as it stands now."""
        self.forget(entry)
        if entry.ready and not entry.used:
            entry.free_since = asyncio.get_running_loop().time()
            self._expire(entry)

    def forget(self, entry: Entry) -> None:
        """Stop an entry's clock."""
        if entry.idle is not None:
            entry.idle.cancel()
            entry.idle = None

    def _expire(self, entry: Entry) -> None:
        if entry.link is None or entry.used or not entry.ready:
            return
        loop = asyncio.get_running_loop()
        seconds = self._limits.connection_idle_seconds
        if entry.attended:
            # A person would have to log in again: 0 keeps it.
            seconds = self._limits.login_keep_seconds or math.inf
        left = entry.free_since + seconds - loop.time()
        if left > 0:
            pause = min(left, _LOOK_SECONDS)
            entry.idle = loop.call_later(pause, self._expire, entry)
        else:
            self._close(entry, "nobody used it")
