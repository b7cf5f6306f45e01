"""Runs one copy as a job."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, LimitError, LinkError, Ran, Reason
from holdfast_daemon.exec.job import Status
from holdfast_daemon.streams import Stream
from holdfast_daemon.transfer.means.again import not_resumed, reached
from holdfast_daemon.transfer.means.errand import (
    CopyRequest,
    Means,
    failed,
    listed,
    local,
)
from holdfast_daemon.transfer.means.stream import Cut
from holdfast_daemon.transfer.means.tally import Tally, size
from holdfast_daemon.transfer.past import KEPT, begun, coming, ended, key_of, recalled
from holdfast_daemon.transfer.way import Work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.onward import Onward
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.transfer.means.placing import Placing
    from holdfast_daemon.transfer.means.rate import Rate
    from holdfast_daemon.transfer.means.roots import Roots
    from holdfast_daemon.transfer.means.signature import Signature

_log = logging.getLogger(__name__)

# So long the end of a copy waits for what is half to be deleted, and the deletion for
# a link that is slow, or full of what was sent.
_TIDYING_SECONDS = 5.0
_TIDYING_MOST = 180.0
_PARTS = "what had come lies beside its place still; the same copy goes on from there"
_LEFT = (
    "its parts could not be deleted so far: {name} is left beside its place, and goes"
    " with the next copy of the same"
)
_SOME = "it was stopped while all was put in its place: some of it may be there"
_PROGRESS_SECONDS = 1.0


class Copies:
    """What all copies of a daemon share.

    Attributes:
        rate: Bounds them together.
        signature: Tells their parts from those of another daemon's.
        turn: So many run at once.
        under_way: The places that are written to now, each with its job.
    """

    def __init__(self, rate: Rate, running: int, signature: Signature) -> None:
        """Let `running` run at once."""
        self.rate = rate
        self.signature = signature
        self.turn = asyncio.Semaphore(running)
        self.under_way: dict[bytes, str] = {}
        self._tidying: dict[bytes, asyncio.Task[bool]] = {}

    def tidy(self, key: bytes, tidying: asyncio.Task[bool]) -> None:
        """Let nobody write to a place until what lay there is deleted."""
        self._tidying[key] = tidying
        tidying.add_done_callback(lambda _: self._tidied(key))

    def _tidied(self, key: bytes) -> None:
        del self._tidying[key]
        self.under_way.pop(key, None)

    def leave(self, key: bytes) -> None:
        """Note that a copy has ended."""
        if key not in self._tidying:
            self.under_way.pop(key, None)


class Copy:
    """One copy; give it to a job table as its runner.

    Attributes:
        tally: How far it is.
        sha256: Of the file, where it is one.
        fault: Why not all of it was done; None: it was, or goes on.
    """

    def __init__(
        self,
        request: CopyRequest,
        roots: Roots,
        shared: Copies,
        caller: Caller,
        *,
        past: Onward | None = None,
    ) -> None:
        """Copy as `request` says, once it is run.

        `past`: what an earlier daemon knew of it, which began it.
        """
        self._request = request
        self._roots = roots
        self._shared = shared
        self._caller = caller
        self._past = past
        self._begun = False
        # It may be that something has its place by now.
        self._placing = False
        self.tally = Tally(resumed=past is not None)
        self.sha256 = ""
        self.fault: DaemonError | None = None

    async def __call__(self, job: Job, site: Site) -> None:
        """Run it.

        Raises:
            DaemonError: Nothing was changed.
        """
        past, under_way = self._past, self._shared.under_way
        key = key_of(past) if past else self._key(site)
        if (other := under_way.get(key, job.id)) != job.id:
            raise LimitError(
                Reason.IN_USE,
                f"the same is being copied already, as job {other}",
                hint=f"Follow it with ssh_job_read job_id={other}.",
                metadata={"job_id": other},
            )
        under_way[key] = job.id

        def sent() -> None:
            self._begun = True
            job.sent()

        async def note(placing: Placing) -> None:
            self._placing = True
            if job.onward is not None:
                job.onward = coming(job.onward, placing, means)
                await _keep(job, site)
                failpoint.reach("copy.placing")

        means = Means(
            site,
            self.tally,
            self._shared.rate,
            self._roots,
            say=_saying(job),
            begun=sent,
            key=key,
            placing=note,
        )
        work = Work(self._request, means)
        working = asyncio.create_task(self._work(work, means, job))
        telling = asyncio.create_task(self._tell(job))

        async def interrupt(names: Sequence[str]) -> str:  # noqa: ARG001  all end it
            working.cancel()
            return ""

        job.interrupt = interrupt
        try:
            timeout = job.request.timeout or None
            done, _ = await asyncio.wait({working}, timeout=timeout)
            if not done:
                job.verdict = Status.TIMED_OUT
                working.cancel()
                await asyncio.wait({working})
            await self._settle(job, work, working, means)
            if job.onward is not None:
                job.onward = ended(job.onward, self.tally, self.sha256, self.fault)
        finally:
            job.interrupt = None
            for task in (working, telling):
                task.cancel()
            await asyncio.gather(working, telling, return_exceptions=True)
            self._shared.leave(key)

    def _key(self, site: Site) -> bytes:
        return self._request.key(site.host.name, self._shared.signature())

    async def _work(self, work: Work, means: Means, job: Job) -> None:
        site, past = means.site, self._past
        if past is None:
            job.onward = begun(self._request, means.key, self._caller)
            await _keep(job, site)
            failpoint.reach("copy.recorded")
        else:
            await reached(site)
        async with self._shared.turn:
            placing = recalled(past, means)
            if placing is None:
                await work.run()
            else:
                self._begun = self._placing = True
                await work.place(placing)
        failpoint.reach("copy.placed")

    async def _tell(self, job: Job) -> None:
        """Write how far it is into the job's output, now and then."""
        told = -1
        while True:
            await asyncio.sleep(_PROGRESS_SECONDS)
            if self.tally.moved != told:
                told = self.tally.moved
                line = self.tally.line(job.clock.monotonic())
                job.spool.append(Stream.OUT, f"{line}\n".encode())

    async def _settle(
        self,
        job: Job,
        work: Work,
        working: asyncio.Task[None],
        means: Means,
    ) -> None:
        """Say what came of it.

        Raises:
            DaemonError: Nothing was changed.
        """
        if not self._placing:
            self.tally.files = 0
        if working.cancelled():
            await self._stopped(job, work, means.key)
            return
        error = _told(working.exception())
        if isinstance(error, DaemonError) and self._past and not self._begun:
            self.fault = error
            job.settle(ChannelEnd(lost=not_resumed(error, KEPT)))
            return
        cut = isinstance(error, LinkError)
        if error is not None and not cut:
            await self._drop(work, means.key, job)
        if error is not None and not (
            isinstance(error, DaemonError) and job.opened.done()
        ):
            raise error
        self.sha256 = means.sha256 if self.tally.wanted == 1 and not error else ""
        self.fault = (
            error if isinstance(error, DaemonError) else failed(means, job.target)
        )
        if means.left:
            means.notes.append(f"{len(means.left)} left out: {listed(means.left)}")
        for note in means.notes:
            job.add_note(note)
        if isinstance(error, LinkError):
            job.settle(ChannelEnd(lost=error.message))
        else:
            job.settle(ChannelEnd(exit_code=0 if self.fault is None else 1))
            job.add_note(self.fault.message if self.fault is not None else "")
        self._summarise(job)

    async def _stopped(self, job: Job, work: Work, key: bytes) -> None:
        if self._placing:
            job.add_note(_SOME)
        if self._past and not self._begun:
            job.add_note(_PARTS)
        await self._drop(work, key, job)
        job.settle(ChannelEnd(signal="TERM"))
        self._summarise(job)

    async def _drop(self, work: Work, key: bytes, job: Job) -> None:
        """Leave nothing half behind; where that takes long nobody waits for it."""
        tidying = asyncio.create_task(_tidy(work))
        await asyncio.wait({tidying}, timeout=_TIDYING_SECONDS)
        if not tidying.done():
            self._shared.tidy(key, tidying)
        if not tidying.done() or not tidying.result():
            job.add_note(_LEFT.format(name=key.decode()))

    def _summarise(self, job: Job) -> None:
        tally = self.tally
        line = (
            f"{tally.files} files copied, {size(tally.moved)} in {job.duration:.1f} s"
        )
        if tally.skipped:
            line += f"; {tally.skipped} left as they were"
        job.spool.append(Stream.OUT, f"{line}\n".encode())


def _told(error: BaseException | None) -> BaseException | None:
    """Return an error in our own terms, where it is one that is known."""
    if isinstance(error, OSError):
        return local(error, str(error.filename or "a file"), write=True)
    if isinstance(error, Cut):
        return LinkError(
            Reason.CONNECTION_LOST, f"the copy was cut off: {error}", ran=Ran.NO
        )
    return error


def _saying(job: Job) -> Callable[[str], None]:
    """Return what writes a line into the job's output, also from a thread."""
    loop = asyncio.get_running_loop()

    def say(line: str) -> None:
        data = f"{line}\n".encode()
        if threading.get_ident() == home:
            job.spool.append(Stream.ERR, data)
        else:
            loop.call_soon_threadsafe(job.spool.append, Stream.ERR, data)

    home = threading.get_ident()
    return say


async def _keep(job: Job, site: Site) -> None:
    if site.keep is not None:
        await site.keep(job)


async def _tidy(work: Work) -> bool:
    """Delete what is half; return whether it is."""
    try:
        async with asyncio.timeout(_TIDYING_MOST):
            await work.drop()
    except (DaemonError, Cut, OSError) as error:  # TimeoutError is one
        _log.info("a copy's parts were left: %s", error)
        return False
    return True
