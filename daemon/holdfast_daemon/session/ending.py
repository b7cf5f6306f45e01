"""What is due once a session is over: here, and on the host that kept its shell."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.kept.farewell import Farewell, patience
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.session.remote import RemoteShell
from holdfast_daemon.session.shell import LOST

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.session.archive import Archive
    from holdfast_daemon.session.observer import Observers
    from holdfast_daemon.session.session import Session

_log = logging.getLogger(__name__)


class Endings:
    """The sessions that are over, and not forgotten by their hosts."""

    def __init__(
        self, archive: Archive, pool: Pool, limits: Limits, observers: Observers
    ) -> None:
        self._archive = archive
        self._pool = pool
        self._limits = limits
        self._observers = observers
        self._under_way: set[str] = set()

    def __contains__(self, session: Session) -> bool:
        """Whether its host is still being told to forget it."""
        return session.id in self._under_way

    async def see_to(self, session: Session) -> None:
        """Write down that it is over, and have its host keep nothing of it."""
        shell = session.shell
        if session.host is None or not isinstance(shell, RemoteShell):
            session.shell = None
            await self._write(session)
            return
        session.left = True
        with self._farewell(session, session.host) as farewell:
            await shell.safe()
            session.shell = None
            await self._write(session)
            await shell.emptied()
            await shell.leave()
            await self._say(session, farewell)

    async def go_on(
        self, session: Session, find: Callable[[Session], Awaitable[Host]]
    ) -> None:
        """Do what an earlier daemon did not come to, on the host that `find` finds."""
        try:
            host = await find(session)
        except DaemonError as error:
            _log.info("%s is left on its host: %s", session.id, error.message)
            return
        with self._farewell(session, host) as farewell:
            await self._say(session, farewell)

    async def _write(self, session: Session) -> None:
        await self._observers.close(session.id)
        await session.close()
        await self._archive.keep(session)
        failpoint.reach("session.close.recorded")

    @contextlib.contextmanager
    def _farewell(self, session: Session, host: Host) -> Generator[Farewell]:
        keeper = Keeper(self._pool, host, self._limits)
        # what a lost one had stays: another may be to go on with that
        lost = session.end is not None and session.end.over in LOST
        forget = keeper.strip if lost else keeper.wipe
        runs = session.end is not None and bool(session.end.untold)
        seconds = patience(self._limits, runs=runs)
        farewell = Farewell(self._pool, host, lambda: forget(session.id), seconds)
        self._under_way.add(session.id)
        try:
            with self._pool.farewells.due(farewell):
                yield farewell
        finally:
            self._under_way.discard(session.id)

    async def _say(self, session: Session, farewell: Farewell) -> None:
        if await farewell.say(session.id):
            failpoint.reach("session.close.wiped")
            session.left = False
            await self._archive.keep(session)
