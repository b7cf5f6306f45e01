"""Runs one script about files on a host, and brings back its answer.

One channel each time. Who asked may go away: what was begun is finished, so that no
file is left half way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason, StateError
from holdfast_daemon.exec import permit
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.exec.sudo import SudoReader
from holdfast_daemon.exec.wording import word
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.channel import Channel, ChannelEnd
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.preamble import MarkerReader
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.exec.sudo import Elevation
    from holdfast_daemon.file.script import Script

    Reader = MarkerReader | SudoReader

_log = logging.getLogger(__name__)

# Less than any server's first window.
_AT_ONCE = 32 * 1024
_SHELL = "/bin/sh"
_SAID_BYTES = 64 * 1024
# Beside the content: what a start-up file prints, and the ends of an answer.
_ROOM = 256 * 1024
_QUIET_SECONDS = 3.0


class NoShell(StateError):  # noqa: N818 - a state first, an error second
    """The host has no shell that can run a script; nothing was sent."""

    def __init__(self, site: Site) -> None:
        super().__init__(
            Reason.UNSUPPORTED,
            f"{site.host.shown} has no POSIX shell for this account: files are read,"
            " written and listed there by SFTP, without sudo, and not searched",
            hint="List directories with ssh_dir_list, or use the host's own commands.",
        )


class Answer:
    """Collects what a script prints; what is too much ends it.

    Attributes:
        reader: Takes out what is no part of its answer.
        out: Its answer, raw.
        err: What it complained of.
        overflow: It printed more than was asked for.
    """

    def __init__(self, reader: Reader | None, most: int) -> None:
        self.reader = reader
        self._most = most
        self.out = bytearray()
        self.err = bytearray()
        self.overflow = False
        self.grown = asyncio.Event()

    def received(self, stream: Stream, data: bytes) -> None:
        """Take output as it comes."""
        parts = [(stream, data)]
        if self.reader is not None:
            parts = self.reader.feed(stream, data)
        for kind, part in parts:
            self._take(kind, part)
        self.grown.set()

    def _take(self, kind: Stream, part: bytes) -> None:
        if kind is Stream.ERR:
            self.err += part[: _SAID_BYTES - len(self.err)]
            return
        self.out += part[: self._most - len(self.out)]
        self.overflow = self.overflow or len(self.out) >= self._most

    def finish(self) -> None:
        """Take what was held back."""
        if self.reader is not None and not self.reader.done:
            for kind, part in self.reader.finish():
                self._take(kind, part)
        self.grown.set()

    @property
    def said(self) -> str:
        """What it complained of, as text."""
        return bytes(self.err).decode("utf-8", "replace")


class Errand:
    """One script on one host: begun, talked with if need be, and brought to its end."""

    def __init__(
        self, site: Site, script: Script, *, most: int, sudo: bool, writes: bool
    ) -> None:
        """Prepare; `most` bytes of an answer are wanted, `writes` whether it changes.

        Nothing is sent before `run`.
        """
        self._site = site
        self._script = script
        self._most = most + _ROOM
        self._sudo = sudo
        self._writes = writes
        self._sent = False

    async def run(
        self,
        data: bytes = b"",
        reply: Callable[[bytes], bytes | None] | None = None,
    ) -> Answer:
        """Run it with `data` behind it; return what it said.

        `reply` is asked with the output so far, in a thread, until it returns what to
        send on: the rest of its input.

        Raises:
            DaemonError: It could not run, did not end in time, or was lost.
        """
        task = asyncio.create_task(self._run(data, reply))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if not self._writes:
                task.cancel()
            task.add_done_callback(_retrieve)
            raise

    async def _run(
        self, data: bytes, reply: Callable[[bytes], bytes | None] | None
    ) -> Answer:
        limits = self._site.limits
        elevation: Elevation | None = None
        clock = asyncio.timeout(limits.file_seconds)
        try:
            async with clock, contextlib.AsyncExitStack() as stack:
                if self._sudo:
                    elevation = await permit.prepare(self._site)
                lease = await stack.enter_async_context(
                    await self._site.pool.lease(self._site.host)
                )
                return await self._converse(lease, elevation, data, reply)
        except TimeoutError:
            if not clock.expired():
                raise
            raise self._late() from None
        except DaemonError as error:
            if not self._writes and error.ran is Ran.UNKNOWN:
                error.ran = Ran.NO  # what only looks has changed nothing
            raise

    def _late(self) -> DaemonError:
        ran = Ran.UNKNOWN if self._sent and self._writes else Ran.NO
        return LinkError(
            Reason.CONNECT_TIMEOUT,
            f"{self._site.host.shown} did not answer within"
            f" {self._site.limits.file_seconds:g} s",
            hint="Look at the file before it is tried again."
            if ran is Ran.UNKNOWN
            else "Ask for less: a smaller directory, a narrower glob or pattern.",
            ran=ran,
        )

    async def _converse(
        self,
        lease: Lease,
        elevation: Elevation | None,
        data: bytes,
        reply: Callable[[bytes], bytes | None] | None,
    ) -> Answer:
        site = self._site
        talk = permit.Talk(site.limits, elevation)
        request = ExecRequest(
            command=self._script.command, shell=_SHELL, sudo=self._sudo
        )
        facts = await lease.facts()
        shell = facts.family == "posix" or facts.wraps
        if facts.confined or not shell:
            raise NoShell(site)
        wording = word(
            request,
            facts,
            site.host,
            elevation=elevation,
            limits=site.limits,
            heard=talk.heard,
        )
        reader = wording.marker
        answer = Answer(reader, self._most)
        first = self._script.text + data
        at_once = elevation is None and len(first) <= _AT_ONCE
        ends = at_once and reply is None
        self._sent = True
        channel = await lease.open(
            wording.line, answer, stdin=first if at_once else b"", eof=ends
        )
        feeding = asyncio.create_task(
            self._feed(
                channel, talk, answer, first=b"" if at_once else first, reply=reply
            )
        )
        try:
            end = await self._ended(channel, answer)
        except asyncio.CancelledError:
            channel.close()
            if reader is not None and reader.group is not None:
                await asyncio.shield(self._stop(lease, reader.group))
            raise
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
            channel.close()
            answer.finish()
        refusal = wording.refusal(request, site.host, elevation, end.lost or "")
        if refusal is not None:
            raise refusal
        if end.lost is not None and not answer.overflow:
            raise LinkError(
                Reason.CONNECTION_LOST,
                f"{end.lost}; whether it was done is not known"
                if self._writes
                else end.lost,
                hint="Look at the file before it is tried again."
                if self._writes
                else "Call again.",
                ran=Ran.UNKNOWN if self._writes else Ran.NO,
            )
        return answer

    async def _feed(
        self,
        channel: Channel,
        talk: permit.Talk,
        answer: Answer,
        *,
        first: bytes,
        reply: Callable[[bytes], bytes | None] | None,
    ) -> None:
        """Send what did not go with the command, and what the talk comes to."""
        try:
            if isinstance(answer.reader, SudoReader):
                await talk.go(channel, answer.reader)
                if not answer.reader.begun:
                    return
            if first:
                await channel.write(first)
            more = None
            while reply is not None and more is None:
                known = bytes(answer.out)
                # what it makes of a large file takes longer than others may wait
                more = await asyncio.to_thread(reply, known)
                if more is None and len(answer.out) == len(known):
                    answer.grown.clear()
                    await answer.grown.wait()
            if more:
                await channel.write(more)
        except BrokenPipeError:
            _log.debug("a script about files ended before its input")
            return
        channel.eof()

    async def _ended(self, channel: Channel, answer: Answer) -> ChannelEnd:
        """Wait for the end; an answer that is too long is cut off."""
        ended = asyncio.ensure_future(channel.ended())
        try:
            while not ended.done() and not answer.overflow:
                answer.grown.clear()
                grown = asyncio.ensure_future(answer.grown.wait())
                await asyncio.wait({ended, grown}, return_when=asyncio.FIRST_COMPLETED)
                grown.cancel()
            if not ended.done():
                channel.close()
            return await ended
        finally:
            ended.cancel()

    async def _stop(self, lease: Lease, group: int) -> None:
        """End what took too long; its own channel is closed already."""
        words = f"kill -TERM -{group} 2>/dev/null||kill -TERM {group}"
        sink = Answer(None, _ROOM)
        try:
            async with asyncio.timeout(_QUIET_SECONDS):
                channel = await lease.open(words, sink, eof=True)
                await channel.ended()
        except (DaemonError, TimeoutError) as error:
            _log.info("a script about files may run on: %s", error)


def _retrieve(task: asyncio.Task[Answer]) -> None:
    """Look at the outcome, so that one nobody waits for is no warning."""
    if not task.cancelled():
        task.exception()
