"""The channels of one connection that were opened ahead of time, each used once."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection.demand import Demand
from holdfast_daemon.connection.prepared import Prepared
from holdfast_daemon.connection.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncssh import SSHClientConnection

    from holdfast_daemon.connection.waiting import Carried, Start
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# When to look again whether a crowd of logins is over.
_CROWD = 0.25


class Warm:
    """Keeps channels waiting while a connection is in use, within what it can carry.

    A server that refuses one, or closes one, is asked again only when a command has
    shown that it opens channels still.

    Attributes:
        prepared: Those that wait for one command only.
    """

    def __init__(
        self,
        connection: SSHClientConnection,
        limits: Limits,
        manner: Start,
        carried: Carried,
        *,
        room: Callable[[], int],
        calm: Callable[[], bool],
    ) -> None:
        """Keep channels on `connection`.

        `manner` says with what a shell starts, and `carried` counts them all; `room`
        tells how many more it may carry, and `calm` whether this is the time for it.
        """
        self._connection = connection
        self._limits = limits
        self._room = room
        self._calm = calm
        self._carried = carried
        self._manner = manner
        # whether shells may wait; asked again after each pause, for files change
        self._shells: bool | None = None
        self._demand = Demand()
        self.prepared = Prepared(
            connection,
            limits,
            carried,
            worth=self._worth_preparing,
        )
        self._waiting: list[Waiting] = []
        self._opening: set[asyncio.Task[Waiting | None]] = set()
        self._promised: deque[asyncio.Future[Waiting | None]] = deque()
        self._look: asyncio.TimerHandle | None = None
        self._open = True

    @property
    def count(self) -> int:
        """Channels that wait, or are being opened to."""
        return len(self._waiting) + len(self._opening) + self.prepared.count

    def _worth_preparing(self) -> bool:
        """One more may wait, and no shell does: that would be as good, and for all."""
        room = self._open and self._calm() and self.count < self._room()
        return room and not self._shells

    async def take(self, start: Start) -> Waiting | None:
        """Return a channel for a command, if one waits or is about to.

        While one is to be had no other channel should be opened: it is what the server
        has room for.
        """
        found = self._next(start)
        loop = asyncio.get_running_loop()
        seconds = self._limits.channels_waiting_seconds
        self._demand.asked(loop.time(), seconds, found=found is not None)
        if found is not None or len(self._promised) >= len(self._opening):
            return found
        promise: asyncio.Future[Waiting | None] = loop.create_future()
        self._promised.append(promise)
        try:
            found = await promise
        except asyncio.CancelledError:
            # kept in the same moment: another caller may use it
            if promise.done() and not promise.cancelled():
                self._keep(promise.result())
            raise
        if found is not None and not found.suits(start):
            found.close()
            return None
        return found

    def _next(self, start: Start) -> Waiting | None:
        channel = self.prepared.take(start)
        if channel is not None:
            return channel
        for channel in reversed(self._waiting):
            if channel.usable and channel.suits(start):
                self._waiting.remove(channel)
                return channel
        return None

    def adopt(self, channel: Waiting | None) -> None:
        """Keep one that a shell waits on already; None: no shell may wait there."""
        self._shells = channel is not None
        if channel is None:
            return
        if self._open and self._limits.channels_waiting:
            channel.keep()
            self._waiting.append(channel)
            seconds = self._limits.channels_waiting_seconds
            self._demand.asked(asyncio.get_running_loop().time(), seconds, found=False)
            self.fill_within(seconds)
        else:
            channel.close()

    def fill(self) -> None:
        """Open what is wanted and give back what is not; later look again."""
        self._waiting = [channel for channel in self._waiting if channel.usable]
        loop = asyncio.get_running_loop()
        now = loop.time()
        wanted = self._demand.wanted(now, self._limits.channels_waiting)
        if not wanted:
            self._shells = None
        room = self._room() - self.prepared.count
        wanted = min(wanted, max(0, room)) if self._open else 0
        count = len(self._waiting) + len(self._opening)
        if wanted > count and not self._calm():
            self.fill_within(_CROWD)
            wanted = count
        for _ in range(wanted - count):
            task = loop.create_task(self._add())
            self._opening.add(task)
            task.add_done_callback(self._added)
        while len(self._waiting) > wanted:
            self._waiting.pop().close()
        if self._waiting:
            self.fill_within(self._demand.left(now))

    def spare(self) -> None:
        """Close one that waits, if there is one; what few can use goes first."""
        if not self.prepared.spare() and self._waiting:
            self._waiting.pop().close()

    def fill_within(self, seconds: float) -> None:
        """Fill so much later, or sooner where that is planned."""
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if self._look is not None and self._look.when() <= due:
            return
        if self._look is not None:
            self._look.cancel()
        self._look = loop.call_at(due, self._look_again) if self._open else None

    def close(self) -> None:
        """Keep none any more."""
        self._open = False
        if self._look is not None:
            self._look.cancel()
        while self._waiting:
            self._waiting.pop().close()
        self.prepared.close()

    def _look_again(self) -> None:
        self._look = None
        self.fill()

    def _keep(self, channel: Waiting | None) -> None:
        if channel is not None:
            self._waiting.append(channel)
            self.fill()

    async def _add(self) -> Waiting | None:
        channel: Waiting | None = None
        try:
            channel = await Waiting.open(self._connection, self._carried)
            if self._shells is not False:
                seconds, look = self._limits.probe_seconds, self._shells is None
                self._shells = await channel.greet(self._manner, seconds, look=look)
                if self._shells:
                    return channel
                channel.close()
                channel = await Waiting.open(self._connection, self._carried)
        except (asyncssh.Error, OSError, TimeoutError) as error:
            _log.debug("no channel was opened ahead: %s", error)
            if channel is not None:
                # it says nothing: whoever waits there is not asked again soon
                self._shells = False
                channel.close()
            return None
        return channel

    def _added(self, task: asyncio.Task[Waiting | None]) -> None:
        self._opening.discard(task)
        channel = None if task.cancelled() else task.result()
        self._promised = deque(p for p in self._promised if not p.done())
        if channel is not None and self._promised:
            self._promised.popleft().set_result(channel)
        else:
            self._keep(channel)
        # each promise stands for one that is being opened
        while len(self._promised) > len(self._opening):
            self._promised.popleft().set_result(None)
