"""The way to a host while a copy lasts: found again each time it is lost."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Generic, TypeVar

from holdfast_daemon.connection.sftp import SftpGone
from holdfast_daemon.errors import DeniedError, LinkError, Ran, Reason
from holdfast_daemon.transfer.means.stream import Cut, NoShell, Wire

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.transfer.means.tally import Tally

_log = logging.getLogger(__name__)

T = TypeVar("T")
W = TypeVar("W")

_PAUSE, _PAUSE_MOST = 0.05, 5.0


class Way(ABC, Generic[W]):
    """A way that is lost and found; what is done over it begins anew each time."""

    def __init__(self, site: Site, tally: Tally) -> None:
        """Reach the host of `site`; `tally` tells whether anything moves."""
        self._site = site
        self._tally = tally

    @abstractmethod
    async def wire(self) -> W:
        """Return the way as it is now.

        Raises:
            DaemonError: The host can't be had, or can't do it.
        """

    @abstractmethod
    def lose(self) -> None:
        """Note that the way is of no use any more."""

    async def steadily(self, work: Callable[[W], Awaitable[T]]) -> T:
        """Do `work`, again where the way was lost in it.

        Raises:
            DaemonError: It was lost, and for too long.
        """
        loop = asyncio.get_running_loop()
        moved, since, pause = self._tally.moved, loop.time(), _PAUSE
        while True:
            try:
                return await work(await self.wire())
            except DeniedError as error:
                # A rule that came meanwhile undoes nothing.
                if self._tally.moved:
                    error.ran = Ran.UNKNOWN
                raise
            except (Cut, LinkError, SftpGone) as error:
                why = str(error)
            if self._tally.moved > moved:
                moved, since, pause = self._tally.moved, loop.time(), _PAUSE
            _log.info("a copy's way to %s was lost: %s", self._site.host.name, why)
            self.lose()
            if loop.time() - since > self._site.limits.copy_patience_seconds:
                raise LinkError(
                    Reason.CONNECTION_LOST,
                    f"the copy was cut off: {why}",
                    hint="Call again: it goes on where it stopped. No file is there"
                    " half.",
                    ran=Ran.UNKNOWN,
                    metadata={"host": self._site.host.name},
                )
            await asyncio.sleep(pause)
            pause = min(2 * pause, _PAUSE_MOST)


class Reach(Way[Wire]):
    """One line of work at a host; leave it with `release`."""

    def __init__(self, site: Site, tally: Tally) -> None:
        """Reach the host of `site`; `tally` tells whether anything moves."""
        super().__init__(site, tally)
        self._lease: Lease | None = None

    async def wire(self) -> Wire:
        """Return the way as it is now.

        Raises:
            DaemonError: The host can't be had, or can run no script.
        """
        if self._lease is not None and self._lease.link.closed:
            self.release()
        if self._lease is None:
            self._lease = await self._site.lease()
        facts = await self._lease.facts()
        if facts.confined or not (facts.family == "posix" or facts.wraps):
            raise NoShell(self._site.host.shown)
        limits = self._site.limits
        return Wire(
            self._lease,
            facts,
            limits.copy_idle_seconds,
            limits.copy_names,
            together=limits.copy_parallel,
        )

    def lose(self) -> None:
        """Let go of what is broken."""
        self.release()

    def release(self) -> None:
        """Let go of the connection."""
        if self._lease is not None:
            self._lease.release()
            self._lease = None
