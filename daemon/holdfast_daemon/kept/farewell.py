"""Has a host forget what ended there; again where it could not be told."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# Who stays away for longer is told by the next daemon.
_SECONDS = 1800.0
_FIRST = 0.5
_MOST = 300.0
# What passes by itself. All else somebody has to mend, and to log in then.
_PASSING = frozenset(
    {
        Reason.CONNECTION_LOST,
        Reason.CONNECT_TIMEOUT,
        Reason.HOST_NOT_FOUND,
        Reason.HOST_UNREACHABLE,
        Reason.LIMIT_REACHED,
        Reason.PROTOCOL_ERROR,
    }
)


def patience(limits: Limits, *, runs: bool) -> float:
    """Return for how many seconds a host is told; what `runs` there may do so for long.

    After kept_abandoned_seconds it ends that by itself.
    """
    return max(_SECONDS, limits.kept_abandoned_seconds) if runs else _SECONDS


class Farewell:
    """One of them.

    Nobody waits for it, so it never is why anybody is asked to log in: where a login
    takes more than time it waits for a connection that another makes.

    Attributes:
        over: Set by its owner once it is said, or given up.
    """

    def __init__(
        self,
        pool: Pool,
        host: Host,
        tell: Callable[[], Awaitable[None]],
        seconds: float = _SECONDS,
    ) -> None:
        """Have `tell` tell `host`, over connections of `pool`, for so long."""
        self.host = host
        self.over = asyncio.Event()
        self._pool = pool
        self._tell = tell
        self._seconds = seconds
        self._pauses = Backoff(_FIRST, _MOST, random.random)
        self._nudged = asyncio.Event()
        self._resting = False

    async def say(self, what: str) -> bool:
        """Return whether the host has forgotten `what`."""
        why = "nobody was connected to it"
        loop = asyncio.get_running_loop()
        until = loop.time() + self._seconds
        while loop.time() < until:
            self._nudged.clear()
            if not self._resting or self._pool.connected(self.host.account):
                try:
                    await self._tell()
                except DaemonError as error:
                    why = error.message
                    if error.reason is Reason.NOT_KEPT:
                        break
                    self._resting = self._resting or error.reason not in _PASSING
                else:
                    return True
                _log.debug("%s is not forgotten yet: %s", what, why)
            # who makes no connection must not miss the short one of another
            awaited = self.host.account if self._resting else None
            await self._pool.pauses.rest(self._pauses.failed(), self._nudged, awaited)
        _log.info("%s is left on its host: %s", what, why)
        return False

    def nudge(self) -> None:
        """Try again now where it waits to: the host may be back."""
        self._nudged.set()

    def rest(self) -> None:
        """Make no connection for it any more: somebody closed them."""
        if not self._resting:
            self._resting = True
            self._nudged.set()
