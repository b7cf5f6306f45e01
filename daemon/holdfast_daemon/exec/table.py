"""All jobs: started once, found by id from every client, kept for a day."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from holdfast_daemon import ids
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import (
    DaemonError,
    NotFoundError,
    Ran,
    Reason,
)
from holdfast_daemon.exec import quota
from holdfast_daemon.exec.claim import Claim, claim
from holdfast_daemon.exec.job import Job, Status
from holdfast_daemon.exec.ledger import Ledger
from holdfast_daemon.exec.request import ExecRequest, check
from holdfast_daemon.exec.runner import run
from holdfast_daemon.exec.site import Site
from holdfast_daemon.exec.stop import ESCALATION, send, stop
from holdfast_daemon.output import disk
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.archive import Archive
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.gate import Ticket

    Runner = Callable[[Job, Site], Awaitable[None]]

_log = logging.getLogger(__name__)

# So long the answer to a caller takes; its host forgets a command behind that.
_FAREWELL_SECONDS = 0.01
_PARTED = "the daemon stopped while it ran"
_NOT_BEGUN = "it was stopped before its host was asked to run it: nothing ran"
_LEFT = "the daemon stopped while it ran; it goes on on its host"
_LEFT_UNSURE = "the daemon stopped before it knew whether its host began it"
_LEFT_HERE = "the daemon ended while it ran; the next one goes on with it"
_NOT_FOUND_YET = (
    "the daemon has just started and still looks for it on its host: call again"
)
_HALF_BEGUN = "it was stopped while the host began it, and may still run there"


class JobTable:
    """Starts, finds, stops and forgets jobs."""

    def __init__(
        self,
        archive: Archive,
        pool: Pool,
        limits: Limits,
        clock: Clock,
        redactor: Redactor | None = None,
        *,
        check: Callable[[Ticket, Host], Awaitable[None]] | None = None,
    ) -> None:
        """Keep jobs in `archive` and run them over `pool`.

        `check` decides what was let in once more, before it logs in again.
        """
        self._check = check
        self._redactor = redactor or Redactor()
        self._archive = archive
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._sites: dict[str, Site] = {}
        self._ledger = Ledger()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._waiting: dict[str, Job] = {}
        # ended with an earlier daemon, and its host is still to forget them
        self._behind: set[str] = set()

    async def recover(self) -> None:
        """Take over the jobs of earlier runs of the daemon.

        Those that can be gone on with then wait in `unresumed`.
        """
        for job in await self._archive.recover():
            self._jobs[job.id] = job
            if job.running:
                self._waiting[job.id] = job
            elif job.kept is not None and job.kept.ident == job.id:
                self._behind.add(job.id)
            if job.claim is not None:
                self._ledger.enter(job.claim, job, self._clock.monotonic())

    def start(
        self,
        request: ExecRequest,
        host: Host,
        ticket: Ticket,
        request_id: str = "",
        *,
        runner: Runner | None = None,
        place: str = "",
    ) -> Job:
        """Start a command, or find the job that the same `request_id` started.

        `runner` runs it where that is not a channel of its own; `place` names that.

        The work belongs to the table from here on: a caller that goes away changes
        nothing.

        Raises:
            InputError: The request can't be run as asked.
            LimitError: Too many jobs run.
            StateError: The `request_id` came before with another request.
        """
        check(request, self._limits)
        caller = ticket.operation.caller
        asked: Claim | None = None
        if request_id and not request.live:
            owner = f"{caller.principal} {caller.name}"
            asked = claim(f"{owner} {place}".rstrip(), request_id, request, host)
            if (job := self._ledger.find(asked)) is not None:
                ticket.add(job_id=job.id, joined=True)
                return job
        running = {name: site.host for name, site in self._sites.items()}
        quota.check(running, host, self._limits)
        job_id = ids.job_id()
        job = Job(
            id=job_id,
            request=request,
            target=host.name,
            address=host.display,
            client=caller.label,
            instance=caller.instance,
            principal=caller.principal,
            started=self._clock.now(),
            begun=self._clock.monotonic(),
            spool=self._archive.spool(job_id),
            clock=self._clock,
        )
        self._jobs[job_id] = job
        if asked is not None:
            self._ledger.enter(asked, job, self._clock.monotonic())
        self._begin(job, host, ticket, runner or run)
        return job

    def _begin(self, job: Job, host: Host, ticket: Ticket, runner: Runner) -> None:
        keep = self._archive.renew
        check = partial(self._check, ticket, host) if self._check else None
        site = Site(host, self._pool, self._limits, self._redactor, keep, check)
        self._sites[job.id] = site
        ticket.detach()
        task = asyncio.create_task(self._work(job, site, ticket, runner))
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    def unresumed(self) -> list[Job]:
        """Return the jobs of an earlier daemon that are to be gone on with."""
        return list(self._waiting.values())

    def left_behind(self) -> list[Job]:
        """Return the ended jobs that their hosts may still keep something of."""
        return [job for job in self._jobs.values() if job.kept and not job.running]

    def forgotten(self, job: Job) -> None:
        """Note that its host keeps nothing of it any more."""
        job.kept = None
        self.let_be(job)
        if job.id in self._jobs:
            self._archive.note(job)

    def let_be(self, job: Job) -> None:
        """Note that its host will not be told of one of `left_behind` from here."""
        self._behind.discard(job.id)

    def resume(self, job: Job, host: Host, ticket: Ticket, runner: Runner) -> None:
        """Go on with one of `unresumed`: `runner` follows it to its end."""
        if self._waiting.pop(job.id, None) is not None and job.running:
            if job.onward is not None:
                job.add_note(_LEFT_HERE)
            self._begin(job, host, ticket, runner)

    def give_up(self, job: Job, why: str) -> None:
        """Have one of `unresumed` be lost: it can't be followed any more."""
        if self._waiting.pop(job.id, None) is not None and job.running:
            # whoever may not follow it is not to end it either
            job.kept = None
            job.settle(ChannelEnd(lost=why))
            job.spool.close()
            job.ended.set()
            self._archive.note(job)

    def find(self, job_id: str) -> Job:
        """Return a job by id.

        Raises:
            NotFoundError: It is unknown, or kept no longer.
        """
        job = self._jobs.get(job_id.strip())
        if job is None:
            raise NotFoundError(
                Reason.JOB_NOT_FOUND,
                f"there is no job {job_id!r}; results are kept for"
                f" {self._limits.job_keep_seconds / 3600:g} h after the end",
                hint="ssh_job_list shows the jobs that are kept.",
                metadata={"job_id": job_id},
            )
        return job

    def list(self, *, running_only: bool = False) -> list[Job]:
        """Return the jobs, newest first."""
        jobs = [j for j in self._jobs.values() if j.running or not running_only]
        return sorted(jobs, key=lambda job: job.begun, reverse=True)

    async def stop(self, job: Job, signal: str | None = None) -> str:
        """End a job, or send it one signal and give it time to react.

        Returns:
            Why it, or a part of it, goes on; empty when it has ended.
        """
        site = self._sites.get(job.id)
        if not job.running:
            return ""
        if site is None or (job.lasting and job.interrupt is None):
            return _NOT_FOUND_YET
        if job.kept is None and (signal is None or signal in ESCALATION):
            # one that its host keeps may never hear of it, and go on
            job.verdict = Status.CANCELLED
        if job.interrupt is not None:
            trouble = await job.interrupt(ESCALATION if signal is None else (signal,))
            if not trouble:
                await job.ended.wait()
            return trouble
        channel = job.channel
        if channel is None:
            # Still connecting: nothing runs yet that could be signalled.
            job.verdict = Status.CANCELLED
            self._tasks[job.id].cancel()
            await job.ended.wait()
            return ""
        names: Sequence[str] = ESCALATION if signal is None else (signal,)
        trouble = await stop(job, channel, site, names)
        if not trouble:
            await job.ended.wait()
        elif signal is None:
            # One that could not be ended is let go of: it ends as far as we know.
            job.add_note(trouble)
            channel.close()
            await job.ended.wait()
        else:
            job.verdict = None
        return trouble

    async def signal(self, job: Job, name: str) -> None:
        """Pass a person's signal on; what the command makes of it is its own affair."""
        site = self._sites.get(job.id)
        if job.running and job.interrupt is not None:
            await job.interrupt((name,))
        elif job.running and job.channel is not None and site is not None:
            await send(job, job.channel, site, name)

    def on(self, host: Host) -> Iterable[Job]:
        """Yield the running jobs that use `host`'s connections."""
        for job in self._jobs.values():
            site = self._sites.get(job.id)
            if job.running and site and site.host.needs(host):
                yield job

    async def reap(self) -> None:
        """Forget what is past its time or beyond the limits; running jobs never."""
        now = self._clock.monotonic()
        self._ledger.expire(now - self._limits.request_id_seconds)
        ended = [j for j in self._jobs.values() if j.finished is not None]
        ended.sort(key=lambda job: job.finished or 0.0)
        surplus = len(ended) - self._limits.jobs_kept
        room = self._limits.spool_total_bytes - sum(
            job.spool.end - job.spool.earliest for job in self._jobs.values()
        )
        for job in ended:
            age, size = now - (job.finished or now), job.spool.end - job.spool.earliest
            crowded = surplus > 0 or (room < 0 and size)
            if age <= self._limits.job_keep_seconds and not crowded:
                continue
            if job.kept is not None and job.id in self._behind | self._tasks.keys():
                # should we die now, the next daemon has its host forget it
                continue
            surplus -= 1
            room += size
            del self._jobs[job.id]
            self._ledger.forget(job)
            await self._archive.remove(job)

    async def keep(self, job: Job) -> None:
        """Return when its record, as it is now, is on disk."""
        await self._archive.renew(job)

    async def tell(self, job: Job) -> None:
        """Return when the job is on disk: its id is about to be told."""
        job.told = True
        await self._archive.keep(job)

    async def close(self) -> None:
        """End every job's wait; what runs on a host is hung up on by its channel.

        What the next daemon goes on with stays `running` on disk.
        """
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._archive.close()

    async def _work(self, job: Job, site: Site, ticket: Ticket, runner: Runner) -> None:
        """Run one job under its own error boundary: no fault of it reaches another."""
        ticket.add(job_id=job.id)
        about = {"job": job.id, "host": job.target, "client": job.client}
        _log.debug("job begins", extra=about)
        self._archive.note(job)
        error: DaemonError | None = None
        try:
            if job.claim is not None and job.claim.lasting:
                # Should the daemon die now, the same call must not run again.
                await self._archive.keep(job)
            await runner(job, site)
        except DaemonError as raised:
            error = raised
        except asyncio.CancelledError:
            if job.lasting and job.verdict is not Status.CANCELLED:
                await self._leave(job, ticket)
                return
            job.settle(ChannelEnd(lost=_why(job)))
        except Exception as raised:  # noqa: BLE001 - its own error boundary
            incident = ids.mint("e")
            _log.exception("job failed, incident %s", incident, extra={"job": job.id})
            error = DaemonError(
                Reason.INTERNAL,
                f"the daemon failed while running it (incident {incident})",
                hint="Its log has the incident.",
                ran=Ran.UNKNOWN if job.asked else Ran.NO,
                metadata={"incident": incident},
            )
            error.__cause__ = raised
        if job.error is not None and job.error.ran is Ran.NO:
            # The host's shell said that it did not come to the command.
            self._drop(job)
        elif job.error is not None:
            job.error.metadata.setdefault("job_id", job.id)
        await self._end(job, ticket, error)
        _log.debug("job ended: %s", error.message if error else job.status, extra=about)
        if job.farewell is not None:
            await self._forget(job, job.farewell)

    async def _end(self, job: Job, ticket: Ticket, error: DaemonError | None) -> None:
        if error is not None:
            self._fail(job, error)
        elif not job.opened.done():
            job.opened.set_result(None)
        job.spool.close()
        job.rest()
        job.begun_there.set()
        job.ended.set()
        self._sites.pop(job.id, None)
        failure = error or job.error
        try:
            # Whoever waits for the outcome gets it first; the paperwork comes after.
            await asyncio.sleep(0)
        finally:
            await ticket.finish(
                "error" if failure else job.status.value,
                exit_code=job.exit_code,
                error=failure.message if failure else (job.lost or None),
            )
        if job.id in self._jobs:
            self._archive.note(job)
        else:
            await self._archive.remove(job)

    async def _leave(self, job: Job, ticket: Ticket) -> None:
        """Part from one that the next daemon goes on with."""
        kept, note = job.kept, _LEFT_HERE
        if kept is not None:
            # of those in a session it is not noted
            known = kept.begun or kept.ident != job.id
            note = _LEFT if known else _LEFT_UNSURE
        job.add_note(note)
        if not job.opened.done():
            job.opened.set_result(None)
        job.begun_there.set()
        job.ended.set()
        job.spool.close()
        await job.spool.sync()
        await ticket.finish(job.status.value)
        await self._archive.renew(job)

    async def _forget(self, job: Job, farewell: Callable[[], Awaitable[None]]) -> None:
        """Have its host forget it once all of it is on disk here."""
        job.farewell = None
        # whoever waits for the answer has it first
        await asyncio.sleep(_FAREWELL_SECONDS)
        backoff = disk.pauses()
        while job.id in self._jobs:
            await self._archive.renew(job)
            if job.saved:
                break
            await self._pool.pauses.rest(backoff.failed())
        try:
            await farewell()
        except DaemonError as error:
            _log.info("left on its host: %s", error.message, extra={"job": job.id})
            return
        self.forgotten(job)

    def _fail(self, job: Job, error: DaemonError) -> None:
        """Settle a job that ended in an error; one of which nothing ran is not kept."""
        if job.opened.done() and error.ran is Ran.NO:
            # It was sent, so whoever raised this did not know of it.
            error.ran = Ran.UNKNOWN
        nothing = error.ran is Ran.NO
        job.error = error
        job.settle(ChannelEnd(lost=error.message))
        if not nothing:
            error.metadata.setdefault("job_id", job.id)
        if not job.opened.done():
            job.opened.set_exception(error)
            job.opened.exception()
        if nothing:
            self._drop(job)

    def _drop(self, job: Job) -> None:
        """Keep no job of which nothing ran, unless somebody knows its id."""
        self._ledger.forget(job)
        job.add_note("nothing ran")
        if not job.told:
            del self._jobs[job.id]


def _why(job: Job) -> str:
    """Say why a job's work was cut off, and so what may have become of it."""
    if job.verdict is not Status.CANCELLED:
        return _PARTED
    return _HALF_BEGUN if job.asked else _NOT_BEGUN
