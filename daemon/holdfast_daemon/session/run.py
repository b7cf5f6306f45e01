"""Runs one command in a session, as a job like any other."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from holdfast_daemon.clock import rfc3339
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, Ran, Reason, StateError
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.stop import ESCALATION
from holdfast_daemon.session.frame import RunBegan, RunEnded, RunPrinted
from holdfast_daemon.session.shell import RunEnd, not_told
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.remote import RemoteShell
    from holdfast_daemon.session.session import Session
    from holdfast_daemon.session.shell import Shell

_PIECE_BYTES = 64 * 1024
# Of what was printed last, so much is waited for before the end is told.
_TELLING_SECONDS = 1.0
# So long a host tells what became of a command, before that is ended as overdue.
_NEWS_SECONDS = 15.0


class Run:
    """One command in one session; give it to a job table as its runner."""

    def __init__(self, session: Session, caller: Caller) -> None:
        """Type as `caller`."""
        self._session = session
        self._caller = caller

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
            await session.keys_arrived()
            with session.writing(self._caller, keep=False):
                assert session.shell is not None  # noqa: S101 - who may write has one
                shell = session.shell
                running = asyncio.create_task(shell.run(job))
                session.tell(RunBegan(job.id, job.client, job.request.command))
                session.recording.run_began(job.request.command, job.client)
                await _Attending(session, job).attend(
                    running, _Stop(job, shell, running, site)
                )
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


class Resumed:
    """One command that an earlier daemon typed in a session, to its end."""

    def __init__(self, session: Session, shell: RemoteShell, *, latest: bool) -> None:
        """Follow it in `shell`; `latest`: the session's turn, taken before, is its."""
        self._session = session
        self._shell = shell
        self._latest = latest

    async def __call__(self, job: Job, site: Site) -> None:
        """Go on with it; nothing is typed."""
        reached = asyncio.Event()
        following = asyncio.create_task(self._shell.follow(job, reached))
        if not self._latest:
            # the shell was told another since, so this one has ended
            try:
                job.settle((await following).end)
            finally:
                following.cancel()
            return
        try:
            await _Attending(self._session, job, told=job.spool.end).attend(
                following, _Stop(job, self._shell, following, site), reached
            )
        finally:
            self._session.turn.release()


class _Attending:
    """Stays with a command in a session until its end, and tells others of it."""

    def __init__(self, session: Session, job: Job, *, told: int = 0) -> None:
        """Show what it prints from `told` on."""
        self._session = session
        self._told = told
        session.job = job

    async def attend(
        self,
        running: asyncio.Task[RunEnd],
        stopping: _Stop,
        reached: asyncio.Event | None = None,
    ) -> None:
        """Wait for the end of `running`, whose host is there once that is `reached`."""
        session, job = self._session, stopping.job
        telling = asyncio.create_task(self._tell_output(job))
        job.interrupt = stopping.signal
        try:
            left = job.request.timeout or None
            if reached is not None:
                await _either(running, reached)
                if left:
                    # what its host has to tell of it comes first
                    left = max(left - job.duration, _NEWS_SECONDS)
            end = await self._ended(job, running, stopping, left)
        except DaemonError as error:
            # who looks on saw it begin
            self._tell_failure(job, error)
            raise
        except asyncio.CancelledError:
            stopping.left()
            raise
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            job.interrupt = None
            session.job = None
            # also one that an earlier daemon typed was use of it until now
            session.touch()
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
        if job.error is not None:
            self._tell_failure(job, job.error)
        else:
            self._tell_end(job)

    async def _ended(
        self,
        job: Job,
        running: asyncio.Task[RunEnd],
        stopping: _Stop,
        seconds: float | None,
    ) -> RunEnd:
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            job.verdict = Status.TIMED_OUT
            if trouble := await stopping.signal(ESCALATION):
                return RunEnd(ChannelEnd(lost=trouble))
        if running.cancelled() and stopping.withdrawn:
            return not_told(job)
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

    def _tell_failure(self, job: Job, error: DaemonError) -> None:
        said = "not run" if error.ran is Ran.NO else "lost"
        self._session.recording.run_ended(f"{said}: {error.message}")
        self._session.tell(RunEnded(job.id, Status.LOST, note=error.message))

    def _tell_end(self, job: Job) -> None:
        outcome = job.status.value
        if job.exit_code is not None:
            outcome = f"exit {job.exit_code}" if job.exit_code else ""
        self._session.recording.run_ended(outcome)
        self._session.tell(
            RunEnded(job.id, job.status, job.exit_code, job.signal, job.note)
        )


async def _either(running: asyncio.Task[RunEnd], reached: asyncio.Event) -> None:
    coming = asyncio.create_task(reached.wait())
    try:
        await asyncio.wait({running, coming}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        coming.cancel()


class _Stop:
    """Ends what runs in a session's shell, and not the shell.

    Attributes:
        withdrawn: Nothing had been asked of the host by then, and nothing is.
    """

    def __init__(
        self, job: Job, shell: Shell, running: asyncio.Task[RunEnd], site: Site
    ) -> None:
        self.job = job
        self._shell = shell
        self._running = running
        self._grace = site.limits.stop_grace_seconds
        self._where = site.host.name
        self.withdrawn = False
        # the signal on its way is one that need not end it
        self._single = False

    @property
    def _untold(self) -> bool:
        """Nothing was asked of the host, by an earlier daemon neither."""
        return not self.job.asked and self.job.kept is None

    async def signal(self, names: Sequence[str]) -> str:
        """Send signals in turn until it has ended; return why it did not."""
        if self.job.verdict is None and set(names) & set(ESCALATION):
            self.job.verdict = Status.CANCELLED
        async with self.job.stop_lock:
            self._single = len(names) == 1
            for name in names:
                if self._running.done():
                    return ""
                if self._untold and self.job.verdict is not None:
                    self.withdrawn = self._running.cancel()
                    await asyncio.wait({self._running})
                    return ""
                try:
                    await self._shell.interrupt(name)
                except DaemonError as error:
                    if self.job.verdict is Status.CANCELLED and name == names[0]:
                        # nothing was sent: it will end by itself
                        self.job.verdict = None
                    return f"{name} did not reach it, and it goes on: {error.message}"
                await asyncio.wait({self._running}, timeout=self._grace)
        if self._running.done():
            return ""
        if self.job.verdict is Status.CANCELLED and len(names) == 1:
            self.job.verdict = None
        return f"it did not end on {names[-1]} and may still run on {self._where}"

    def left(self) -> None:
        """Note that the daemon goes: what a single signal does the next one tells."""
        if self._single and self.job.kept is not None:
            self.job.verdict = None
