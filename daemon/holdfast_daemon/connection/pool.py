"""The connections of all callers: shared, budgeted, closed when idle.

Nothing here waits on the network while holding what another caller needs: logins run as
tasks of their own, and whoever asks meanwhile waits for the same one.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Self

from holdfast_daemon.connection import failure, need, people
from holdfast_daemon.connection.assent import Assent
from holdfast_daemon.connection.entry import Entry, Row, Wish, usable
from holdfast_daemon.connection.farewells import Farewells
from holdfast_daemon.connection.history import Kind
from holdfast_daemon.connection.idle import Idle
from holdfast_daemon.connection.lease import Lease
from holdfast_daemon.connection.maker import Maker, NotYet
from holdfast_daemon.connection.pauses import Pauses
from holdfast_daemon.connection.people import Freed, People
from holdfast_daemon.connection.renewal import Renewal
from holdfast_daemon.connection.retire import WHY as RETIRED
from holdfast_daemon.connection.retire import Retired, outdated
from holdfast_daemon.connection.ride import Ride
from holdfast_daemon.connection.room import make_room
from holdfast_daemon.connection.shells import Shells
from holdfast_daemon.connection.standing import Chronicle, Standing
from holdfast_daemon.connection.tasks import Tasks
from holdfast_daemon.errors import DaemonError, LimitError, Reason, StateError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.question import Asker
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.pending import Pending
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor

_log = logging.getLogger(__name__)


class Pool:
    """Gives out leases on connections.

    Attributes:
        farewells: What hosts are to hear before they are disconnected.
        pauses: Those of everybody who tries a host again and again.
        assent: Asks the rules again for those who wait for a connection.
        renewal: Tells how a host is reached now, for those who had it before.
    """

    def __init__(self, limits: Limits, clock: Clock, redactor: Redactor) -> None:
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._entries: list[Entry] = []
        self._shells = Shells()
        self._chronicle = Chronicle(limits, clock)
        self._tasks = Tasks()
        self._idle = Idle(limits, self._close_one)
        self._people = People(limits, clock, redactor)
        self._freed = Freed(limits)
        self._maker = Maker(
            limits,
            clock,
            self._people,
            self._tasks,
            board=self._board_carrier,
            step_off=self._touch,
        )
        self.farewells = Farewells(self.connected)
        self.pauses = Pauses()
        self.assent = Assent(clock)
        self.renewal = Renewal()
        self._closed = False

    async def __aenter__(self) -> Self:
        """Be closed at the end of the block."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close every connection."""
        await self.close()

    async def lease(self, host: Host, *, urgent: bool = False) -> Lease:
        """Return a lease on a connection to `host` with a channel to spare.

        Raises:
            DaemonError: It can't be reached, refuses the login, a limit is met, or the
                rules changed meanwhile.
        """
        wish = Wish(await self.renewal.of(host, self.find(host)), urgent=urgent)
        entry, reused = await self._seat(wish)
        return Lease(self, wish, entry, reused=reused)

    async def ride(self, host: Host) -> Ride:
        """Return a connection to lead tunnels through.

        Raises:
            DaemonError: As `lease`.
        """
        host = await self.renewal.of(host, self.find(host))
        wish, since = Wish(host, tunnel=True), self.assent.now()
        entry, _ = await self._board(wish)
        ride = Ride(entry, self._touch)
        self._touch(entry)
        await self.assent.confirm(wish, since, ride.release)
        return ride

    async def login(
        self, host: Host, asker: Asker, *, again: bool = False
    ) -> tuple[Lease, int]:
        """Log in with a person's help; return a lease, and how many others waited.

        With `again` also where a connection is open already.

        Raises:
            DaemonError: It failed, the person gave up, or another one is at it.
        """
        entries = list(self._usable(host))
        ready = next((entry for entry in entries if entry.ready), None)
        if any(entry.asker is not None for entry in entries):
            raise people.busy(host)
        wish = Wish(host, asker=asker)
        entry, waited = ready, 0
        if entry is None or again:
            self._people.forget(host)
            entry = self._start(wish)
            await self._wait_for_login(wish, [entry])
            waited = entry.waited
            if not entry.ready:
                raise failure.LinkGone(host, entry.link.reason if entry.link else "")
        entry.seats += 1
        self._touch(entry)
        return Lease(self, wish, entry, reused=entry is ready), waited

    @property
    def pending(self) -> Pending:
        """The keys that were refused, and that a person may yet trust."""
        return self._people.pending

    def retire(self, host: Host, fingerprint: str) -> Retired:
        """Put nobody on connections to the server of `host` made with another key.

        Those that nobody uses are closed, the others once what runs on them has ended.
        """
        old = list(outdated(self._entries, host, fingerprint))
        for entry in old:
            entry.retired = True
            self._touch(entry)
        ending = sum(not entry.closing for entry in old)
        return Retired(len(old) - ending, ending)

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

    def standings(self, accounts: Iterable[Hashable]) -> Sequence[Standing]:
        """Return how each `Host.account` stands, and what became of it lately."""
        return self._chronicle.standings(accounts, self.list(), self._maker.left)

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
        self._shells.forget(host.account)
        await self._close_all(entries, "it was disconnected on request")
        return bool(entries)

    async def wake(self, missed: float) -> None:
        """Ask every host whether it is still there, after `missed` seconds unattended.

        Those that do not answer soon are let go of at once: what waits for them ends
        now, and the next command logs in anew.
        """
        self._maker.forgive()
        entries = [entry for entry in self._entries if entry.ready]
        for account in {entry.host.account for entry in entries}:
            self._chronicle.note(account, Kind.WOKE, f"after {missed:.0f} s")
        links = [entry.link for entry in entries if entry.link is not None]
        seconds = self._limits.wake_probe_seconds
        await asyncio.gather(*(link.probe(missed, seconds) for link in links))
        self.pauses.end()

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
        await self._tasks.close()

    # what leases use

    async def another(self, lease: Lease, error: DaemonError) -> Entry:
        """Return another connection for a lease whose own one refused or went away."""
        entry = lease.entry
        if isinstance(error, failure.ChannelRefused) and entry.link is not None:
            # The most it ever carried is what it can carry: a refusal alone may only
            # mean that the server has not yet cleared away a channel that ended.
            carried = max(entry.link.peak, entry.link.channels + entry.link.waiting)
            entry.learnt = max(1, min(entry.capacity, carried))
            _log.info(
                "%s opens %d channels per connection",
                entry.host.display,
                entry.capacity,
            )
        else:
            self._weigh(lease.wish, entry)
        # First: this seat may be what another one waits for, and the other way round.
        self.give_back(entry)
        try:
            fresh, _ = await self._seat(lease.wish, but=entry)
        except BaseException:
            entry.seats += 1  # the lease is on it still
            raise
        return fresh

    def give_back(self, entry: Entry) -> None:
        """Take back a seat."""
        entry.seats -= 1
        self._touch(entry)

    # finding and making connections

    async def _seat(self, wish: Wish, but: Entry | None = None) -> tuple[Entry, bool]:
        """Take a seat where `_board` finds one."""
        since = self.assent.now()
        entry, reused = await self._board(wish, but)
        entry.seats += 1
        self._touch(entry)
        await self.assent.confirm(wish, since, lambda: self.give_back(entry))
        return entry, reused

    async def _board(self, wish: Wish, but: Entry | None = None) -> tuple[Entry, bool]:
        """Find a connection with room, or log in."""
        reused, waits_since = True, None
        while True:
            self._check_open()
            open_ones = list(self._usable(wish.host))
            entries = [e for e in open_ones if e is not but]
            over = self._held(wish.host) > self._limits.connections_per_host
            for entry in entries:
                if entry.takes(wish, over=over):
                    return entry, reused
            if wish.asker is None and any(e.attended and e.ready for e in open_ones):
                # One more would need a person again; what refused may have room later.
                waits_since = await self._freed.wait(wish.host, waits_since)
                but = None
                continue
            reused = False
            try:
                entry = await self._wait_for_login(wish, entries)
            except LimitError as error:
                if not wish.urgent:
                    raise
                # What has the one above the limit is urgent too, and soon over.
                waits_since = await self._freed.wait(wish.host, waits_since, error)
            except DaemonError as error:
                if not people.admit(wish, error, self._entries):
                    raise
            else:
                self._weigh(wish, entry)

    def _check_open(self) -> None:
        if self._closed:
            raise StateError(Reason.DRAINING, "the daemon is stopping")

    def _held(self, host: Host) -> int:
        """Return how many connections there are to its server."""
        held = (e for e in self._entries if not e.closing)
        return sum(entry.host.server == host.server for entry in held)

    async def _board_carrier(self, wish: Wish) -> Entry:
        """Find the connection that is the way to another host."""
        return (await self._board(wish))[0]

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
        """Join a login under way that will have room, or start one.

        Until one has succeeded it is the only one: a credential that is refused is
        refused once, however many wait.
        """
        held = list(entries)
        alone = not any(entry.ready for entry in self._usable(wish.host))
        for entry in held:
            if entry.joinable(wish, alone=alone):
                break
        else:
            entry = self._start(wish)
        login, asker = entry.login, entry.asker
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
        try:
            login.result()
        except DaemonError as error:
            if asker is None or asker is wish.asker:
                raise
            raise need.failed_for_others(entry.host, error) from None
        return entry

    def _start(self, wish: Wish) -> Entry:
        host = wish.host
        room = make_room(self._entries, host, self._limits, urgent=wish.urgent)
        for idle in room:
            self._close_one(idle, "it made room for another one")
        entry = Entry(host, self._limits, self._clock.monotonic())
        entry.extra = self._held(host) >= self._limits.connections_per_host
        entry.asker = wish.asker
        learnt = [e.learnt for e in self._usable(host) if e.learnt is not None]
        entry.learnt = min(learnt, default=None)
        for secret in entry.secrets:
            self._redactor.add(secret)
        self._entries.append(entry)
        entry.login = self._tasks.start(self._maker.make(entry, urgent=wish.urgent))
        entry.login.add_done_callback(lambda task: self._logged_in(entry, task))
        return entry

    def _logged_in(self, entry: Entry, task: asyncio.Task[Link]) -> None:
        entry.login = None
        if entry.asker is not None:
            entry.waited, entry.asker = entry.passengers - 1, None
        if task.cancelled() or task.exception() is not None:
            if not (task.cancelled() or isinstance(task.exception(), NotYet)):
                self._chronicle.failed(entry, task.exception())
            self._drop(entry)
            return
        link = task.result()
        entry.link = link
        self._chronicle.connected(entry, link)
        if link.closed:
            self._gone(entry)
            return
        link.room = lambda: entry.capacity - entry.load
        link.calm = lambda: not self._maker.crowded
        link.on_closed = lambda _: self._gone(entry)
        link.on_facts = lambda facts: self._shells.note(entry.host, facts)
        link.on_channel_ended = lambda _: self._touch(entry)
        if (facts := self._shells.of(entry.host)) is not None:
            link.take_facts(facts)
        if self._closed or entry.closing:
            self._close_one(entry, "it was closed in the moment it was made")
        self._touch(entry)
        self.pauses.connected(entry.host.account)

    def _usable(self, host: Host) -> Iterator[Entry]:
        return usable(self._entries, host)

    # ends

    def _touch(self, entry: Entry) -> None:
        """Look at an entry again: start or stop its idle clock."""
        self._freed.wake()
        if entry.link is not None and entry.link.proven:
            self._maker.proven(entry.host)
        if entry.retired and not entry.used and not entry.closing:
            self._close_one(entry, RETIRED)
        self._idle.look(entry)

    def _gone(self, entry: Entry) -> None:
        """Let go of a connection that has ended."""
        if entry.wasted and not self._closed:
            self._maker.wasted(entry.host)
        self._chronicle.ended(entry, ours=entry.closing or self._closed)
        self._drop(entry)

    def _drop(self, entry: Entry) -> None:
        self._freed.wake()
        self._idle.forget(entry)
        if entry in self._entries:
            self._entries.remove(entry)
            for secret in entry.secrets:
                self._redactor.remove(secret)

    def _close_one(self, entry: Entry, why: str) -> None:
        entry.closing = True
        if entry.link is not None:
            self._tasks.start(entry.link.close(why))

    async def _close_all(self, entries: Iterable[Entry], why: str) -> None:
        waits: set[asyncio.Task[None]] = set()
        # those that ride on others first
        for entry in sorted(entries, key=lambda e: e.host.proxy_jump is None):
            entry.closing = True
            if entry.login is not None:
                entry.login.cancel()
            if entry.link is not None:
                waits.add(self._tasks.start(entry.link.close(why)))
        await asyncio.gather(*waits, return_exceptions=True)
