"""All sessions: opened once, found by id or name from every client, then forgotten."""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint, ids
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason, StateError
from holdfast_daemon.exec.site import Site
from holdfast_daemon.session import finding, room
from holdfast_daemon.session.about import About
from holdfast_daemon.session.ending import Endings
from holdfast_daemon.session.held import HeldShell
from holdfast_daemon.session.remote import Key, RemoteShell
from holdfast_daemon.session.shell import LOST, Durability, Over, ShellEnd, unsure
from holdfast_daemon.session.wanted import Closed, Opened, Wanted

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.secrets import Redactor
    from holdfast_daemon.session.archive import Archive
    from holdfast_daemon.session.observer import Observers
    from holdfast_daemon.session.recovery import Recovery
    from holdfast_daemon.session.session import Session

_log = logging.getLogger(__name__)

# Serving begins after so long, should hosts not be resolved by then.
_FINDING_SECONDS = 2.0
_BY_FORCE = (
    "It goes on there; with force it is over at once here, and there once its host is"
    " back."
)
# Which daemon made something, for people who find it on a host.
_OWNER = platform.node()


class SessionTable:
    """Opens, finds, closes and forgets sessions.

    Attributes:
        ended: Those that are over, and what is still due for them.
    """

    def __init__(
        self,
        archive: Archive,
        pool: Pool,
        limits: Limits,
        clock: Clock,
        *,
        redactor: Redactor,
        observers: Observers,
        recovery: Recovery,
    ) -> None:
        """Keep sessions in `archive`, and reach their hosts over `pool`.

        `recovery` goes on with what earlier daemons left.
        """
        self._recovery = recovery
        self._archive = archive
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._observers = observers
        self._sessions: dict[str, Session] = {}
        # names that are being opened now: one at a time, or there would be two
        self._opening: dict[tuple[object, str], tuple[asyncio.Lock, int]] = {}
        # accounts of those that are about to be in the table: they take room too
        self._making: list[Hashable] = []
        self.ended = Endings(archive, pool, limits, observers)
        self._chores: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """Take over the sessions of earlier runs of the daemon."""
        left = self._recovery.left_running()
        finding: list[asyncio.Task[None]] = []
        for session in await self._archive.recover():
            self._sessions[session.id] = session
            if session.running:
                jobs = left.pop(session.id, [])
                await self._recovery.hold(session, jobs)
                finding.append(self._do(self._adopt(session, jobs)))
            else:
                await self._archive.keep(session)
                if session.left:
                    self._do(self.ended.go_on(session, self._recovery.host))
        for jobs in left.values():
            self._recovery.give_up(jobs)
        if finding:
            # who calls at once finds them attached, or about to be
            await asyncio.wait(finding, timeout=_FINDING_SECONDS)

    async def _adopt(self, session: Session, jobs: Sequence[Job]) -> None:
        """Attach to a shell on a host again, once its host is known."""
        host = await self._recovery.host_or_end(session)
        if host is None:
            self._recovery.give_up(jobs)
            await self.ended.see_to(session)
            await self.ended.go_on(session, self._recovery.host)
            return
        session.host = host
        shell = self._remote(session, host)
        session.shell = shell
        failpoint.reach("session.adopt")
        shell.adopt(jobs)
        self._do(self._see_to_end(session))
        self._do(self._recovery.go_on(session, shell, jobs))

    def _do(self, chore: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    # opening

    async def open(self, wanted: Wanted, host: Host, caller: Caller) -> Opened:
        """Return the session of that name, or a new one.

        Raises:
            DaemonError: The host can't be had, a limit is met, or it can't do that.
        """
        if not wanted.name:
            return Opened(await self._make(wanted, host, caller), created=True)
        key = (host.account, wanted.name)
        lock, users = self._opening.get(key, (asyncio.Lock(), 0))
        self._opening[key] = lock, users + 1
        try:
            async with lock:
                return await self._open_named(wanted, host, caller)
        finally:
            # one that waits has not got it yet, and the next comer must wait too
            _, users = self._opening.pop(key)
            if users > 1:
                self._opening[key] = lock, users - 1

    async def _open_named(self, wanted: Wanted, host: Host, caller: Caller) -> Opened:
        for one in self._named(wanted.name, host):
            # whoever opened it now would lose it at once
            async with one.parting:
                pass
        before = self._named(wanted.name, host)
        living = next((one for one in before if one.running), None)
        if living is not None and wanted.new:
            raise StateError(
                Reason.IN_USE,
                f"a session {wanted.name!r} is open on {host.name} ({living.id}), and"
                " new was asked for",
                hint="Leave new out to use it, give another session_name, or close it"
                " with ssh_session_close first.",
                metadata={"session": living.id},
            )
        if living is not None:
            living.note(caller)
            cols, rows = wanted.resize
            if cols or rows:
                await living.resize(cols or living.cols, rows or living.rows)
            return Opened(living, created=False, matched_by="name")
        newest = max(before, key=lambda one: one.about.begun, default=None)
        if newest is None or newest.end is None or newest.end.over not in LOST:
            return Opened(await self._make(wanted, host, caller), created=True)
        plan = replace(wanted.plan, restore=newest.id, old=newest.cwd)
        made = await self._make(replace(wanted, plan=plan), host, caller)
        return Opened(made, created=True, matched_by="restored")

    async def _make(self, wanted: Wanted, host: Host, caller: Caller) -> Session:
        living = (one for one in self._sessions.values() if one.running)
        room.check(living, self._making, host, self._limits)
        idle = wanted.idle_timeout
        about = About(
            id=ids.session_id(),
            name=wanted.name,
            target=host.name,
            address=host.display,
            client=caller.label,
            plan=wanted.plan,
            durability=wanted.durability,
            opened=self._clock.now(),
            begun=self._clock.monotonic(),
            idle_timeout=self._limits.session_idle_seconds if idle is None else idle,
            auto_close=wanted.auto_close,
            asked_keys=host.asked_keys,
        )
        self._making.append(host.account)
        try:
            session = await self._archive.make(about, wanted.name or host.name)
        finally:
            self._making.remove(host.account)
        session.host = host
        session.note(caller)
        self._sessions[session.id] = session
        failpoint.reach("session.open.made")
        doubt: LinkError | None = None
        try:
            doubt = await self._start(session, host)
        except asyncio.CancelledError:
            # we stop: what its host has begun by now the next daemon finds
            raise
        except BaseException:
            del self._sessions[session.id]
            await session.close()
            await self._archive.remove(session)
            raise
        if wanted.tmux:
            session.view = await self._observers.open(
                session.id, cols=session.cols, rows=session.rows
            )
        await self._archive.keep(session)
        failpoint.reach("session.open.kept")
        self._pool.farewells.nudge(host)
        self._do(self._see_to_end(session))
        if doubt is not None:
            raise doubt
        return session

    async def _start(self, session: Session, host: Host) -> LinkError | None:
        """Start its shell; return why it is not known whether there is one."""
        about = session.about
        auto = about.durability is Durability.AUTO
        if about.durability is not Durability.HELD:
            shell = self._remote(session, host)
            # Should we end now, what is begun must be found again.
            about.durability = Durability.REMOTE
            await self._archive.keep(session)
            failpoint.reach("session.open.recorded")
            try:
                await shell.open(about.plan, name=about.name, owner=_OWNER)
            except StateError as error:
                await shell.leave()
                kept_by_none = error.reason in (Reason.NOT_KEPT, Reason.UNSUPPORTED)
                if not (auto and kept_by_none):
                    raise
            except LinkError as error:
                if error.ran is Ran.NO:
                    await shell.leave()
                    raise
                # it may be there: it is looked for, and no other is opened beside it
                shell.adopt(())
                session.shell = shell
                return unsure(error, session.id, session.name)
            else:
                session.shell = shell
                return None
        about.durability = Durability.HELD
        session.shell = await self._hold(session, self._site(host))
        return None

    async def _hold(self, session: Session, site: Site) -> HeldShell:
        plan = session.about.plan
        if plan.old_text and not plan.cwd:
            there = replace(plan, cwd=plan.old_text)
            try:
                return await HeldShell.open(site, there, session)
            except StateError as error:
                if error.reason is not Reason.CWD_FAILED:
                    raise
        return await HeldShell.open(site, plan, session)

    def _remote(self, session: Session, host: Host) -> RemoteShell:
        session.nonce = session.nonce or secrets.token_hex(16)

        def skip(count: int) -> None:
            session.skipped, session.recorded = count, 0
            self._noted(session)

        return RemoteShell(
            self._site(host),
            Key(session.id, session.nonce),
            session,
            session.spool,
            skipped=session.skipped,
            on_skipped=skip,
        )

    def _site(self, host: Host) -> Site:
        keep = self._recovery.jobs.keep
        return Site(host, self._pool, self._limits, self._redactor, keep)

    def _noted(self, session: Session) -> None:
        self._do(self._archive.keep(session))

    async def _see_to_end(self, session: Session) -> None:
        """Do what is due when a session is over."""
        session.on_moved = lambda: self._noted(session)
        await session.over.wait()
        await self.ended.see_to(session)

    # finding

    def _named(self, name: str, host: Host) -> list[Session]:
        return finding.named(self._sessions.values(), name, host)

    def find(self, text: str, visible: Callable[[Session], bool]) -> Session:
        """Return a session by id or name; of several the living one that is `visible`.

        Raises:
            NotFoundError: There is none.
            InputError: A name fits several.
        """
        keep = self._limits.session_keep_seconds
        return finding.pick(self._sessions, text, visible, keep)

    def list(self, *, include_exited: bool = False) -> list[Session]:
        """Return the sessions, the newest first."""
        found = [
            one for one in self._sessions.values() if one.running or include_exited
        ]
        return sorted(found, key=lambda one: one.about.begun, reverse=True)

    def on(self, host: Host) -> Iterator[Session]:
        """Yield the living sessions that use `host`'s connections."""
        for one in self._sessions.values():
            if one.running and one.host is not None and one.host.needs(host):
                yield one

    def count(self, account: Hashable) -> int:
        """Return how many living sessions are on `Host.account`."""
        return sum(
            one.running and one.host is not None and one.host.account == account
            for one in self._sessions.values()
        )

    def nudge(self) -> None:
        """Look for hosts that are away again now: the network is another one."""
        self._pool.farewells.nudge()
        for one in self._sessions.values():
            if one.running and one.away_because and one.shell is not None:
                one.shell.nudge(asked=False)

    # ending

    async def rest(self, session: Session, why: str) -> bool:
        """Have a session do without its connection; True where that ended it."""
        if session.shell is None:
            return False
        await session.shell.rest(why)
        if session.about.durability is Durability.HELD:
            session.ended(ShellEnd(Over.CONNECTION_LOST, why=why))
        return not session.running

    async def close(
        self, session: Session, *, force: bool = False, over: Over = Over.CLOSED
    ) -> Closed:
        """End a session's shell; the session stays readable."""
        if not session.running:
            return Closed(was_running=False)
        at_once = force or over is not Over.CLOSED
        if session.shell is None and session.away_because and at_once:
            # where it is can't be said, as with a mistake in the configuration
            session.left = True
            session.ended(ShellEnd(over, why=session.away_because))
            return Closed(was_running=True)
        session.check_running()
        shell = session.shell
        assert shell is not None  # noqa: S101 - it runs
        async with session.parting:
            if not session.running:
                return Closed(was_running=False)
            session.over_because = over
            why = signal = ""
            try:
                signal = await shell.end(force=force)
            except DaemonError as error:
                if not (session.away_because and isinstance(shell, RemoteShell)):
                    raise
                if not at_once:
                    error.hint = f"{error.hint} {_BY_FORCE}".lstrip()
                    raise
                why = error.message
                await shell.abandon()
            failpoint.reach("session.close.ended")
            # where its end was not heard of
            session.ended(ShellEnd(over, why=why))
        return Closed(was_running=True, signal=signal)

    async def reap(self) -> None:
        """Close what nobody uses, forget what is past its time."""
        now, limits = self._clock.monotonic(), self._limits
        idle: list[Session] = []
        for session in list(self._sessions.values()):
            if session.running:
                if 0 < session.about.idle_timeout < session.idle_seconds:
                    idle.append(session)
                continue
            if session in self.ended:
                # should we die now, the next daemon goes on with that
                continue
            keep = limits.session_keep_seconds
            if session.about.auto_close:
                keep = limits.session_keep_closed_seconds
            if now - (session.finished or now) > keep:
                del self._sessions[session.id]
                await self._archive.remove(session)
        # a host that does not answer must not keep the others waiting
        await asyncio.gather(*(self._close_idle(one) for one in idle))

    async def _close_idle(self, session: Session) -> None:
        if session.watching and not await self._observers.unseen(session.id):
            session.touch()
        in_use = session.idle_seconds <= session.about.idle_timeout
        if in_use or session.parting.locked():
            return
        _log.info("session %s was idle too long", session.id)
        try:
            await self.close(session, over=Over.IDLE)
        except DaemonError as error:
            _log.warning("%s is not closed: %s", session.id, error.message)

    async def stop(self) -> None:
        """Let go of every shell; the daemon stops."""
        await self._observers.close_all()
        living = [one for one in self._sessions.values() if one.running]
        told = self._pool.farewells.stop()
        await asyncio.gather(*(self._leave(one) for one in living), told)
        for task in list(self._chores):
            task.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        await self._archive.close()

    async def _leave(self, session: Session) -> None:
        if session.shell is not None:
            await session.shell.leave()
        if session.about.durability is Durability.REMOTE:
            await session.spool.sync()
            await session.recording.close()
        else:
            session.ended(ShellEnd(Over.CONNECTION_LOST, why="the daemon stopped"))
            await session.close()
        await self._archive.keep(session)
