"""The way to a host that has SFTP and no shell: one session that many share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from holdfast_daemon.connection.sftp_files import SftpFiles, sftp_files
from holdfast_daemon.transfer.means.reach import Way

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.transfer.means.tally import Tally

# Requests for small things under way at once: a round trip each would take long.
AT_ONCE = 16

T = TypeVar("T")


class PlainReach(Way[SftpFiles]):
    """Leave it with `release`."""

    def __init__(self, site: Site, tally: Tally) -> None:
        """Reach the host of `site`; `tally` tells whether anything moves."""
        super().__init__(site, tally)
        self._lease: Lease | None = None
        self._files: SftpFiles | None = None
        self._turn = asyncio.Lock()

    async def wire(self) -> SftpFiles:
        """Return the session as it is now.

        Raises:
            DaemonError: The host can't be had, or has no SFTP.
            SftpGone: The connection was lost.
        """
        async with self._turn:
            if self._lease is not None and self._lease.link.closed:
                await self._let_go()
            if self._files is not None and self._files.over:
                await self._let_go()
            if self._lease is None:
                self._lease = await self._site.lease()
            if self._files is None:
                limits = self._site.limits
                self._files = await sftp_files(
                    self._lease.link,
                    idle=limits.copy_idle_seconds,
                    patience=limits.channel_open_seconds,
                )
            return self._files

    def lose(self) -> None:
        """Leave it to the next who asks: others may have a new one already."""

    async def each(
        self, things: Iterable[T], work: Callable[[T], Awaitable[None]]
    ) -> None:
        """Do `work` with all, several at once."""
        turn = asyncio.Semaphore(AT_ONCE)

        async def one(thing: T) -> None:
            try:
                await work(thing)
            finally:
                turn.release()

        tasks: set[asyncio.Task[None]] = set()
        try:
            for thing in things:
                await turn.acquire()
                for task in [task for task in tasks if task.done()]:
                    tasks.discard(task)
                    task.result()
                tasks.add(asyncio.create_task(one(thing)))
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def release(self) -> None:
        """Let go of session and connection."""
        async with self._turn:
            await self._let_go()

    async def _let_go(self) -> None:
        files, self._files = self._files, None
        lease, self._lease = self._lease, None
        try:
            if files is not None:
                await files.close()
        finally:
            if lease is not None:
                lease.release()
