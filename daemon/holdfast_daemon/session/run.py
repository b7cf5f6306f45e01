"""Runs one command in a session, as a job like any other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from holdfast_daemon.clock import rfc3339
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.stop import ESCALATION
from holdfast_daemon.session.frame import RunBegan, RunEnded, RunPrinted
from holdfast_daemon.session.shell import RunEnd
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.session import Session
    from holdfast_daemon.session.shell import Shell

_PIECE_BYTES = 64 * 1024
# Of what was printed last, so much is waited for before the end is told.
_TELLING_SECONDS = 1.0


class Run:
    """One command in one session; give it to a job table as its runner."""

    def __init__(self, session: Session, caller: Caller) -> None:
        """Type as `caller`."""
        self._session = session
        self._caller = caller
        self._told = 0

    async def __call__(self, job: Job, site: Site) -> None:
        """Wait for its turn and run it.

        Raises:
            DaemonError: Nothing was typed: the session is busy, has ended, or can't be
                reached.
        """
        session = self._session
        try:
            async with asyncio.timeout(session.limits.session_turn_seconds):
                await session.turn.acquire()
        except TimeoutError:
            raise self._busy() from None
        try:
            await session.quiet_keyboard(self._caller)
            with session.writing(self._caller, keep=False):
                assert session.shell is not None  # noqa: S101 - who may write has one
                await self._run(job, session.shell, site)
        finally:
            session.turn.release()

    def _busy(self) -> StateError:
        session, other = self._session, self._session.job
        who = since = job_id = ""
        if other is not None:
            who, since, job_id = other.client, rfc3339(other.started), other.id
        return StateError(
            Reason.SESSION_BUSY,
            f"session {session.name or session.id} is busy: {who or 'another client'}"
            f" runs a command in it{f' since {since}' if since else ''}; nothing ran",
            hint=f"Wait for it with ssh_job_read job_id={job_id} wait_seconds=45, or"
            " use a session of your own.",
            metadata={"session": session.id, "client": who, "since": since},
        )

    async def _run(self, job: Job, shell: Shell, site: Site) -> None:
        session = self._session
        session.job = job
        session.tell(RunBegan(job.id, job.client, job.request.command))
        session.recording.run_began(job.request.command, job.client)
        telling = asyncio.create_task(self._tell_output(job))
        running = asyncio.create_task(shell.run(job))
        stopping = _Stop(job, shell, running, site)
        job.interrupt = stopping.signal
        try:
            end = await self._ended(job, running, stopping)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            job.interrupt = None
            session.job = None
            telling.cancel()
            await asyncio.gather(telling, return_exceptions=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TELLING_SECONDS):
                    while self._told < job.spool.end:
                        await self._tell_more(job)
        if end.cwd and end.cwd != session.cwd:
            session.cwd = end.cwd
            session.on_moved()
        job.settle(end.end)
        self._tell_end(job)

    async def _ended(
        self, job: Job, running: asyncio.Task[RunEnd], stopping: _Stop
    ) -> RunEnd:
        if not job.opened.done():
            job.opened.set_result(None)
        job.begun_there.set()
        timeout = job.request.timeout or None
        done, _ = await asyncio.wait({running}, timeout=timeout)
        if not done:
            job.verdict = Status.TIMED_OUT
            if trouble := await stopping.signal(ESCALATION):
                return RunEnd(ChannelEnd(lost=trouble))
        return await running

    async def _tell_output(self, job: Job) -> None:
        """Show those who look on, and the recording, what it prints."""
        while True:
            await job.spool.grown(self._told)
            await self._tell_more(job)

    async def _tell_more(self, job: Job) -> None:
        found = await job.spool.read(self._told, _PIECE_BYTES)
        # also where what was there is gone
        self._told = max(found.next_offset, self._told + 1)
        skipped = found.skipped
        for piece in found.pieces:
            error = piece.stream is Stream.ERR
            self._session.tell(RunPrinted(job.id, piece.data, error, skipped))
            self._session.recording.beside(piece.data)
            skipped = 0

    def _tell_end(self, job: Job) -> None:
        outcome = job.status.value
        if job.exit_code is not None:
            outcome = f"exit {job.exit_code}" if job.exit_code else ""
        self._session.recording.run_ended(outcome)
        self._session.tell(
            RunEnded(job.id, job.status, job.exit_code, job.signal, job.note)
        )


class _Stop:
    """Ends what runs in a session's shell, and not the shell."""

    def __init__(
        self, job: Job, shell: Shell, running: asyncio.Task[RunEnd], site: Site
    ) -> None:
        self._job = job
        self._shell = shell
        self._running = running
        self._grace = site.limits.stop_grace_seconds
        self._where = site.host.name

    async def signal(self, names: Sequence[str]) -> str:
        """Send signals in turn until it has ended; return why it did not."""
        if self._job.verdict is None and set(names) & set(ESCALATION):
            self._job.verdict = Status.CANCELLED
        async with self._job.stop_lock:
            for name in names:
                if self._running.done():
                    return ""
                await self._shell.interrupt(name)
                await asyncio.wait({self._running}, timeout=self._grace)
        if self._running.done():
            return ""
        if self._job.verdict is Status.CANCELLED and len(names) == 1:
            self._job.verdict = None
        return f"it did not end on {names[-1]} and may still run on {self._where}"
