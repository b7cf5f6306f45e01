"""One forward: listens, carries connections, and comes back after a lost link."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from dataclasses import replace
from functools import partial
from random import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection import tunnel
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.connection.tunnel import Place, Unreached
from holdfast_daemon.errors import DaemonError, DeniedError, NeedsError
from holdfast_daemon.forward import listener, near, socket_there, socks
from holdfast_daemon.forward.about import CLOSED, State, forbidden
from holdfast_daemon.forward.guest import Guest, Nobody
from holdfast_daemon.forward.pipe import Pipe, Tally
from holdfast_daemon.forward.wish import Direction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.connection.ride import Ride
    from holdfast_daemon.forward.about import About
    from holdfast_daemon.forward.wish import Wish
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# How often it is looked whether a person has logged in meanwhile.
_LOOK_SECONDS = 1.0


class Forward:
    """A forward as long as it is kept.

    Attributes:
        listen: Where it listens, with the port that was picked.
        last_error: Why the last connection, or the last look, came to nothing.
        ended_for: Why it ended; empty: it runs.
        broken_off: Connections that were open then.
    """

    def __init__(
        self,
        about: About,
        wish: Wish,
        host: Host,
        *,
        pool: Pool,
        limits: Limits,
        clock: Clock,
        forbids: Callable[[Forward], Awaitable[str]],
        barred: Callable[[Place, Host], Awaitable[bool]],
    ) -> None:
        """Open nothing yet; `forbids` says why not, `barred` of a place here."""
        self.about = about
        self.wish = wish
        self.host = host
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._forbids = forbids
        self._barred = barred
        self.listen = wish.listen
        self._state = State.AWAY
        self._turned = asyncio.Event()
        self.last_error = ""
        self.ended_for = ""
        self.broken_off = 0
        self.served = 0
        self.refused = 0
        self.tally = Tally()
        self.used_at = clock.monotonic()
        self.ended_at: float | None = None
        self._pipes: set[Pipe] = set()
        self._listener: listener.Listener | None = None
        self._listening: tunnel.Listening | None = None
        self._ride: Ride | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.on_end: Callable[[Forward], None] | None = None

    @property
    def state(self) -> State:
        """How it stands."""
        return self._state

    @state.setter
    def state(self, state: State) -> None:
        self._state = state
        turned, self._turned = self._turned, asyncio.Event()
        turned.set()

    async def changed(self) -> None:
        """Return when it stands otherwise."""
        await self._turned.wait()

    @property
    def running(self) -> bool:
        """It is kept, whether its connection is there just now or not."""
        return self.state is not State.STOPPED

    @property
    def closing(self) -> bool:
        """Somebody closes it, or has closed it: nothing keeps it up any more."""
        return self._closing is not None

    @property
    def connections(self) -> int:
        """How many are open through it."""
        return len(self._pipes)

    @property
    def uptime(self) -> float:
        """Seconds since it was opened, until its end."""
        until = self._clock.monotonic() if self.ended_at is None else self.ended_at
        return max(0.0, until - self.about.begun)

    @property
    def idle(self) -> float:
        """Seconds that nobody has used it."""
        return 0.0 if self._pipes else self._clock.monotonic() - self.used_at

    async def open(self) -> None:
        """Listen, and find out whether the host lets it be; then keep it.

        Raises:
            DaemonError: It can't be had; nothing is left behind.
        """
        try:
            await self._settle(first=True)
            why = await self._forbids(self)
        except BaseException:
            self._let_go(CLOSED)
            raise
        if why:
            await self._end(why)
            raise forbidden(why)
        self.keep()

    def keep(self) -> None:
        """Keep it up from now on, whatever becomes of its connection."""
        self._keeper = asyncio.create_task(self._keep())
        self._keeper.add_done_callback(self._kept)

    def declare_durable(self) -> None:
        """Have it opened again after a restart of the daemon."""
        self.wish = replace(self.wish, durable=True)

    async def probe(self) -> None:
        """Look whether its target can be reached now; the outcome is in `last_error`.

        Raises:
            Unreached: The host's rules forbid it.
        """
        ride, place = self._ride, self.wish.connect
        if self.wish.direction is not Direction.LOCAL or ride is None or place is None:
            return
        try:
            async with asyncio.timeout(self._limits.channel_open_seconds):
                found = await tunnel.open_tunnel(ride.link, place, Nobody())
        except TimeoutError:
            self.last_error = f"{place} did not answer the host in time"
        except Unreached as error:
            self.last_error = error.why
            if error.prohibited:
                raise
        except DaemonError as error:
            self.last_error = error.message
        else:
            self.last_error = ""
            found.close()

    async def close(self, why: str = CLOSED, *, tell_host: bool = True) -> None:
        """Listen no more and end what goes through it, whoever waits for that.

        The host need not be told where its connection is about to be closed, but of a
        socket, which its sshd leaves behind.
        """
        if self._closing is None:
            closing = self._close(why, tell_host=tell_host)
            self._closing = asyncio.create_task(closing)
        await asyncio.shield(self._closing)

    async def _close(self, why: str, *, tell_host: bool) -> None:
        try:
            keeper, self._keeper = self._keeper, None
            if keeper is not None:
                keeper.cancel()
                await asyncio.wait({keeper})
        finally:
            await self._end(why, tell_host=tell_host)

    async def _end(self, why: str, *, tell_host: bool = True) -> None:
        try:
            await self._end_there(tell_host=tell_host)
        finally:
            self._let_go(why)

    async def _end_there(self, *, tell_host: bool) -> None:
        """Have the host listen no more, and leave no socket there."""
        listening, self._listening = self._listening, None
        ride = self._ride
        there = ride is not None and not ride.link.closed
        if listening is not None and ride is not None and there:
            if tell_host or self.listen.path:
                await listening.close(self._limits.stop_seconds)
            if self.listen.path:
                await socket_there.clear(ride.link, self.listen.path)

    # keeping it up

    async def _settle(self, *, first: bool = False) -> None:
        """Listen, on this machine or the host, on a connection that is there."""
        if self.wish.direction is not Direction.REMOTE and self._listener is None:
            self._listener = await listener.listen(
                self.listen, self._pipe, again=not first
            )
            self.listen = self._listener.place
        ride = self._ride = await self._pool.ride(self.host)
        try:
            if self.wish.direction is Direction.REMOTE:
                if self.listen.path and not first:
                    await socket_there.clear(ride.link, self.listen.path)
                self._listening = await tunnel.listen(
                    ride.link,
                    self.listen,
                    self._end_here,
                    self._limits.channel_open_seconds,
                )
                self.listen = self._listening.place
            else:
                await self._first_look(first=first)
        except BaseException:
            self._ride = None
            ride.release()
            raise
        self.state = State.UP

    async def _first_look(self, *, first: bool) -> None:
        try:
            await self.probe()
        except Unreached:
            if first:
                raise

    async def _keep(self) -> None:
        # The rules may have changed before it was among those that heed their change.
        if why := await self._forbids(self):
            await self._end(why)
            return
        if self.state is State.AWAY:
            await self._return()
        while self._ride is not None:
            link = self._ride.link
            await link.wait_closed()
            self._away(link)
            await self._return()

    def _away(self, link: Link) -> None:
        """End what went through a connection that is gone; go on listening here."""
        self.state = State.AWAY
        self.last_error = f"the connection was lost: {link.reason}"
        self._listening = None
        ride, self._ride = self._ride, None
        if ride is not None:
            ride.release()
        for pipe in list(self._pipes):
            pipe.reset()

    async def _return(self) -> None:
        limits = self._limits
        pauses = Backoff(
            limits.login_pause_seconds, limits.login_pause_max_seconds, random
        )
        while True:
            if why := await self._forbids(self):
                self._let_go(why)
                return
            try:
                await self._settle()
            except (NeedsError, DeniedError) as error:
                # Knocking again would only be refused again.
                self.last_error = error.message
                await self._somebody_logs_in()
            except DaemonError as error:
                self.last_error = error.message
                pause = max(pauses.failed(), error.retry_after or 0)
                await self._pool.pauses.rest(pause)
            else:
                if self.wish.direction is Direction.REMOTE:
                    self.last_error = ""
                _log.info("forward %s is back on %s", self.about.id, self.listen)
                return

    async def _somebody_logs_in(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if self._pool.connected(self.host.account):
                # by what the ssh configuration says now, perhaps
                now = await self._pool.renewal.of(self.host, None)
                if self._pool.find(now) is not None:
                    return

    def _kept(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        _log.error("forward %s ends", self.about.id, exc_info=task.exception())
        self._let_go("a fault of holdfast ended it")

    def _let_go(self, why: str) -> None:
        """Let go of everything; what is not known to the host ends with its tunnel."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        open_now = len(self._pipes)
        for pipe in list(self._pipes):
            pipe.reset()
        ride, self._ride = self._ride, None
        if ride is not None:
            ride.release()
        if self.running:
            self.state = State.STOPPED
            self.ended_at = self._clock.monotonic()
            self.ended_for, self.broken_off = why, open_now
            if not why.startswith(CLOSED):
                self.last_error = why
            if self.on_end is not None:
                self.on_end(self)

    # connections that begin here

    def _pipe(self) -> Pipe:
        return Pipe(self.tally, self._begun, self._over)

    def _begun(self, pipe: Pipe) -> None:
        self._pipes.add(pipe)
        self.used_at = self._clock.monotonic()
        ride = self._ride
        if ride is None or self.state is not State.UP:
            self._fail(pipe, self.last_error or "its connection is not there")
        elif len(self._pipes) > self._limits.forward_connections:
            most = self._limits.forward_connections
            self._fail(pipe, f"forward_connections, {most}, are open")
        elif self.wish.connect is not None:
            pipe.task = asyncio.create_task(
                self._carry(pipe, ride.link, self.wish.connect)
            )
        else:
            pipe.task = asyncio.create_task(self._greet(pipe, ride.link))

    def _fail(self, pipe: Pipe, why: str) -> None:
        self.refused += 1
        self.last_error = why
        pipe.reset()

    def _over(self, pipe: Pipe) -> None:
        self._pipes.discard(pipe)
        self.used_at = self._clock.monotonic()

    async def _carry(self, pipe: Pipe, link: Link, place: Place) -> None:
        try:
            await tunnel.open_tunnel(link, place, pipe, Place(*pipe.peer))
        except Unreached as error:
            self._fail(pipe, error.why)
        except DaemonError as error:
            self._fail(pipe, error.message)
        else:
            self._served()

    def _served(self) -> None:
        self.served += 1
        self.last_error = ""

    async def _greet(self, pipe: Pipe, link: Link) -> None:
        """Serve one SOCKS client."""
        greeting = socks.Greeting()
        known = asyncio.Event()

        def hear(data: bytes) -> None:
            pipe.say(greeting.feed(data))
            if greeting.over:
                pipe.heed(None)
                known.set()

        pipe.heed(hear)
        try:
            async with asyncio.timeout(self._limits.forward_greeting_seconds):
                await known.wait()
        except TimeoutError:
            self._fail(pipe, "a client did not say in time where it wants to go")
            return
        if greeting.target is None:
            self.refused += 1
            self.last_error = f"a SOCKS client was refused: {greeting.why}"
            pipe.close()
            return
        place = Place(*greeting.target)
        guest = Guest(pipe, greeting.rest)
        try:
            await tunnel.open_tunnel(link, place, guest, Place(*pipe.peer))
        except Unreached as error:
            self.refused += 1
            self.last_error = f"{place}: {error.why}"
            reply = socks.reply_to(error.why, prohibited=error.prohibited)
            pipe.say(socks.answer(reply))
            pipe.close()
        except DaemonError as error:
            self._fail(pipe, error.message)
        else:
            self._served()

    # connections that begin on the host

    async def _end_here(self, origin: Place) -> Pipe:  # noqa: ARG002
        """Connect to what a remote forward leads to."""
        self.used_at = self._clock.monotonic()
        place, ride = self.wish.connect, self._ride
        full = len(self._pipes) >= self._limits.forward_connections
        if place is None or full or ride is None:
            self.refused += 1
            raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        pipe = Pipe(self.tally, self._pipes.add, self._over, from_host=True)
        barred = partial(self._barred, place, self.host)
        try:
            await near.connect(pipe, place, barred, self._limits.channel_open_seconds)
        except OSError as error:
            self.refused += 1
            self.last_error = f"{place}: {error.strerror}"
            raise
        if ride is not self._ride:
            # Whom it was for was cut off meanwhile.
            pipe.reset()
            raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
        self._served()
        return pipe
