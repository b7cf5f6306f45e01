"""Makes connections: the one gate to each server.

Never more handshakes at once than a server bears, and after one that came to nothing
none before its time: a hundred callers of a broken host knock no more often than one.
"""

from __future__ import annotations

import asyncio
from random import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection import need
from holdfast_daemon.connection.entry import Wish
from holdfast_daemon.connection.link import Link
from holdfast_daemon.connection.login import log_in
from holdfast_daemon.connection.state import Brakes
from holdfast_daemon.connection.turns import Turns
from holdfast_daemon.errors import DaemonError, LinkError, Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.entry import Entry
    from holdfast_daemon.connection.people import People
    from holdfast_daemon.connection.tasks import Tasks
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

# The longest that a login waits for its time; it is refused where that is further off.
_PATIENCE = 5.0
_SERVERS = 1000
# More handshakes than one agent at work causes: somebody asks a fleet.
_CROWD = 4


class NotYet(LinkError):  # noqa: N818  a time first, an error second
    """A host is left in peace for now: nobody asked it."""

    def __init__(self, host: Host, left: float) -> None:
        super().__init__(
            Reason.HOST_UNREACHABLE,
            f"{host.shown} hung up on every connection lately, before a word;"
            f" holdfast does not knock again before {left:.0f} s have passed",
            hint="nothing ran; sshd does so when it is busy (MaxStartups) or punishes"
            " this address for failed logins (PerSourcePenalties), and knocking makes"
            f" it worse: call again in {left:.0f} s, or have a person look at its log",
            metadata={"host": host.shown, "seconds": f"{left:.0f}"},
            retry_after=left,
        )


class Maker:
    """Makes the connections of one pool."""

    def __init__(
        self,
        limits: Limits,
        clock: Clock,
        people: People,
        tasks: Tasks,
        *,
        board: Callable[[Wish], Awaitable[Entry]],
        step_off: Callable[[Entry], None],
    ) -> None:
        """Make them one after another.

        `board` gives the connection to a jump host, and `step_off` gives it back.
        """
        self._limits = limits
        self._clock = clock
        self._people = people
        self._tasks = tasks
        self._board = board
        self._step_off = step_off
        self._turns = Turns(limits)
        # servers that hang up before a word, and accounts where a login leads nowhere
        self._busy = Brakes(limits.login_pause_max_seconds, random)
        self._wasted = Brakes(_PATIENCE, random)
        # where accounts are that a server hung up on
        self._servers: dict[Hashable, Hashable] = {}

    @property
    def crowded(self) -> bool:
        """Whether many hosts are being logged in to at once."""
        return self._turns.taken > _CROWD

    def left(self, account: Hashable) -> float:
        """Return the seconds until the next login there may begin; 0: now."""
        now = self._clock.monotonic()
        busy = self._busy.left(self._servers.get(account), now)
        return max(0.0, busy, self._wasted.left(account, now))

    def wasted(self, host: Host) -> None:
        """Count a connection that was gone before it was of use."""
        now, pause = self._clock.monotonic(), self._limits.login_pause_seconds
        self._wasted.failed(host.account, now, pause)

    def proven(self, host: Host) -> None:
        """Forget the failures of an account: a connection was good for something."""
        if len(self._wasted):
            self._wasted.release(host.account)

    def forgive(self) -> None:
        """Forget every failure: the network is another one."""
        self._busy.clear()
        self._wasted.clear()
        self._servers.clear()

    async def make(self, entry: Entry, *, urgent: bool) -> Link:
        """Log in as `entry` says.

        Raises:
            DaemonError: It can't be reached, refuses the login, or it is not time yet.
        """
        host = entry.host
        now = self._clock.monotonic()
        if (left := self._wasted.left(host.account, now)) > 0:
            await asyncio.sleep(left)
        if host.proxy_jump is None:
            link = await self._knock(entry, None, urgent=urgent)
            if host.proxy_command:
                self._tasks.start(link.tidy())
            return link
        way = Wish(host.proxy_jump, urgent=urgent, tunnel=True, asker=entry.asker)
        try:
            carrier = await self._board(way)
        except DaemonError as error:
            raise need.on_the_way(host, error) from None
        carrier.passengers += 1
        try:
            link = await self._knock(entry, carrier.link, urgent=urgent)
        except BaseException:
            self._leave(carrier)
            raise
        if carrier.link is not None:
            carrier.link.proven = True
        self._tasks.start(self._ride(link, carrier))
        return link

    async def _ride(self, link: Link, carrier: Entry) -> None:
        """Hold the jump host's connection as long as the one through it lives."""
        try:
            await link.wait_closed()
        finally:
            self._leave(carrier)

    def _leave(self, carrier: Entry) -> None:
        carrier.passengers -= 1
        self._step_off(carrier)

    async def _knock(self, entry: Entry, via: Link | None, *, urgent: bool) -> Link:
        host, knocks = entry.host, 0
        while True:
            await self._wait(entry)
            await self._turns.take(host, urgent=urgent)
            link: Link | None = None
            try:
                if self._held(entry):
                    # another one was hung up on meanwhile
                    continue
                link = await self._log_in(entry, via)
            except LinkError as error:
                if error.retry_after is None:
                    raise
                # Nothing was sent yet, so knocking again repeats nothing.
                now, pause = self._clock.monotonic(), self._limits.login_pause_seconds
                self._busy.failed(host.server, now, pause)
                self._servers[host.account] = host.server
                while len(self._servers) > _SERVERS:
                    del self._servers[next(iter(self._servers))]
                error.retry_after = max(0.0, self._busy.left(host.server, now))
                knocks += 1
                far = error.retry_after > _PATIENCE
                if far or knocks >= self._limits.login_tries:
                    raise
            else:
                self._busy.release(host.server)
                self._servers.pop(host.account, None)
                return link
            finally:
                self._end_turn(host, link)

    def _end_turn(self, host: Host, link: Link | None) -> None:
        """End a turn; in a crowd not before the server knows that the login is done.

        sshd counts a handshake (MaxStartups) for some time after its last word.
        """
        if link is None or not self._turns.crowded(host):
            self._turns.end(host)
            return
        task = self._tasks.start(link.rtt())
        task.add_done_callback(lambda _: self._turns.end(host))

    async def _log_in(self, entry: Entry, via: Link | None) -> Link:
        host = entry.host
        try:
            aid = self._people.aid(host, entry.asker)
            tunnel = via.connection if via else None
            login = await log_in(host, self._limits, aid, tunnel)
        except DaemonError as error:
            self._people.learn(host, error)
            raise
        entry.attended = login.visitor.helped
        return Link(host, login, self._limits, self._clock)

    def _held(self, entry: Entry) -> float:
        """Return how long to hold back, and 0 for none; a person need not wait."""
        if entry.asker is not None:
            return 0.0
        now = self._clock.monotonic()
        return max(0.0, self._busy.left(entry.host.server, now))

    async def _wait(self, entry: Entry) -> None:
        """Wait until it is time to knock.

        Raises:
            LinkError: That is too far off.
        """
        while (left := self._held(entry)) > 0:
            if left > _PATIENCE:
                raise NotYet(entry.host, left)
            await asyncio.sleep(left)
