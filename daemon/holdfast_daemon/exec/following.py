"""Follows a command that its host keeps: into the job's spool, through lost links."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.returning import Returning
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.kept import Kept
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.run_line import RunEnd, RunLine
    from holdfast_daemon.kept.runs import Runs

_FIRST = 0.1
_MOST = 30.0
# a line that held for so long shows a host that is back, though it had nothing to tell
_LASTING_SECONDS = 5.0
_AWAY = "its host could not be reached for a while; nothing of its output is missing"


class Following:
    """The one reader of one kept command; give it to `Runs` as sink."""

    def __init__(self, runs: Runs, job: Job, site: Site) -> None:
        self._runs = runs
        self._job = job
        self._site = site
        self._line: RunLine | None = None
        self._draining: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._backoff = Backoff(_FIRST, _MOST, random.random)
        self._returning = Returning(site.pool, site.host, site.limits)
        self._nudged = asyncio.Event()
        job.spool.patient = True

    @property
    def _kept(self) -> Kept:
        assert self._job.kept is not None  # noqa: S101  it is what there is to follow
        return self._job.kept

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what it prints; the host waits while the disk is behind."""
        spool = self._job.spool
        spool.append(stream, data)
        if spool.full and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
            self._use(self._line)

    def _use(self, line: RunLine | None) -> None:
        """Read from that one, once the disk has caught up."""
        self._line = line
        if line is not None and self._draining is not None:
            line.pause()

    async def _drain(self) -> None:
        await self._job.spool.drained()
        self._draining = None
        if self._line is not None:
            self._line.resume()

    def skipped(self, stream: Stream, offset: int) -> None:
        """Note that the host has nothing before `offset` any more."""
        job, site = self._job, self._site
        job.kept = self._kept.skipped(stream, offset, job.spool)
        name = "stderr" if stream is Stream.ERR else "stdout"
        job.add_note(
            f"the host kept no more of it: {name} before its byte {offset:,} is lost"
        )
        if site.keep is not None:
            self._recording = asyncio.create_task(_record(job, site))

    async def saved(self) -> bool:
        """Return whether what came is on disk: the host may forget it then."""
        return await self._job.spool.sync()

    async def until_end(self, line: RunLine | None = None) -> RunEnd:
        """Follow from `line` on, or from what the spool has; return how it ended.

        A lost link is no end of it: it is looked for again for as long as that takes.
        """
        try:
            self._use(line)
            end = await line.ended() if line is not None else None
            tried = line is not None
            while end is None or end.gone:
                if end is not None and not end.cut:
                    self._job.add_note(_AWAY)
                if tried:
                    await self._wait()
                tried = True
                end = await self._once() or end
            return end
        finally:
            if self._draining is not None:
                self._draining.cancel()

    async def _once(self) -> RunEnd | None:
        kept, spool = self._kept, self._job.spool
        before = spool.end
        # a word that comes from now on is for the pause after this
        self._nudged.clear()
        if self._draining is not None:
            # a new line brings more before it can be paused
            await asyncio.wait({self._draining})
        if not await self._returning.may():
            return None
        try:
            line = await self._runs.follow(
                kept.ident,
                kept.number,
                kept.nonce,
                kept.offsets(spool),
                self,
                on_skipped=self.skipped,
                saved=self.saved,
            )
        except DaemonError as error:
            # it says nothing of what is kept, nor does a full disk that takes no script
            await self._returning.met(error)
            return None
        self._returning.free()
        self._use(line)
        loop = asyncio.get_running_loop()
        since = loop.time()
        end = await line.ended()
        if spool.end > before or loop.time() - since >= _LASTING_SECONDS:
            self._backoff.succeeded()
        return end

    def nudge(self) -> None:
        """Look for the host again now, where that waits: it is known to be back."""
        self._returning.free()
        self._nudged.set()

    async def _wait(self) -> None:
        await self._site.pool.pauses.rest(self._backoff.failed(), self._nudged)

    async def forget(self) -> bool:
        """Have the host forget its output: its end is known, and all is on disk.

        False where the line is gone that could tell it so.
        """
        line = self._line
        return line is not None and line.forget() and await line.heeded()

    def leave(self) -> None:
        """Look on no more; the command goes on."""
        line, self._line = self._line, None
        if line is not None:
            line.close()


async def _record(job: Job, site: Site) -> None:
    if site.keep is not None:
        await site.keep(job)
