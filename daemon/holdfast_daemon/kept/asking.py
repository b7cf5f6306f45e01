"""Calls the script on a host, and writes it there first where it is not yet."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.connection.failure import channel_unanswered
from holdfast_daemon.connection.standby import Awaited
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import LinkError, Ran, Reason, StateError
from holdfast_daemon.kept import script
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel, ChannelEnd, Sink
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.connection.standby import Purpose, Script
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_KEPT = 1024 * 1024
_TRIES = 3
# who finds nothing there any more may tidy up what was just written: not in step with
# them it is written again
_ABSENT_TRIES = 10
_FIRST = 0.05
_MOST = 1.0
# a shell may take so long to start, for each kind of terminal that is tried
_STARTING = 30.0


class Answer(NamedTuple):
    """What the script said."""

    end: ChannelEnd
    out: bytes
    err: bytes

    @property
    def words(self) -> str:
        """What it complained of, for people."""
        return self.err.decode("utf-8", "replace").strip()[-500:]


class _Collector:
    def __init__(self) -> None:
        self.out = b""
        self.err = b""

    def received(self, stream: Stream, data: bytes) -> None:
        if stream is Stream.ERR:
            self.err = (self.err + data)[-_KEPT:]
        elif len(self.out) < _KEPT:
            self.out += data


class _Proving:
    """Hands output on, and the first of it shows that the connection is of use.

    Such a channel ends with its connection mostly, which must not count as one that
    came to nothing: the next login would have to wait.
    """

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._link: Link | None = None
        self._heard = False

    def heard_on(self, link: Link) -> None:
        self._link = link
        link.proven = link.proven or self._heard

    def received(self, stream: Stream, data: bytes) -> None:
        if not self._heard:
            self._heard = True
            if self._link is not None:
                self._link.proven = True
        self._sink.received(stream, data)


class Asking:
    """What the script on one host is asked by."""

    def __init__(self, pool: Pool, host: Host, limits: Limits) -> None:
        self.pool = pool
        self.host = host
        self.limits = limits

    async def ask(
        self, operation: str, *words: str, stdin: bytes = b"", urgent: bool = False
    ) -> Answer:
        """Do `operation` to its end; an `urgent` one also where all channels are used.

        Raises:
            StateError: The host can keep nothing; nothing ran.
            LinkError: It can't be reached or does not answer; `ran` says what is known.
        """
        apart = Backoff(_FIRST, _MOST, random.random)
        for tried in range(_ABSENT_TRIES):
            if tried > 1:
                await asyncio.sleep(apart.failed())
            answer = await self._run(operation, words, stdin, urgent=urgent)
            if answer.end.lost is not None:
                hint = "Call again; what it was asked for may have happened."
                raise self._lost(answer.end.lost, hint, Ran.UNKNOWN)
            if answer.end.exit_code is None:
                raise self._killed(answer.end.signal)
            if answer.end.exit_code == script.ELSEWHERE:
                raise self.elsewhere(answer.words)
            if answer.end.exit_code != script.ABSENT:
                return answer
            await self.put()
        raise self.refused("its cache directory does not keep what is written there")

    async def open(
        self,
        sink: Sink,
        operation: str,
        *words: str,
        stdin: bytes = b"",
        purpose: Purpose | None = None,
    ) -> Channel:
        """Begin `operation` on a channel that stays open; no end of its stdin is sent.

        One that waits for `purpose` is only told the words.

        Where the script is not there it ends with `script.ABSENT`: `put`, and again.

        Raises:
            DaemonError: The host can't be reached.
        """
        async with await self.pool.lease(self.host) as lease:
            line: str | Script | Awaited
            line = script.call(await lease.facts(), operation, *words)
            if purpose is not None:
                rest = "" if stdin else script.rest(*words)
                line = Awaited(purpose, rest, line)
            proving = _Proving(sink)
            channel = await lease.open(line, proving, stdin=stdin)
            proving.heard_on(lease.link)
            return channel

    def prepare(self, purpose: Purpose, operation: str, *words: str) -> None:
        """Have `operation` wait for what `purpose` names, where that can be."""
        link = self.pool.find(self.host)
        facts = link.known_facts if link is not None else None
        if link is not None and facts is not None:
            link.prepare(script.call(facts, operation, *words), purpose)

    def unprepare(self, series: str) -> None:
        """Keep none for that series any more."""
        link = self.pool.find(self.host)
        if link is not None:
            link.unprepare(series)

    async def put(self) -> None:
        """Write the script to the host.

        Raises:
            StateError: That can't be done there.
            LinkError: The host can't be reached.
        """
        why, lost = "", None
        for _ in range(_TRIES):
            answer = await self._run("", (), script.source())
            if answer.end.exit_code == 0:
                return
            why, lost = answer.words or "it did not say why", answer.end.lost
        if lost is not None:
            # which says nothing of what the host can keep
            raise self._lost(lost, "Call again; nothing was begun.", Ran.NO)
        raise self.refused(f"nothing can be written there: {why}")

    def _lost(self, why: str, hint: str, ran: Ran) -> LinkError:
        told = {"host": self.host.shown}
        return LinkError(Reason.CONNECTION_LOST, why, hint=hint, ran=ran, metadata=told)

    def elsewhere(self, said: str) -> LinkError:
        """Return the error for what another machine of that name keeps."""
        return LinkError(
            Reason.CONNECTION_LOST,
            f"{self.host.shown}: {script.elsewhere(said)}",
            hint="Name one machine as the target, or disconnect and call again: the"
            " next connection may lead there.",
            metadata={"host": self.host.shown},
        )

    def _killed(self, signal: str | None) -> LinkError:
        """Return the error for a script that somebody ended: what it began goes on."""
        how = f"by SIG{signal}" if signal else "without a word"
        return LinkError(
            Reason.PROTOCOL_ERROR,
            f"{self.host.shown} does not answer as it should: it ended {how}",
            hint="Call again; what it was asked for may have happened.",
            ran=Ran.UNKNOWN,
            metadata={"host": self.host.shown},
        )

    def refused(self, why: str) -> StateError:
        """Return the error for a host that keeps nothing."""
        return StateError(
            Reason.NOT_KEPT,
            f"{self.host.shown} can't keep a shell: {why}",
            hint="Ask for durability `held`: the daemon then holds the shell itself.",
            metadata={"host": self.host.shown, "why": why},
        )

    async def _run(
        self,
        operation: str,
        words: tuple[str, ...],
        stdin: bytes,
        *,
        urgent: bool = False,
    ) -> Answer:
        seconds = self.limits.channel_open_seconds + _STARTING
        sink = _Collector()
        async with await self.pool.lease(self.host, urgent=urgent) as lease:
            facts = await lease.facts()
            if facts.confined or not (facts.family == "posix" or facts.wraps):
                raise self.refused("it has no POSIX shell that may do that")
            if operation:
                line = script.call(facts, operation, *words)
            else:
                line = script.put(facts)
            channel = await lease.open(line, sink, stdin=stdin, eof=True)
            try:
                async with asyncio.timeout(seconds):
                    end = await channel.ended()
            except TimeoutError:
                raise channel_unanswered(self.host, seconds, sent=True) from None
            finally:
                channel.close()
        return Answer(end, sink.out, sink.err)
