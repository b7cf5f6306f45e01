"""The connections of all callers: shared, budgeted, closed when idle.

Nothing here waits on the network while holding what another caller needs: logins run as
tasks of their own, and whoever asks meanwhile waits for the same one.
"""

from __future__ import annotations

import asyncio
import logging
from random import random
from typing import TYPE_CHECKING, Self, TypeVar

from holdfast_daemon.connection import failure
from holdfast_daemon.connection.entry import Entry, Row, Wish
from holdfast_daemon.connection.lease import Lease
from holdfast_daemon.connection.link import Link
from holdfast_daemon.connection.login import log_in
from holdfast_daemon.connection.state import Backoff, Brakes
from holdfast_daemon.connection.turns import Turns
from holdfast_daemon.errors import (
    DaemonError,
    LimitError,
    LinkError,
    Reason,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Coroutine, Hashable, Iterable, Iterator, Sequence
    from types import TracebackType

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LONGEST_PAUSE = 5.0
# Whether an idle connection is due is asked this often, for the limit may change.
_LOOK_SECONDS = 30.0
# Accounts whose login shell is remembered.
_ACCOUNTS = 1000


class Pool:
    """Gives out leases on connections."""

    def __init__(self, limits: Limits, clock: Clock, redactor: Redactor) -> None:
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._entries: list[Entry] = []
        self._turns = Turns(limits)
        self._brakes = Brakes(_LONGEST_PAUSE, random)
        self._facts: dict[Hashable, ShellFacts] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Be closed at the end of the block."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close every connection."""
        await self.close()

    async def lease(self, host: Host, *, urgent: bool = False) -> Lease:
        """Return a lease on a connection to `host` with a channel to spare.

        Raises:
            DaemonError: It can't be reached, refuses the login, or a limit is met.
        """
        wish = Wish(host, urgent=urgent)
        entry, reused = await self._board(wish)
        entry.seats += 1
        self._touch(entry)
        return Lease(self, wish, entry, reused=reused)

    def find(self, host: Host) -> Link | None:
        """Return an open connection that `host` may use, if there is one."""
        for entry in self._usable(host):
            if entry.ready:
                return entry.link
        return None

    def connected(self, account: Hashable) -> bool:
        """Whether a connection to `Host.account` is open and can carry something."""
        return any(
            entry.ready and entry.host.account == account for entry in self._entries
        )

    def list(self) -> Sequence[Row]:
        """Return the connections, oldest first."""
        return tuple(entry.row(self._clock.monotonic()) for entry in self._entries)

    async def disconnect(self, host: Host, *, force: bool = False) -> bool:
        """Close the connections to `host.account`; False when there are none.

        Whoever `needs` that host loses its connection too: what goes through it ends.

        Raises:
            StateError: Something uses them, and `force` is not set.
        """
        entries = [e for e in self._entries if e.host.account == host.account]
        busy = sum(entry.load + entry.passengers for entry in entries if entry.used)
        if busy and not force:
            raise StateError(
                Reason.POLICY_DENIED,
                f"{busy} use(s) of the connection to {host.shown} would end",
                hint="end them first, or set force",
                metadata={"host": host.shown, "uses": str(busy)},
            )
        # Who disconnects may have mended the login shell.
        self._facts.pop(host.account, None)
        await self._close_all(entries, "it was disconnected on request")
        return bool(entries)

    async def close(self) -> None:
        """Close everything within the limit, politely at first."""
        self._closed = True
        try:
            async with asyncio.timeout(self._limits.stop_seconds):
                await self._close_all(list(self._entries), "holdfast stops")
        except TimeoutError:
            for entry in self._entries:
                if entry.link is not None:
                    entry.link.abort("holdfast stops")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # what leases use

    async def another(self, lease: Lease, error: DaemonError) -> Entry:
        """Return another connection for a lease whose own one refused or went away."""
        entry = lease.entry
        if isinstance(error, failure.ChannelRefused) and entry.link is not None:
            # The most it ever carried is what it can carry: a refusal alone may only
            # mean that the server has not yet cleared away a channel that ended.
            entry.learnt = max(1, min(entry.capacity, entry.link.peak))
            _log.info(
                "%s opens %d channels per connection",
                entry.host.display,
                entry.capacity,
            )
        else:
            self._weigh(lease.wish, entry)
        fresh, _ = await self._board(lease.wish, but=entry)
        fresh.seats += 1
        self.give_back(entry)
        self._touch(fresh)
        return fresh

    def give_back(self, entry: Entry) -> None:
        """Take back a seat."""
        entry.seats -= 1
        self._touch(entry)

    # finding and making connections

    async def _board(self, wish: Wish, but: Entry | None = None) -> tuple[Entry, bool]:
        """Find a connection with room, or log in."""
        reused = True
        while True:
            if self._closed:
                raise StateError(Reason.DRAINING, "the daemon is stopping")
            entries = [e for e in self._usable(wish.host) if e is not but]
            for entry in entries:
                if entry.free or (wish.tunnel and entry.ready):
                    return entry, reused
            reused = False
            self._weigh(wish, await self._wait_for_login(wish, entries))

    def _weigh(self, wish: Wish, entry: Entry) -> None:
        """Count a connection that was gone at once; give up after too many in a row."""
        if not entry.wasted:
            if entry.link is not None and entry.link.proven:
                wish.wasted = 0
            return
        wish.wasted += 1
        if wish.wasted >= self._limits.login_tries:
            why = entry.link.reason if entry.link else ""
            raise failure.closed_after_login(entry.host, wish.wasted, why)

    async def _wait_for_login(self, wish: Wish, entries: Iterable[Entry]) -> Entry:
        """Join a login under way that will have room, or start one."""
        for entry in entries:
            room = wish.tunnel or entry.passengers < entry.capacity
            if entry.login is not None and room:
                break
        else:
            entry = self._start(wish)
        login = entry.login
        if login is None:
            return entry
        entry.passengers += 1
        try:
            # Who gives up must not end the login of the others.
            await asyncio.wait({login})
        finally:
            entry.passengers -= 1
        if self._closed:
            return entry
        if login.cancelled():
            raise failure.LinkGone(entry.host, "it was disconnected on request")
        login.result()
        return entry

    def _start(self, wish: Wish) -> Entry:
        host = wish.host
        place = host.place
        same = sum(entry.host.place == place for entry in self._entries)
        # One above the limit for what ends commands: a full host must stay stoppable.
        most = self._limits.connections_per_host + (1 if wish.urgent else 0)
        if same >= most:
            raise LimitError(
                Reason.LIMIT_REACHED,
                f"{same} connections to {host.hostname} are in use: that is the limit",
                hint="wait until commands on it have ended, or raise"
                " limits.connections_per_host",
                metadata={"limit": "connections_per_host", "value": str(most)},
            )
        entry = Entry(host, self._limits, self._clock.monotonic())
        learnt = [e.learnt for e in self._usable(host) if e.learnt is not None]
        entry.learnt = min(learnt, default=None)
        for secret in entry.secrets:
            self._redactor.add(secret)
        self._entries.append(entry)
        entry.login = self._task(self._log_in(entry, urgent=wish.urgent))
        entry.login.add_done_callback(lambda task: self._logged_in(entry, task))
        return entry

    async def _log_in(self, entry: Entry, *, urgent: bool) -> Link:
        host = entry.host
        if (left := self._brakes.left(host.account, self._clock.monotonic())) > 0:
            await asyncio.sleep(left)
        if host.proxy_jump is None:
            return await self._knock(entry, None, urgent=urgent)
        way = Wish(host.proxy_jump, urgent=urgent, tunnel=True)
        try:
            carrier, _ = await self._board(way)
        except DaemonError as error:
            raise _on_the_way(host, error) from None
        carrier.passengers += 1
        try:
            link = await self._knock(entry, carrier.link, urgent=urgent)
        except BaseException:
            self._step_off(carrier)
            raise
        if carrier.link is not None:
            carrier.link.proven = True
        self._task(self._ride(link, carrier))
        return link

    async def _ride(self, link: Link, carrier: Entry) -> None:
        """Hold the jump host's connection as long as the one through it lives."""
        try:
            await link.wait_closed()
        finally:
            self._step_off(carrier)

    def _step_off(self, carrier: Entry) -> None:
        carrier.passengers -= 1
        self._touch(carrier)

    async def _knock(self, entry: Entry, via: Link | None, *, urgent: bool) -> Link:
        host, limits = entry.host, self._limits
        tunnel = via.connection if via else None
        pauses = Backoff(limits.login_pause_seconds, _LONGEST_PAUSE, random)
        while True:
            try:
                async with self._turns.turn(host, urgent=urgent):
                    login = await log_in(host, limits, tunnel)
            except LinkError as error:
                busy = error.retry_after is not None
                if not busy or pauses.failures + 1 >= limits.login_tries:
                    raise
            else:
                return Link(host, login, limits, self._clock)
            # Nothing was sent yet, so knocking again repeats nothing.
            await asyncio.sleep(pauses.failed())

    def _logged_in(self, entry: Entry, task: asyncio.Task[Link]) -> None:
        entry.login = None
        if task.cancelled() or task.exception() is not None:
            self._drop(entry)
            return
        link = task.result()
        entry.link = link
        if link.closed:
            self._gone(entry)
            return
        link.on_closed = lambda _: self._gone(entry)
        link.on_facts = lambda facts: self._remember(entry.host, facts)
        link.on_channel_ended = lambda _: self._touch(entry)
        facts = self._facts.get(entry.host.account)
        if facts is not None:
            link.take_facts(facts)
        if self._closed:
            self._task(link.close("holdfast stops"))
        self._touch(entry)

    def _usable(self, host: Host) -> Iterator[Entry]:
        """Yield what `host` may be put on, the same credentials first.

        Who names no credential may use any connection to the same account, whoever
        logged in: that is what logging in once means. Who names one gets only
        connections made by it.
        """
        identity, endpoint = host.identity, host.endpoint
        others: list[Entry] = []
        for entry in self._entries:
            if entry.closing:
                continue
            if entry.host.identity == identity:
                yield entry
            elif not host.own_credentials and entry.host.endpoint == endpoint:
                others.append(entry)
        # not a login of other credentials under way: it may fail where ours would not
        yield from (entry for entry in others if entry.ready)

    def _remember(self, host: Host, facts: ShellFacts) -> None:
        """Keep what was found out about an account for its other connections."""
        self._facts.pop(host.account, None)
        while len(self._facts) >= _ACCOUNTS:
            del self._facts[next(iter(self._facts))]
        self._facts[host.account] = facts

    # ends

    def _touch(self, entry: Entry) -> None:
        """Look at an entry again: start or stop its idle clock."""
        if entry.idle is not None:
            entry.idle.cancel()
            entry.idle = None
        if len(self._brakes) and entry.link is not None and entry.link.proven:
            self._brakes.release(entry.host.account)
        if entry.ready and not entry.used:
            entry.free_since = asyncio.get_running_loop().time()
            self._expire(entry)

    def _expire(self, entry: Entry) -> None:
        """Close an entry that nobody has used for as long as the limit now says."""
        if entry.link is None or entry.used or not entry.ready:
            return
        loop = asyncio.get_running_loop()
        due = entry.free_since + self._limits.connection_idle_seconds
        left = due - loop.time()
        if left > 0:
            pause = min(left, _LOOK_SECONDS)
            entry.idle = loop.call_later(pause, self._expire, entry)
            return
        entry.closing = True
        self._task(entry.link.close("nobody used it"))

    def _gone(self, entry: Entry) -> None:
        """Let go of a connection that has ended."""
        if entry.wasted and not self._closed:
            pause = self._limits.login_pause_seconds
            now = self._clock.monotonic()
            self._brakes.failed(entry.host.account, now, pause)
        self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        if entry.idle is not None:
            entry.idle.cancel()
        if entry in self._entries:
            self._entries.remove(entry)
            for secret in entry.secrets:
                self._redactor.remove(secret)

    async def _close_all(self, entries: Iterable[Entry], why: str) -> None:
        waits: set[asyncio.Task[None]] = set()
        # those that ride on others first
        for entry in sorted(entries, key=lambda e: e.host.proxy_jump is None):
            entry.closing = True
            if entry.login is not None:
                entry.login.cancel()
            if entry.link is not None:
                waits.add(self._task(entry.link.close(why)))
        await asyncio.gather(*waits, return_exceptions=True)

    def _task(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[object]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()


def _on_the_way(host: Host, error: DaemonError) -> DaemonError:
    """Say of a jump host's error whose way it was on."""
    if type(error).__init__ is not DaemonError.__init__:
        return error
    return type(error)(
        error.reason,
        f"on the way to {host.shown}: {error.message}",
        hint=error.hint,
        ran=error.ran,
        metadata={**error.metadata, "hop": error.metadata.get("host", "")},
        retry_after=error.retry_after,
    )
