"""Watches what only the host can tell: whether it is there, and what listens on it.

Both log in where no connection is held, as any other call does.
"""

from __future__ import annotations

import asyncio
import contextlib
from random import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection import tunnel
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.connection.tunnel import Place, Unreached
from holdfast_daemon.errors import DaemonError, DeniedError, NeedsError, Reason
from holdfast_daemon.forward.guest import Nobody
from holdfast_daemon.waiting.kept import short
from holdfast_daemon.waiting.sight import Sight

if TYPE_CHECKING:
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

LOOPBACK = "127.0.0.1"
# Some listen there only.
_OTHER_LOOPBACK = "::1"
# The longest pause between two tries, in the shortest one.
_LONGEST = 8


class _OfHost:
    """Reaches one host again and again."""

    def __init__(self, host: Host, pool: Pool, limits: Limits) -> None:
        self.what = host.name
        self._host = host
        self._pool = pool
        self._limits = limits
        self._why = ""
        self._pauses = Backoff(
            limits.wait_poll_seconds, limits.wait_poll_seconds * _LONGEST, random
        )
        self._pause = 0.0

    async def _reached(self) -> bool:
        """Whether a connection is there, or could be made.

        Raises:
            DaemonError: No time would mend it: a credential or a person is missing, a
                rule forbids it, or the daemon stops.
        """
        if self._pool.find(self._host) is None:
            try:
                ride = await self._pool.ride(self._host)
            except (NeedsError, DeniedError):
                raise
            except DaemonError as error:
                if error.reason is Reason.DRAINING:
                    raise
                self._why = error.message
                self._pause = max(self._pauses.failed(), error.retry_after or 0)
                return False
            ride.release()
        self._why, self._pause = "", 0.0
        self._pauses.succeeded()
        return True


class HostUp(_OfHost):
    """Sees a host come back."""

    _up = False

    async def look(self) -> None:
        """Try once."""
        self._up = await self._reached()

    async def come(self) -> None:
        """Return when it was reached."""
        while not self._up:
            await self._pool.pauses.rest(self._pause)
            await self.look()

    def sight(self) -> Sight:
        """Return whether it was, and why not."""
        return Sight("up" if self._up else "down", self._up, short(self._why))


class HostDown(_OfHost):
    """Sees a host go away: its connection is lost, or none can be made."""

    _down = False

    async def look(self) -> None:
        """Have a connection, or find that there is none to be had."""
        self._down = not await self._reached()

    async def come(self) -> None:
        """Return when the last connection to it is lost."""
        while not self._down:
            link = self._pool.find(self._host)
            if link is None:
                self._down = True
                return
            await link.wait_closed()
            if link.parted:
                # That says nothing of the host: nobody used it, or it was asked for.
                await self.look()
                continue
            self._why = link.reason
            self._down = self._pool.find(self._host) is None

    def sight(self) -> Sight:
        """Return whether it is gone, and why."""
        return Sight("down" if self._down else "up", self._down, short(self._why))


class PortOpen(_OfHost):
    """Sees a port of the host's loopback open, as a program there would.

    What listens there sees a connection that is closed at once.
    """

    def __init__(self, host: Host, port: int, pool: Pool, limits: Limits) -> None:
        super().__init__(host, pool, limits)
        self._place = Place(LOOPBACK, port)
        self.what = f"{host.name} port {port}"
        self._open = False

    async def look(self) -> None:
        """Try once.

        Raises:
            Unreached: The host's rules forbid it.
        """
        if not await self._reached():
            return
        try:
            ride = await self._pool.ride(self._host)
            try:
                await self._try(ride.link)
            finally:
                ride.release()
        except Unreached as error:
            if error.prohibited:
                raise
            self._why = error.why
        except DaemonError as error:
            # The connection went away meanwhile; the next look finds out about it.
            self._why = error.message
        self._pause = self._limits.wait_poll_seconds

    async def _try(self, link: Link) -> None:
        """Try both loopbacks; what is wrong is told of the first."""
        try:
            await self._knock(link, self._place)
        except Unreached as error:
            if error.prohibited:
                raise
            with contextlib.suppress(Unreached):
                await self._knock(link, self._place._replace(host=_OTHER_LOOPBACK))
            if not self._open:
                raise

    async def _knock(self, link: Link, place: Place) -> None:
        try:
            async with asyncio.timeout(self._limits.channel_open_seconds):
                found = await tunnel.open_tunnel(link, place, Nobody())
        except TimeoutError:
            self._why = "it did not answer the host in time"
        else:
            found.close()
            self._open = True

    async def come(self) -> None:
        """Return when something listens there."""
        while not self._open:
            await self._pool.pauses.rest(self._pause)
            await self.look()

    def sight(self) -> Sight:
        """Return whether it is open, and why not."""
        return Sight("open" if self._open else "shut", self._open, short(self._why))
