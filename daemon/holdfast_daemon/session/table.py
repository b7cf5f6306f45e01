"""All sessions: opened once, found by id or name from every client, then forgotten."""

from __future__ import annotations

import asyncio
import logging
import platform
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast_daemon import ids
from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LimitError,
    NotFoundError,
    Reason,
    StateError,
)
from holdfast_daemon.exec.site import Site
from holdfast_daemon.session.held import HeldShell
from holdfast_daemon.session.remote import Key, RemoteShell
from holdfast_daemon.session.session import About, Session
from holdfast_daemon.session.shell import Durability, Over, Plan, ShellEnd

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Hashable,
        Iterator,
    )

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.secrets import Redactor
    from holdfast_daemon.session.archive import Archive
    from holdfast_daemon.session.observer import Observers

_log = logging.getLogger(__name__)

# So many sessions are named where a name fits several.
_NAMED = 5
_LOST = frozenset({Over.CONNECTION_LOST, Over.HOST_RESTARTED})
# Which daemon made something, for people who find it on a host.
_OWNER = platform.node()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks for; None and empty values are the defaults."""

    plan: Plan
    name: str = ""
    durability: Durability = Durability.AUTO
    idle_timeout: float | None = None
    auto_close: bool = False
    tmux: bool = False
    new: bool = False
    resize: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and how it was come by.

    Attributes:
        matched_by: name or restored; empty: it is a new one.
    """

    session: Session
    created: bool
    matched_by: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """What a close found.

    Attributes:
        signal: The signal it took.
    """

    was_running: bool
    signal: str = ""


class SessionTable:
    """Opens, finds, closes and forgets sessions."""

    def __init__(
        self,
        archive: Archive,
        pool: Pool,
        limits: Limits,
        clock: Clock,
        *,
        redactor: Redactor,
        observers: Observers,
        resolve: Callable[[str], Awaitable[Host]],
    ) -> None:
        """Keep sessions in `archive`, and reach their hosts over `pool`.

        `resolve` finds the host of a session that an earlier daemon opened.
        """
        self._resolve = resolve
        self._archive = archive
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._observers = observers
        self._sessions: dict[str, Session] = {}
        # names that are being opened now: one at a time, or there would be two
        self._opening: dict[tuple[object, str], asyncio.Lock] = {}
        self._endings: set[asyncio.Task[None]] = set()

    async def recover(self) -> None:
        """Take over the sessions of earlier runs of the daemon."""
        for session in await self._archive.recover():
            self._sessions[session.id] = session
            if session.running:
                self._do(self._adopt(session))
            else:
                await self._archive.keep(session)

    async def _adopt(self, session: Session) -> None:
        """Attach to a shell on a host again, once its host is known."""
        try:
            host = session.host = await self._find_host(session)
        except DaemonError as error:
            session.ended(ShellEnd(Over.CONNECTION_LOST, why=error.message))
            await self._archive.keep(session)
            return
        shell = self._remote(session, host)
        session.shell = shell
        shell.adopt()
        self._do(self._see_to_end(session))

    async def _find_host(self, session: Session) -> Host:
        """Return where it is: its name may mean another account by now."""
        host = await self._resolve(session.target)
        if host.display != session.address:
            host = await self._resolve(session.address)
        return host

    def _do(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._endings.add(task)
        task.add_done_callback(self._endings.discard)

    # opening

    async def open(self, wanted: Wanted, host: Host, caller: Caller) -> Opened:
        """Return the session of that name, or a new one.

        Raises:
            DaemonError: The host can't be had, a limit is met, or it can't do that.
        """
        if not wanted.name:
            return Opened(await self._make(wanted, host, caller), created=True)
        key = (host.account, wanted.name)
        lock = self._opening.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                return await self._open_named(wanted, host, caller)
        finally:
            if not lock.locked():
                self._opening.pop(key, None)

    async def _open_named(self, wanted: Wanted, host: Host, caller: Caller) -> Opened:
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
            if wanted.resize is not None:
                await living.resize(*wanted.resize)
            return Opened(living, created=False, matched_by="name")
        lost = [one for one in before if one.end and one.end.over in _LOST]
        if not lost:
            return Opened(await self._make(wanted, host, caller), created=True)
        newest = max(lost, key=lambda one: one.about.begun)
        plan = replace(
            wanted.plan, cwd=wanted.plan.cwd or newest.cwd, restore=newest.id
        )
        made = await self._make(replace(wanted, plan=plan), host, caller)
        return Opened(made, created=True, matched_by="restored")

    async def _make(self, wanted: Wanted, host: Host, caller: Caller) -> Session:
        self._check_room(host)
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
        )
        session = await self._archive.make(about, wanted.name or host.name)
        session.host = host
        session.note(caller)
        self._sessions[session.id] = session
        try:
            await self._start(session, host)
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
        self._do(self._see_to_end(session))
        return session

    async def _start(self, session: Session, host: Host) -> None:
        about = session.about
        if about.durability is not Durability.HELD:
            shell = self._remote(session, host)
            # Should we die now, what is begun must be found again.
            await self._archive.keep(session)
            try:
                await shell.open(about.plan, name=about.name, owner=_OWNER)
            except StateError as error:
                await shell.leave()
                kept_by_none = error.reason in (Reason.NOT_KEPT, Reason.UNSUPPORTED)
                if about.durability is Durability.REMOTE or not kept_by_none:
                    raise
            else:
                about.durability = Durability.REMOTE
                session.shell = shell
                return
        about.durability = Durability.HELD
        session.shell = await HeldShell.open(self._site(host), about.plan, session)

    def _remote(self, session: Session, host: Host) -> RemoteShell:
        session.nonce = session.nonce or secrets.token_hex(16)

        def skip(count: int) -> None:
            session.skipped = count
            self._do(self._archive.keep(session))

        return RemoteShell(
            self._site(host),
            Key(session.id, session.nonce),
            session,
            session.spool,
            skipped=session.skipped,
            on_skipped=skip,
        )

    def _site(self, host: Host) -> Site:
        return Site(host, self._pool, self._limits, self._redactor)

    def _check_room(self, host: Host) -> None:
        living = [one for one in self._sessions.values() if one.running]
        here = [
            one
            for one in living
            if one.host is not None and one.host.account == host.account
        ]
        limits = self._limits
        for count, name, where in (
            (len(here), "sessions_per_host", f" on {host.name}"),
            (len(living), "sessions_total", ""),
        ):
            most = getattr(limits, name)
            if count >= most:
                raise LimitError(
                    Reason.LIMIT_REACHED,
                    f"{count} sessions are open{where}, and the limit {name} is"
                    f" {most}; none was opened",
                    hint="ssh_session_list shows them; ssh_session_close ends one; a"
                    " person may raise the limit in [limits].",
                    metadata={"limit": name, "value": str(most)},
                )

    async def _see_to_end(self, session: Session) -> None:
        """Do what is due when a session is over."""
        session.on_moved = lambda: self._do(self._archive.keep(session))
        await session.over.wait()
        session.shell = None
        await self._observers.close(session.id)
        await session.close()
        await self._archive.keep(session)

    # finding

    def _named(self, name: str, host: Host) -> list[Session]:
        return [
            one
            for one in self._sessions.values()
            if one.name == name
            and (
                one.host.account == host.account
                if one.host is not None
                else one.address == host.display
            )
        ]

    def find(self, text: str) -> Session:
        """Return a session by id or name; the living one where a name fits several.

        Raises:
            NotFoundError: There is none.
            InputError: A name fits several.
        """
        text = text.strip()
        if (session := self._sessions.get(text)) is not None:
            return session
        found = [one for one in self._sessions.values() if one.name == text and text]
        living = [one for one in found if one.running]
        if len(living) > 1:
            told = ", ".join(f"{one.id} on {one.target}" for one in living[:_NAMED])
            raise InputError(
                "session",
                f"{len(living)} sessions are named {text!r}: {told}",
                hint="Name it by its id.",
            )
        if living or found:
            return (living or found)[-1]
        raise NotFoundError(
            Reason.SESSION_NOT_FOUND,
            f"there is no session {text!r}; ended ones are kept for"
            f" {self._limits.session_keep_seconds / 3600:g} h",
            hint="ssh_session_list shows them; ssh_session_open opens one.",
            metadata={"session": text},
        )

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
        for one in self._sessions.values():
            if one.running and one.away_because and one.shell is not None:
                one.shell.nudge()

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
        shell = session.shell
        if not session.running or shell is None:
            return Closed(was_running=False)
        signal = await shell.end(force=force)
        # where its end was not heard of
        session.ended(ShellEnd(over))
        return Closed(was_running=True, signal=signal)

    async def reap(self) -> None:
        """Close what nobody uses, forget what is past its time."""
        now, limits = self._clock.monotonic(), self._limits
        for session in list(self._sessions.values()):
            if session.running:
                idle = session.about.idle_timeout
                if 0 < idle < session.idle_seconds:
                    _log.info("session %s was idle too long", session.id)
                    try:
                        await self.close(session, over=Over.IDLE)
                    except DaemonError as error:
                        _log.warning("%s is not closed: %s", session.id, error.message)
                continue
            keep = limits.session_keep_seconds
            if session.about.auto_close:
                keep = limits.session_keep_closed_seconds
            if now - (session.finished or now) > keep:
                del self._sessions[session.id]
                await self._archive.remove(session)

    async def stop(self) -> None:
        """Let go of every shell; the daemon stops."""
        await self._observers.close_all()
        living = [one for one in self._sessions.values() if one.running]
        await asyncio.gather(*(self._leave(one) for one in living))
        for task in list(self._endings):
            task.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)

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
