"""One command in a shell that is kept on its host, followed through lost links."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason
from holdfast_daemon.exec.following import Following
from holdfast_daemon.kept.run_line import UNREAD
from holdfast_daemon.kept.run_line import RunEnd as Told
from holdfast_daemon.session.shell import RunEnd, not_told, unread
from holdfast_daemon.unless import unless

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.kept import Kept
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.half import Half
    from holdfast_daemon.kept.run_line import RunLine
    from holdfast_daemon.kept.runs import Runs
    from holdfast_daemon.kept.wrapper import Family

_log = logging.getLogger(__name__)

# A silent command is looked for so often; a prompt may take its time before it.
_LOOKS_AFTER = (3.0, 3.0, 6.0, 12.0, 24.0)
_SHELL_ENDED = "the session's shell ended"
_UNSURE = "its link was lost while it was typed: it is looked up on its host"
_NEVER = "the link was lost before the command was typed; it never ran"
_ABANDONED = (
    "its session was closed while its host was away; it is ended there once that is"
    " back"
)


class KeptRun:
    """Runs the command of one job, whose record says where it is kept."""

    def __init__(self, runs: Runs, job: Job, site: Site, half: Half = "none") -> None:
        self._runs = runs
        self._half: Half = half
        self._job = job
        self._following = Following(runs, job, site)
        self._told = False
        self._beginning: asyncio.Task[RunLine] | None = None
        self._withdrawn = False
        self._abandoned = asyncio.Event()

    @property
    def _kept(self) -> Kept:
        assert self._job.kept is not None  # noqa: S101  the shell made it
        return self._job.kept

    async def run(self, family: Family) -> RunEnd:
        """Type it, and return how it ended.

        Raises:
            DaemonError: It was not typed; `ran` says whether that is sure.
        """
        job = self._job
        job.asked = True
        failpoint.reach("session.run.begun")
        self._beginning = asyncio.create_task(self._begin(family))
        try:
            line = await self._beginning
        except asyncio.CancelledError:
            if not self._withdrawn:
                raise
            job.kept = None
            return not_told(job)
        except DaemonError as error:
            if error.ran is not Ran.UNKNOWN:
                job.kept = None
                if job.verdict is not None and error.reason is Reason.SESSION_BUSY:
                    return not_told(job)
                raise
            job.add_note(_UNSURE)
            line = None
        else:
            failpoint.reach("session.run.typed")
            job.sent()
        end = await self._until_end(line)
        if end.not_begun and job.verdict is not None:
            return not_told(job)
        if end.not_begun and end.lost == UNREAD:
            return unread(job)
        if end.not_begun:
            job.kept = None
            raise LinkError(
                Reason.CONNECTION_LOST, _NEVER, hint="Run it again.", ran=Ran.NO
            )
        return self._end(end)

    async def _look_for_it(self) -> None:
        """Have one that its shell can't come to end: nobody need wait for its limit."""
        for seconds in _LOOKS_AFTER:
            await asyncio.sleep(seconds)
            if self._job.spool.end:
                return
            try:
                if await self._runs.seen(self._kept.ident, self._kept.number):
                    return
            except DaemonError as error:
                _log.debug("whether it has begun is not known: %s", error.message)

    async def _begin(self, family: Family) -> RunLine:
        kept, following = self._kept, self._following
        return await self._runs.start(
            kept.ident,
            kept.number,
            kept.nonce,
            family,
            self._job.request.command,
            following,
            half=self._half,
            on_skipped=following.skipped,
            saved=following.saved,
        )

    async def follow(self) -> RunEnd:
        """Go on with what an earlier daemon typed; it is typed by nobody again."""
        try:
            end = await self._until_end(None)
        except DaemonError as error:
            return RunEnd(ChannelEnd(lost=error.message))
        if end.not_begun:
            never = f"it never ran: {end.lost}" if end.lost == UNREAD else _NEVER
            return RunEnd(ChannelEnd(lost=never))
        return self._end(end)

    async def _until_end(self, line: RunLine | None) -> Told:
        looking = asyncio.create_task(self._look_for_it())
        try:
            end = await unless(self._abandoned, self._following.until_end(line))
        except BaseException:
            self._following.leave()
            raise
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        if end is None:
            self._following.leave()
            # its host is told of the session alone
            self._job.kept = None
            return Told(lost=_ABANDONED)
        failpoint.reach("session.run.ended")
        self._told = end.lost in (None, UNREAD)
        return end

    def withdraw(self) -> None:
        """Wait no more until it is told: its host says that it never will be."""
        if self._beginning is not None:
            self._withdrawn = True
            self._beginning.cancel()

    def abandon(self) -> None:
        """Wait no more for its end: its host is away, and its session is over."""
        self._abandoned.set()

    def nudge(self) -> None:
        """Look for its host now: that is back."""
        self._following.nudge()

    async def forget(self) -> None:
        """Have the host forget its output; all of it is on our disk."""
        if self._abandoned.is_set():
            return
        if not (self._told and await self._following.forget()):
            self._following.leave()
            await self._runs.drop(self._kept.ident, self._kept.number)
        failpoint.reach("session.run.forgotten")

    def _end(self, end: Told) -> RunEnd:
        if end.shell_ended:
            self._job.add_note(_SHELL_ENDED)
        lost = end.lost
        if lost is None and end.exit_code is None and end.signal is None:
            lost = "the host does not tell how it ended"
        if lost is not None:
            return RunEnd(ChannelEnd(lost=lost), end.cwd)
        return RunEnd(ChannelEnd(end.exit_code, end.signal), end.cwd)
