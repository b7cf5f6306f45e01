"""One command in a shell that is kept on its host, followed through lost links."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import LinkError, Ran, Reason
from holdfast_daemon.kept.runs import new_nonce
from holdfast_daemon.session.shell import RunEnd
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.kept.run_line import RunEnd as Told
    from holdfast_daemon.kept.run_line import RunLine
    from holdfast_daemon.kept.runs import Runs
    from holdfast_daemon.kept.wrapper import Family

_FIRST = 0.1
_MOST = 30.0
_SHELL_ENDED = "the session's shell ended"
_AWAY = "its host could not be reached for a while; nothing of its output is missing"


class KeptRun:
    """Runs the command of one job as the `number`th of its shell."""

    def __init__(self, runs: Runs, ident: str, number: int, job: Job) -> None:
        self._runs = runs
        self._ident = ident
        self._number = number
        self._job = job
        self._nonce = new_nonce()
        self._line: RunLine | None = None
        self._draining: asyncio.Task[None] | None = None
        self._backoff = Backoff(_FIRST, _MOST, random.random)

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what it prints; the host waits while the disk is behind."""
        spool = self._job.spool
        spool.append(stream, data)
        if spool.full and self._draining is None:
            if self._line is not None:
                self._line.pause()
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        await self._job.spool.drained()
        self._draining = None
        if self._line is not None:
            self._line.resume()

    def _skipped(self, stream: Stream, offset: int) -> None:
        name = "stderr" if stream is Stream.ERR else "stdout"
        self._job.add_note(
            f"the host kept no more of it: {name} before its byte {offset:,} is lost"
        )

    async def run(self, family: Family) -> RunEnd:
        """Type it, and return how it ended.

        Raises:
            DaemonError: It was not typed; `ran` says whether that is sure.
        """
        self._job.asked = True
        line = self._line = await self._runs.start(
            self._ident,
            self._number,
            self._nonce,
            family,
            self._job.request.command,
            self,
            on_skipped=self._skipped,
        )
        try:
            end = await line.ended()
            while end.gone:
                self._job.add_note(_AWAY)
                end = await self._follow(line.offsets)
        except BaseException:
            self._leave()
            raise
        return self._told(end)

    async def forget(self) -> None:
        """Have the host forget its output once all of it is on our disk."""
        await self._job.spool.sync()
        if self._line is not None:
            self._line.forget()

    async def _follow(self, offsets: tuple[int, int]) -> Told:
        """Look on again where the link was lost, for as long as that takes."""
        while True:
            await asyncio.sleep(self._backoff.failed())
            try:
                line = self._line = await self._runs.follow(
                    self._ident,
                    self._number,
                    self._nonce,
                    offsets,
                    self,
                    on_skipped=self._skipped,
                )
            except LinkError:
                continue
            end = await line.ended()
            if line.offsets != offsets:
                self._backoff.succeeded()
            offsets = line.offsets
            if not end.gone:
                return end

    def _leave(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            line.close()
        if self._draining is not None:
            self._draining.cancel()

    def _told(self, end: Told) -> RunEnd:
        if end.not_begun:
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the link was lost before the command was typed; it never ran",
                hint="Run it again.",
                ran=Ran.NO,
            )
        if end.shell_ended:
            self._job.add_note(_SHELL_ENDED)
        lost = end.lost
        if lost is None and end.exit_code is None and end.signal is None:
            lost = "the host does not tell how it ended"
        if lost is not None:
            return RunEnd(ChannelEnd(lost=lost), end.cwd)
        return RunEnd(ChannelEnd(end.exit_code, end.signal), end.cwd)
