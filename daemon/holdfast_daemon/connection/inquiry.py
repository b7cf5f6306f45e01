"""Finds out what the login shell behind a connection is: asked once, and remembered."""

from __future__ import annotations

import asyncio
import logging
import math
import re
from typing import TYPE_CHECKING, Protocol

from holdfast_daemon.connection import failure
from holdfast_daemon.connection.shell import Probe, ShellFacts, by_version
from holdfast_daemon.connection.standby import Greeting
from holdfast_daemon.connection.waiting import Listener, Waiting
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.channel import ChannelEnd, Sink
    from holdfast_daemon.connection.session import Session
    from holdfast_daemon.connection.warm import Warm
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# Others may be no systems with a shell, and take what it is told for something else.
_OPENSSH = re.compile(r"SSH-2\.0-OpenSSH_(?!for_Windows)")
# What is asked may be read as input instead: it hears of no more after so long.
_INPUT_SECONDS = 1.0
# Who did not answer is asked again after so long, and ever more rarely.
_DOUBT_SECONDS = 20.0
_DOUBT_GROWS = 4


class Opens(Protocol):
    """Opens a channel, as a connection does."""

    def __call__(
        self, command: str, sink: Sink, /, *, eof: bool = False
    ) -> Awaitable[Session]:
        """Run `command` on it."""
        ...


class Inquiry:
    """What is known of the login shell of one connection.

    Attributes:
        known: What was found out already.
    """

    def __init__(
        self,
        host: Host,
        version: str,
        limits: Limits,
        clock: Clock,
        warm: Warm,
        *,
        opens: Opens,
        gone: Callable[[], str],
        found: Callable[[ShellFacts], None],
    ) -> None:
        """Ask over channels that `opens` opens.

        `gone` says why the connection has ended, and `found` is told what others may
        rely on.
        """
        self._host = host
        self._version = version
        self._limits = limits
        self._clock = clock
        self._warm = warm
        self._opens = opens
        self._gone = gone
        self._found = found
        self.known: ShellFacts | None = None
        self._until = math.inf
        self._doubt = _DOUBT_SECONDS
        self._asking: asyncio.Task[ShellFacts] | None = None

    def take(self, facts: ShellFacts) -> None:
        """Take over what another connection to the same account found out."""
        self.known, self._until = facts, math.inf

    async def facts(self) -> ShellFacts:
        """Find it out; whoever asks meanwhile gets the same answer.

        Raises:
            DaemonError: The connection is gone, or carries no further channel.
        """
        if self.known is None:
            self.known = by_version(self._version)
        if self.known is not None and self._clock.monotonic() < self._until:
            return self.known
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
            self._asking.add_done_callback(_retrieve)
        return await asyncio.shield(self._asking)

    async def _ask(self) -> ShellFacts:
        probe = Probe()
        end: ChannelEnd | None = None
        channel: Session | None = None
        try:
            async with asyncio.timeout(self._limits.probe_seconds):
                if self._plain:
                    greeting = Greeting(look=True, probe=probe)
                    listener = Listener(greeting)
                    channel = await self._opens(greeting.command, listener)
                    end = await self._hear(channel, listener, greeting)
                else:
                    channel = await self._opens(probe.command, probe, eof=True)
                    end = await channel.ended()
        except TimeoutError:
            _log.info("%s did not answer the shell probe", self._host.display)
        except DaemonError as error:
            if isinstance(error, failure.ChannelRefused):
                raise
            if why := self._gone():
                # only a question of ours was cut off: nothing of a caller's ran
                raise failure.LinkGone(self._host, why) from None
            _log.info("%s took no shell probe: %s", self._host.display, error.message)
        finally:
            if channel is not None:
                channel.close()
        # Some devices end the connection with its first command: that is an answer.
        facts = probe.facts(self._version)
        silent = end is None or end.lost is not None
        if silent and not facts.lasting and (why := self._gone()):
            raise failure.LinkGone(self._host, why)
        self._learn(facts, sure=facts.lasting or not silent)
        return facts

    def _learn(self, facts: ShellFacts, *, sure: bool) -> None:
        self.known, self._until = facts, math.inf
        if not sure:
            # it, or we, may only have been slow
            self._until = self._clock.monotonic() + self._doubt
            self._doubt *= _DOUBT_GROWS
        # Others may be a bad day, or a start-up file that is mended tomorrow.
        if facts.lasting:
            self._found(facts)

    @property
    def _plain(self) -> bool:
        """A shell may wait there: it is asked so, at once with what it is."""
        return _OPENSSH.match(self._version) is not None and bool(
            self._limits.channels_waiting
        )

    async def _hear(
        self, channel: Session, listener: Listener, greeting: Greeting
    ) -> ChannelEnd:
        """Have the shell that was asked wait for the first command, if it may."""
        ended = asyncio.create_task(channel.ended())
        heard = asyncio.create_task(listener.heard.wait())
        try:
            await asyncio.wait(
                {ended, heard},
                timeout=_INPUT_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            waits = greeting.waits and not ended.done()
            left = channel.leave() if waits else None
            if waits or heard.done() or ended.done():
                self._warm.adopt(left if isinstance(left, Waiting) else None)
            # what else reads its input waits for the end of that
            channel.eof()
            return await ended
        finally:
            ended.cancel()
            heard.cancel()


def _retrieve(task: asyncio.Task[ShellFacts]) -> None:
    """Look at the outcome, so that one nobody waits for is no warning."""
    if not task.cancelled():
        task.exception()
