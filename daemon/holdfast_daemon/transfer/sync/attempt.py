"""One run of rsync on both sides, with the daemon's connection between them.

What rsync takes for ssh hands its two ends to the daemon, which starts the other rsync
on a channel of the connection it has already.
"""

from __future__ import annotations

import asyncio
import secrets
import shlex
from typing import TYPE_CHECKING, Any

from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.exec.wording import for_shell
from holdfast_daemon.file.script import quote_path
from holdfast_daemon.streams import Stream
from holdfast_daemon.transfer.sync import rsync
from holdfast_daemon.transfer.sync.itemize import Reader
from holdfast_daemon.transfer.sync.outcome import NO_PROGRAM, PROTOCOL, Complaints
from holdfast_daemon.transfer.sync.program import Running
from holdfast_daemon.transfer.sync.wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast_daemon.connection.channel import ChannelEnd
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.transfer.sync.itemize import Report
    from holdfast_daemon.transfer.sync.program import Asked, Program
    from holdfast_daemon.transfer.sync.rsync import SyncRequest

_PIECE = 64 * 1024
# For the other end to come to its end, once one has.
_PARTING_SECONDS = 5.0
# The same where rsync here has ended first: nobody takes what the host sends.
_FAREWELL_SECONDS = 0.5
_LOST = 255
# Where options begin: behind `rsync --server --sender`.
_OPTIONS = 3


class Attempt:
    """One such run.

    Attributes:
        code: What rsync of this machine returned; None: it was never begun.
        end: How the other one ended; None: it did not begin, or did not tell.
        said: What both complained of.
    """

    def __init__(
        self,
        request: SyncRequest,
        job: Job,
        site: Site,
        *,
        sent: Callable[[], None],
        guards: Sequence[str] = (),
        lock: int | None = None,
        marked: bool = False,
        telling: bool = True,
    ) -> None:
        """Run `request` for `job`, and touch nothing that `guards` leave out.

        `sent` is called once the host has been asked. `lock`: a descriptor that rsync
        of this machine holds for as long as it lives.

        `marked`: rsync there says first that it begins, so that what start-up files
        print before is dropped. A host that lets in only `rsync --server` takes no such
        words, so they are not used without need. `telling`: a sender there says what
        `guards` left out; one older than rsync 3.1 takes no such word.
        """
        self._request = request
        self._job = job
        self._limits = site.limits
        self._item = secrets.token_hex(8)
        self._mark = secrets.token_hex(8) if marked else ""
        self._sent = sent
        self._guards = guards
        self._lock = lock
        self._telling = telling and bool(guards) and not request.upload
        self._reader = Reader(self._item, site.limits.sync_changes, guards)
        self._wire: Wire | None = None
        self._running: Running | None = None
        self.code: int | None = None
        self.end: ChannelEnd | None = None
        self.said = Complaints()

    @property
    def report(self) -> Report:
        """What it did so far, with the bytes that went over the wire."""
        report = self._reader.report
        if self._wire is not None:
            report.bytes = self._wire.sent + self._wire.received_bytes
        return report

    @property
    def unclean(self) -> bool:
        """The host printed something before rsync began there; nothing was done."""
        heard = self._wire is not None and self._wire.received_bytes > 0
        return self.code == PROTOCOL and heard and not self.report.files

    @property
    def refused(self) -> bool:
        """The host's rsync did not take a word that it could do without."""
        silent = self._wire is None or not self._wire.received_bytes
        code = None if self.end is None else self.end.exit_code
        return self._telling and silent and bool(code) and code not in NO_PROGRAM

    async def run(self, found: Program, lease: Lease) -> None:
        """Run both to their ends; nothing is left behind, however it ends.

        Raises:
            DaemonError: The host can't be had; nothing ran.
        """
        running = self._running = await Running.start(
            found,
            self._request,
            mark=self._item,
            idle=self._limits.sync_idle_seconds,
            guards=self._guards,
            lock=self._lock,
        )
        before, self._job.interrupt = self._job.interrupt, self._interrupt
        reading = asyncio.gather(self._read_out(running), self._read_err(running))
        try:
            await self._converse(lease, running)
            running.leave()
            if running.process.returncode is None:
                running.stop()
                await asyncio.wait({reading}, timeout=_PARTING_SECONDS)
            else:
                await reading
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await running.end()
            self._job.interrupt = before
            if self._wire is not None:
                self._wire.close()
            self.code = running.process.returncode
            self.said.finish()

    async def _converse(self, lease: Lease, running: Running) -> None:
        """Join both ends until they have ended."""
        asked = await running.asked()
        if asked is None:
            return
        wire = self._wire = Wire(
            asked.source, asked.sink, self._complain, mark=self._mark.encode()
        )
        line = for_shell(self._line(asked), await lease.facts())
        self._job.asked = True
        channel = await lease.open(line, wire)
        self._sent()
        carrying = asyncio.create_task(wire.carry(channel))
        ending = asyncio.create_task(channel.ended())
        exiting = asyncio.create_task(running.process.wait())
        tasks: list[asyncio.Task[Any]] = [carrying, ending, exiting]
        try:
            await asyncio.wait({ending, exiting}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                tasks.append(draining := asyncio.create_task(wire.drained()))
                await asyncio.wait(
                    {draining, exiting}, return_when=asyncio.FIRST_COMPLETED
                )
                code = ending.result().exit_code
                running.answer(_LOST if code is None else code)
                wire.close()
                await asyncio.wait({exiting}, timeout=_PARTING_SECONDS)
            else:
                channel.eof()
                await asyncio.wait({ending}, timeout=_FAREWELL_SECONDS)
            self.end = ending.result() if ending.done() else None
        finally:
            channel.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _line(self, asked: Asked) -> str:
        """Return the command for the host: rsync's own words, the directory quoted."""
        words = rsync.remote(asked.words)
        if words is None:
            raise StateError(
                Reason.UNSUPPORTED,
                "rsync of this machine asks for the host in words that are not known",
                hint="Install rsync 3.1 or newer.",
            )
        if self._telling:
            words.insert(_OPTIONS, rsync.TELLING)
        place = self._request.there.rstrip("/") + "/"
        if place.startswith("-"):
            place = f"./{place}"
        line = f"{shlex.join(words)} {quote_path(place)}"
        # no exec: a restricted shell has none
        return f"printf %s {self._mark}; {line}" if self._mark else line

    async def _interrupt(self, names: Sequence[str]) -> str:  # noqa: ARG002  all end it
        """End both sides: rsync on the host ends with its input."""
        if self._running is not None:
            self._running.stop()
        return ""

    async def _read_out(self, running: Running) -> None:
        async for data in running.printed():
            await self._tell(self._reader.feed(data))
        await self._tell(self._reader.finish())

    async def _tell(self, text: bytes) -> None:
        spool = self._job.spool
        if text:
            spool.append(Stream.OUT, text)
        if spool.full:
            await spool.drained()

    async def _read_err(self, running: Running) -> None:
        stream = running.process.stderr
        while stream is not None and (data := await stream.read(_PIECE)):
            self._complain(data)
            if self._job.spool.full:
                await self._job.spool.drained()

    def _complain(self, data: bytes) -> None:
        self.said.feed(data)
        self._job.spool.append(Stream.ERR, data)
