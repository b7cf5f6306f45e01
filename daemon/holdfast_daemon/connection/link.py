"""One SSH connection: opens channels, knows the shell, and tells when it is gone."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import (
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
    OPEN_RESOURCE_SHORTAGE,
)

from holdfast_daemon.connection import failure
from holdfast_daemon.connection.inquiry import Inquiry
from holdfast_daemon.connection.session import Session
from holdfast_daemon.connection.standby import Awaited, Script
from holdfast_daemon.connection.waiting import Carried, Start, Waiting
from holdfast_daemon.connection.warm import Warm
from holdfast_daemon.errors import DaemonError, InputError
from holdfast_daemon.hosts.public_key import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.channel import Sink, Terminal
    from holdfast_daemon.connection.login import Login
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.connection.standby import Purpose
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# The library logs commands and environments at INFO.
asyncssh.set_log_level(logging.WARNING)

# Answers of RFC 4254 5.1 that mean: not on this connection, not now.
_REFUSALS = frozenset(
    {
        OPEN_ADMINISTRATIVELY_PROHIBITED,
        OPEN_CONNECT_FAILED,
        OPEN_RESOURCE_SHORTAGE,
    }
)


# When another channel is to wait in place of the one just taken. Not at once: on a near
# host the shell that is to wait would slow down the command, or the next one.
_WHILE_IT_RUNS = 0.05
_PAUSE = 0.001
# After the first command: most hosts of a fleet are asked one thing only. The first is
# the probe's, where there is one.
_FIRST = 0.25
_FEW = 2


class Link:
    """A connection that is logged in.

    Attributes:
        room: How many more channels it may carry, as its pool counts.
        calm: Whether nothing more urgent goes on than opening channels ahead.
        lends_agent: Commands on it may use an agent of this machine.
        proven: It was of use: a channel on it, or a tunnel through it, did its work.
        parted: We closed it, whatever its host did.
    """

    def __init__(self, host: Host, login: Login, limits: Limits, clock: Clock) -> None:
        self.host = host
        self.connection = login.connection
        self._proxy = login.proxy
        self._visitor = login.visitor
        self._limits = limits
        self._clock = clock
        self._opening: dict[asyncio.Task[None], Session] = {}
        self._sessions: set[Session] = set()
        self._begun = 0
        self._ended = asyncio.Event()
        self._why = ""
        self.on_closed: Callable[[Link], None] | None = None
        self.on_facts: Callable[[ShellFacts], None] | None = None
        self.on_channel_ended: Callable[[Link], None] | None = None
        self.opened_at = clock.monotonic()
        self.since = clock.now()
        self.used_at = self.opened_at
        self._carried = Carried()
        self.room: Callable[[], int] = self._room
        self.calm: Callable[[], bool] = lambda: True
        self.proven = self.parted = False
        self.lends_agent = bool(login.lent_agent)
        self._pause: asyncio.TimerHandle | None = None
        self._manner = Start(None, environment=host.environment, agent=self.lends_agent)
        self._warm = Warm(
            self.connection,
            limits,
            self._manner,
            self._carried,
            # not the methods themselves: a pool sets others later
            room=lambda: self.room(),  # noqa: PLW0108
            calm=lambda: self.calm(),  # noqa: PLW0108
        )
        self.server_version = _text(
            login.connection.get_extra_info("server_version", "")
        )
        self._inquiry = Inquiry(
            host,
            self.server_version,
            limits,
            clock,
            self._warm,
            opens=self.open,
            gone=self._went,
            found=self._found,
        )
        key = login.connection.get_server_host_key()
        self.host_key_fingerprint = fingerprint(key.public_data) if key else ""
        self.auth_method = login.visitor.method
        login.visitor.on_lost = self._lost
        if login.visitor.lost:
            self._lost(login.visitor.error)

    @property
    def closed(self) -> bool:
        """It carries nothing any more."""
        return self._ended.is_set()

    @property
    def reason(self) -> str:
        """Why it is closed, in words; empty while it is open."""
        return self._why if self.closed else ""

    def widened(self, address: str) -> bool:
        """Whether the host listens on all addresses where it is asked for this one."""
        return address in self._visitor.widened

    @property
    def channels(self) -> int:
        """Channels open or being opened."""
        return self._asking + len(self._sessions)

    @property
    def peak(self) -> int:
        """The most channels it ever carried at once."""
        return self._carried.peak

    @property
    def _unanswered(self) -> bool:
        """A keepalive is out: whether anybody is there still will be known first."""
        # the library has no public name for it
        return bool(getattr(self.connection, "_keepalive_count", 0))

    @property
    def _asking(self) -> int:
        """Channels asked for that the server has not opened yet."""
        return sum(not session.sent for session in self._opening.values())

    @property
    def waiting(self) -> int:
        """Channels opened ahead, beside those of `channels`."""
        return self._warm.count

    def spare(self) -> None:
        """Give one of them up: the server has no room for what can't use it."""
        self._warm.spare()

    def prepare(self, command: str | Script, purpose: Purpose) -> None:
        """Have `command` wait on a channel for the one that is told by its input.

        Nobody waits for that; where it can't be had the next command begins as any.
        """
        if not self.closed:
            self._warm.prepared.prepare(self._start_of(command), purpose)

    def unprepare(self, series: str) -> None:
        """Keep none for that series of commands any more."""
        self._warm.prepared.drop(series)

    async def open(
        self,
        command: str | bytes | Script | Awaited | None,
        sink: Sink,
        *,
        terminal: Terminal | None = None,
        stdin: bytes = b"",
        eof: bool = False,
        fresh: bool = False,
        limits: Limits | None = None,
    ) -> Session:
        """Run `command`, or the login shell for None, on a channel of its own.

        `stdin` and its end, with `eof`, follow the command at once. A `fresh` channel
        costs a round trip more, and a dead connection is known before anything is sent.

        Raises:
            ChannelRefused: The server opens no more of them here; nothing ran.
            LinkGone: The connection ended before the command was sent; nothing ran.
            DaemonError: It did not answer in time; `ran` says what is known.
        """
        start = self._start_of(command)
        start = replace(start, terminal=terminal, stdin=stdin, eof=eof)
        if self.closed:
            raise failure.LinkGone(self.host, self.reason)
        seconds = (limits or self._limits).channel_open_seconds
        session = Session(
            self._describe_loss, sink, self._session_begun, self._session_ended
        )
        clock = asyncio.timeout(seconds)
        try:
            async with clock:
                sure = not fresh and not self._unanswered
                channel = await self._warm.take(start) if sure else None
                if channel is not None:
                    await self._start(channel, session, start)
                else:
                    await self._open(session, start)
        except BaseException as error:
            session.abandon()
            if isinstance(error, TimeoutError) and clock.expired():
                sent = session.sent
                raise failure.channel_unanswered(
                    self.host, seconds, sent=sent
                ) from None
            raise
        return session

    async def facts(self) -> ShellFacts:
        """Find out once what the login shell is; later callers get the same answer."""
        return await self._inquiry.facts()

    @property
    def known_facts(self) -> ShellFacts | None:
        """What was found out already."""
        return self._inquiry.known

    def take_facts(self, facts: ShellFacts) -> None:
        """Take over what another connection to the same account found out."""
        self._inquiry.take(facts)

    async def rtt(self) -> float:
        """Return the seconds one round trip takes now.

        Raises:
            DaemonError: No answer in time.
        """
        begun = time.perf_counter()
        seconds = self._limits.channel_open_seconds
        try:
            async with asyncio.timeout(seconds):
                # the library's own keepalive, for which it has no public name
                ask = self.connection._make_global_request  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                await ask(b"keepalive@openssh.com")
        except TimeoutError:
            raise failure.too_slow(self.host, seconds, "a keepalive's answer") from None
        if self.closed:
            raise failure.LinkGone(self.host, self.reason)
        return time.perf_counter() - begun

    async def probe(self, missed: float, seconds: float) -> None:
        """Let go of it unless it answers soon, after `missed` seconds of sleep."""
        try:
            async with asyncio.timeout(seconds):
                await self.rtt()
        except (TimeoutError, DaemonError):
            self.abort(
                f"the host no longer answered when this machine woke after {missed:.0f}"
                f" s, within {seconds:g} s"
            )

    async def close(self, why: str = "holdfast closed it") -> None:
        """Close it; what still runs on it ends as lost."""
        if not self.closed and not self._why:
            self._why, self.parted = why, True
        self.connection.close()
        try:
            async with asyncio.timeout(1.0):
                await self._ended.wait()
        except TimeoutError:
            self.abort(why)
            await self._ended.wait()
        if self._proxy is not None:
            await self._proxy.close()

    def abort(self, why: str) -> None:
        """Close it without a word to the host."""
        self._why = self._why or why
        self.connection.abort()

    async def wait_closed(self) -> None:
        """Wait until it is gone."""
        await self._ended.wait()

    async def tidy(self) -> None:
        """End the program that carries it once it is gone; ssh ends it too."""
        try:
            await self._ended.wait()
        finally:
            if self._proxy is not None:
                await self._proxy.close()

    def _start_of(self, command: str | bytes | Script | Awaited | None) -> Start:
        if command is not None and not command:
            raise InputError("command", "the command is empty")
        if isinstance(command, Awaited):
            start = self._start_of(command.whole)
            return replace(start, purpose=command.purpose, told=command.told)
        if isinstance(command, Script):
            return replace(
                self._manner, command=command.line.encode(), waiting=command.waiting
            )
        line = command.encode() if isinstance(command, str) else command
        return replace(self._manner, command=line)

    async def _open(self, session: Session, start: Start) -> None:
        """Open a channel and start there; who gives up leaves the rest to its task."""
        task = asyncio.create_task(self._open_and_start(session, start))
        self._opening[task] = session
        task.add_done_callback(self._opened)
        await asyncio.shield(task)

    async def _open_and_start(self, session: Session, start: Start) -> None:
        try:
            channel = await Waiting.open(self.connection, self._carried)
        except asyncssh.ChannelOpenError as error:
            if self._went():
                raise self._gone(session) from None
            if session.abandoned or error.code in _REFUSALS:
                raise failure.ChannelRefused(self.host, str(error.reason)) from None
            raise failure.not_started(self.host, str(error.reason)) from None
        except (asyncssh.Error, OSError) as error:
            raise self._gone(session, error) from None
        await self._start(channel, session, start)

    async def _start(self, channel: Waiting, session: Session, start: Start) -> None:
        try:
            await channel.start(session, start)
        except asyncssh.ChannelOpenError as error:
            if self._went():
                raise self._gone(session) from None
            raise failure.not_started(self.host, str(error.reason)) from None
        except (asyncssh.Error, OSError) as error:
            raise self._gone(session, error) from None

    def _went(self) -> str:
        """Return why it has ended or is ending; empty while it is open."""
        # Whoever closes it says why first. The library closes its channels at once, and
        # lets go of its transport, for which it has no public name, before it says so.
        cut = getattr(self.connection, "_transport", self) is None
        if cut or self._why or self.closed or self.connection.is_closed():
            return self._why or failure.lost_reason(None)
        return ""

    def _found(self, facts: ShellFacts) -> None:
        if self.on_facts is not None:
            self.on_facts(facts)

    def _gone(self, session: Session, error: Exception | None = None) -> DaemonError:
        why = self._why or failure.lost_reason(error)
        if session.sent:
            return failure.lost_in_start(self.host, why)
        return failure.LinkGone(self.host, why)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._opening.pop(task, None)
        _retrieve(task)
        if self.on_channel_ended is not None and not self._sessions:
            self.on_channel_ended(self)

    def _session_begun(self, session: Session) -> None:
        self._sessions.add(session)
        self._begun += 1
        self.used_at = self._clock.monotonic()
        if self._pause is not None:
            self._pause.cancel()
        self._keep_warm(_WHILE_IT_RUNS)

    def _session_ended(self, session: Session) -> None:
        self._sessions.discard(session)
        self.proven = self.proven or session.answered
        self.used_at = self._clock.monotonic()
        loop = asyncio.get_running_loop()
        self._pause = loop.call_later(_PAUSE, self._keep_warm, 0.0)
        if self.on_channel_ended is not None:
            self.on_channel_ended(self)

    def _keep_warm(self, seconds: float) -> None:
        """Have channels wait where commands run as the login shell's, and only there.

        A device may take each channel for a login, or end with its first command.
        """
        known = self._inquiry.known
        if known is not None and known.family == "posix":
            few = self._begun <= _FEW
            self._warm.fill_within(_FIRST if few else seconds)

    def _room(self) -> int:
        return self._limits.channels_per_connection - self.channels

    def _describe_loss(self, error: Exception | None) -> str | None:
        """Return why the connection is gone, or None while it is not."""
        if error is None and not self.connection.is_closed() and not self._why:
            return None
        return f"the connection to {self.host.shown} was lost: " + (
            self._why or failure.lost_reason(error)
        )

    def _lost(self, error: Exception | None) -> None:
        if self.closed:
            return
        self._why = self._why or failure.lost_reason(error)
        self._ended.set()
        self._warm.close()
        _log.info("connection to %s ended: %s", self.host.display, self._why)
        if self.on_closed is not None:
            self.on_closed(self)


def _retrieve(task: asyncio.Task[object]) -> None:
    """Look at the outcome, so that one nobody waits for is no warning."""
    if not task.cancelled():
        task.exception()


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value)
