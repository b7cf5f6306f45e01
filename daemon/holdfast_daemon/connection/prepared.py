"""Channels on which all is begun ahead but the one command they wait for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncssh import SSHClientConnection

    from holdfast_daemon.connection.standby import Purpose
    from holdfast_daemon.connection.waiting import Carried, Start
    from holdfast_daemon.limits import Limits

    # To be begun, being begun, or waiting.
    State = asyncio.TimerHandle | asyncio.Task[None] | Waiting

_log = logging.getLogger(__name__)

# Not at once: on a near host it would slow down a command that comes right away.
_PAUSE = 0.05


class Prepared:
    """Those of one connection, one for each series of commands and a few in all.

    Who finds none for a command begins it as any other. None makes room for another
    series: those that are used in turn would each end the others' for nothing.
    """

    def __init__(
        self,
        connection: SSHClientConnection,
        limits: Limits,
        carried: Carried,
        *,
        worth: Callable[[], bool],
    ) -> None:
        """Keep them on `connection`, which counts its channels as `carried`.

        `worth` tells whether this is the time and the place for one more.
        """
        self._connection = connection
        self._limits = limits
        self._carried = carried
        self._worth = worth
        self._states: dict[str, State] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = True

    @property
    def count(self) -> int:
        """Channels that wait, or are being opened to."""
        waiting = self._states.values()
        return len(self._tasks) + sum(
            isinstance(state, Waiting) and state.usable for state in waiting
        )

    def prepare(self, start: Start, purpose: Purpose) -> None:
        """Have `start` wait for the command of `purpose`, soon and for a while."""
        self.drop(purpose.series)
        loop = asyncio.get_running_loop()
        self._states[purpose.series] = loop.call_later(
            _PAUSE, self._begin, start, purpose
        )

    def take(self, start: Start) -> Waiting | None:
        """Return the one that waits for it; any other of its series goes."""
        purpose = start.purpose
        if purpose is None:
            return None
        state = self._states.get(purpose.series)
        fits = isinstance(state, Waiting) and state.purpose == purpose
        if isinstance(state, Waiting) and fits and state.usable and start.told:
            del self._states[purpose.series]
            return state
        self.drop(purpose.series)
        return None

    def drop(self, series: str) -> None:
        """Keep none for that series any more."""
        state = self._states.pop(series, None)
        if isinstance(state, asyncio.TimerHandle):
            state.cancel()
        elif isinstance(state, Waiting):
            state.close()
        # who is being opened finds out

    def spare(self) -> bool:
        """Close one that waits; False: there is none."""
        for series, state in self._states.items():
            if isinstance(state, Waiting) and state.usable:
                self.drop(series)
                return True
        return False

    def close(self) -> None:
        """Keep none any more."""
        self._open = False
        for series in list(self._states):
            self.drop(series)

    def _begin(self, start: Start, purpose: Purpose) -> None:
        del self._states[purpose.series]
        most = self._limits.channels_prepared if self._limits.channels_waiting else 0
        if self.count < most and self._worth():
            task = asyncio.create_task(self._prepare(start, purpose))
            self._states[purpose.series] = task
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _prepare(self, start: Start, purpose: Purpose) -> None:
        channel, ready = None, False
        try:
            channel = await Waiting.open(self._connection, self._carried)
            async with asyncio.timeout(self._limits.channel_open_seconds):
                ready = await channel.prepare(start, purpose)
        except (asyncssh.Error, OSError) as error:
            _log.debug("no channel was prepared: %s", error)
        wanted = self._states.get(purpose.series) is asyncio.current_task()
        if wanted:
            del self._states[purpose.series]
        if channel is None:
            return
        if not (wanted and ready and self._open):
            channel.close()
            return
        self._states[purpose.series] = channel
        seconds = self._limits.channels_waiting_seconds
        asyncio.get_running_loop().call_later(seconds, self._expire, purpose, channel)

    def _expire(self, purpose: Purpose, channel: Waiting) -> None:
        if self._states.get(purpose.series) is channel:
            self.drop(purpose.series)
