"""Runs one sync as a job: by rsync, or without it by our own comparison."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.connection.sftp_tree import sftp_tree
from holdfast_daemon.errors import DaemonError, LimitError, Reason
from holdfast_daemon.file.script import sftp_path
from holdfast_daemon.streams import Stream
from holdfast_daemon.transfer.here.local_tree import trouble
from holdfast_daemon.transfer.means.again import not_resumed, reached
from holdfast_daemon.transfer.sync import anew, guard, outcome, program, rsync
from holdfast_daemon.transfer.sync.attempt import Attempt
from holdfast_daemon.transfer.sync.itemize import Report
from holdfast_daemon.transfer.sync.mirror import Mirror, NoSource, TooLargeError
from holdfast_daemon.transfer.sync.outcome import (
    IDLE,
    NO_PROGRAM,
    PARTIAL,
    VANISHED,
    Complaints,
)
from holdfast_daemon.transfer.sync.past import KEPT, Begun, begun, ended, known_of
from holdfast_daemon.transfer.sync.resolve import resolved
from holdfast_daemon.transfer.tree.draft import is_draft, token
from holdfast_daemon.transfer.tree.pattern import Excluded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.sftp_tree import SftpTree
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.onward import Onward
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.transfer.means.roots import Roots
    from holdfast_daemon.transfer.sync.rsync import SyncRequest

# What rsync returns when a signal ended it.
_ENDED = (19, 20)
_NAMED = 5
_PARTING_SECONDS = 1.0
# For a server that answers nothing, to delete what is half once a sync is stopped.
_TIDYING_SECONDS = 10.0
_LEFT = "left out, for they hold secrets or let people in: {names}"
_MAY_BE_LEFT = (
    "names of files that hold secrets (private keys and the like) are left out"
)
_EVIDENCE = ("created", "updated", "deleted", "bytes")
_AGAIN = "the daemon ended, and the next one begins it anew"
_ANEW = "it was begun anew, and what is counted is of that last run alone"
_WITHOUT = (
    "{where} has no rsync that can be used: compared and copied by SFTP, without"
    " owners, hard links and special files"
)


class Sync:
    """One sync; give it to a job table as its runner.

    Attributes:
        fault: Why it did not do all of it; None: it did, or goes on.
    """

    def __init__(
        self,
        request: SyncRequest,
        roots: Roots,
        under_way: dict[str, Job],
        caller: Caller,
        *,
        tell: Callable[..., None],
        place: tuple[int, int] | None = None,
        past: Onward | None = None,
    ) -> None:
        """Sync as `request` says, once it is run.

        What holds secrets or lets people in is left out, but for a person.

        Args:
            request: What is asked, checked.
            roots: What of this machine may be used.
            under_way: Syncs of this daemon that change something, each with its job.
            caller: Who asks.
            tell: Is given what it did, for the record.
            place: What `anew.place_of` told when it was asked for.
            past: What an earlier daemon knew of it, which began it.
        """
        self.request = request
        self._roots = roots
        self._under_way = under_way
        self._caller = caller
        self._tell = tell
        self._place = place
        self._past = past
        self._known = None if past is None else known_of(past)
        self._guarded = not caller.person
        self._begun = False
        self.fault: DaemonError | None = None
        self._attempt: Attempt | None = None
        self._tree: SftpTree | None = None
        self._report = Report()

    @property
    def report(self) -> Report:
        """What it did so far."""
        return self._report if self._attempt is None else self._attempt.report

    async def __call__(self, job: Job, site: Site) -> None:
        """Run it.

        Raises:
            DaemonError: Nothing was changed: the host can't be had, or can't do it.
        """
        known = self._known or Begun(self._key(site), token(), self._place)
        await self._turn(known.key, job)
        if known.key:
            self._under_way[known.key] = job
        working = asyncio.create_task(self._work(job, site, known))

        async def interrupt(names: Sequence[str]) -> str:  # noqa: ARG001  all end it
            working.cancel()
            return ""

        job.interrupt = interrupt
        try:
            await asyncio.wait({working})
            self._finish(job, working)
        finally:
            job.interrupt = None
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            self._under_way.pop(known.key, None)
            # it is remembered for long, and the connection it had is not
            self._report, self._attempt = self.report, None
            self._tell(**{name: getattr(self.report, name) for name in _EVIDENCE})

    async def _turn(self, key: str, job: Job) -> None:
        """Return when nobody else syncs the same; who was stopped is waited for.

        Raises:
            LimitError: Somebody does.
        """
        while (other := self._under_way.get(key, job)) is not job:
            if other.verdict is None:
                raise LimitError(
                    Reason.IN_USE,
                    f"the same is being synced already, as job {other.id}",
                    hint=f"Follow it with ssh_job_read job_id={other.id}.",
                    metadata={"job_id": other.id},
                )
            await other.ended.wait()

    def _key(self, site: Site) -> str:
        request = self.request
        if request.dry_run:
            return ""
        return repr((request.upload, request.here, request.there, site.host.name))

    async def _work(self, job: Job, site: Site, known: Begun) -> None:
        if self._past is None:
            job.onward = begun(self.request, known, self._caller)
            if site.keep is not None:
                await site.keep(job)
            failpoint.reach("sync.recorded")
        again = self._past is not None
        async with anew.alone(job.spool.directory, site.limits, anew=again) as lock:
            if again:
                await self._allow(known)
                await reached(site)
                await self._allow(known)
                job.add_note(_ANEW)
                job.spool.append(Stream.ERR, f"{_AGAIN}\n".encode())
            await self._run(job, site, known, lock)

    async def _allow(self, known: Begun) -> None:
        await asyncio.to_thread(anew.allow, self.request, known.place, self._roots)

    def _finish(self, job: Job, working: asyncio.Task[None]) -> None:
        """Say what came of it.

        Raises:
            DaemonError: Nothing was changed.
        """
        error = None if working.cancelled() else working.exception()
        if working.cancelled():
            job.settle(ChannelEnd(signal="TERM"))
        elif isinstance(error, DaemonError) and self._past and not self._begun:
            self.fault = error
            job.settle(ChannelEnd(lost=not_resumed(error, KEPT)))
        elif error is not None:
            raise error
        if job.onward is not None:
            job.onward = ended(job.onward, self.report, self.fault)

    def _sent(self, job: Job) -> None:
        self._begun = True
        job.sent()

    async def _run(self, job: Job, site: Site, known: Begun, lock: int | None) -> None:
        async with await site.lease() as lease:
            facts = await lease.facts()
            # A login may have taken long, and a disk here may have gone meanwhile.
            await self._allow(known)
            posix = facts.family == "posix" or facts.wraps
            where = site.host.shown
            if posix:
                where = await self._by_rsync(job, site, lease, lock)
            if where:
                self._report.note = _WITHOUT.format(where=where)
                await self._by_hand(job, site, lease, known.token, modes=posix)
        line = self.report.summary(dry_run=self.request.dry_run)
        job.spool.append(Stream.OUT, f"{line}\n".encode())

    async def _by_rsync(
        self, job: Job, site: Site, lease: Lease, lock: int | None
    ) -> str:
        """Do it by rsync; return who has none, and an empty text when it is done."""
        guards: list[str] = []
        there, empties = "", rsync.empties(self.request)
        if self._guarded or empties:
            there, home = await resolved(lease, self.request.there, site.limits)
            if empties:
                rsync.check_place(self.request, there, home)
        found = await program.find()
        if found is None:
            return "this machine"
        if self._guarded:
            guards = guard.all_of(self.request, there)

        async def tried(*, telling: bool = True, marked: bool = False) -> Attempt:
            if site.check is not None:
                await site.check()
            attempt = self._attempt = Attempt(
                self.request,
                job,
                site,
                sent=lambda: self._sent(job),
                guards=guards,
                lock=lock,
                marked=marked,
                telling=telling,
            )
            await attempt.run(found, lease)
            return attempt

        attempt = await tried()
        telling = not attempt.refused
        if not telling and job.verdict is None:
            attempt = await tried(telling=False)
        if attempt.unclean and job.verdict is None:
            attempt = await tried(telling=telling, marked=True)
        end = attempt.end
        if end is not None and end.exit_code in NO_PROGRAM and job.verdict is None:
            self._attempt = None
            return site.host.shown
        self._tell_left(job, None if telling else there)
        self._settle(job, site, attempt)
        return ""

    def _tell_left(self, job: Job, silent: str | None = None) -> None:
        """Say what was not touched because of its name.

        `silent`: the directory of a host that does not tell.
        """
        left = self.report.left
        if left:
            job.add_note(_LEFT.format(names=", ".join(left[:_NAMED])))
        elif self._guarded and silent is not None and guard.known(silent):
            job.add_note(_MAY_BE_LEFT)

    def _settle(self, job: Job, site: Site, attempt: Attempt) -> None:
        """Say what came of rsync's work."""
        where, code, end = site.host.shown, attempt.code, attempt.end
        report = attempt.report
        if job.verdict is not None:
            job.settle(ChannelEnd(signal="TERM"))
            return
        if end is not None and end.lost is not None:
            self._lose(job, where, end.lost)
            return
        if code is None or code < 0 or code in _ENDED:
            self._lose(job, where, "rsync of this machine was ended")
            return
        if code == VANISHED:
            report.note = outcome.vanished(attempt.said)
        elif code:
            self.fault = outcome.fault(self.request, where, code, attempt.said, report)
        job.settle(ChannelEnd(exit_code=code))
        job.add_note(report.note)

    def _lose(self, job: Job, where: str, why: str) -> None:
        self.fault = outcome.lost(where, why, self.report)
        job.settle(ChannelEnd(lost=why))

    async def _by_hand(
        self, job: Job, site: Site, lease: Lease, token: str, *, modes: bool
    ) -> None:
        """Do without rsync: compare both sides here."""
        said = Complaints()
        job.add_note(self._report.note)
        working = asyncio.create_task(
            self._mirror(job, site, lease, said, token, modes=modes)
        )
        working.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            await asyncio.wait({working})
        finally:
            working.cancel()
            if self._tree is not None:
                self._tree.idle = min(self._tree.idle, _TIDYING_SECONDS)
            # A daemon that ends waits for no slow link: the next one tidies up.
            patience = None if job.verdict else _PARTING_SECONDS
            await asyncio.wait({working}, timeout=patience)
        where, tree, self._tree = site.host.shown, self._tree, None
        if job.verdict is not None:
            job.settle(ChannelEnd(signal="TERM"))
        elif lease.link.closed:
            self._lose(job, where, lease.link.reason)
        elif working.cancelled():
            self._lose(job, where, "it was ended")
        else:
            working.result()
            code = PARTIAL if said.lines else 0
            if tree is not None and tree.stood_still:
                code = IDLE
            if code:
                self.fault = outcome.fault(
                    self.request, where, code, said, self._report
                )
            job.settle(ChannelEnd(exit_code=code))

    async def _mirror(
        self,
        job: Job,
        site: Site,
        lease: Lease,
        said: Complaints,
        token: str,
        *,
        modes: bool,
    ) -> None:
        def complain(text: str) -> None:
            data = f"{text}\n".encode(errors="replace")
            said.feed(data)
            job.spool.append(Stream.ERR, data)

        field = "destination" if self.request.upload else "source"
        root = sftp_path(self.request.there, field)
        shown = root.decode()
        limits = site.limits
        idle, patience = limits.sync_idle_seconds, limits.channel_open_seconds
        async with sftp_tree(lease.link, root, idle=idle, patience=patience) as there:
            self._tree = there
            job.asked = True
            if rsync.empties(self.request):
                real, home = await there.real(), await there.home()
                rsync.check_place(self.request, real, home)
            guarded = await self._guards(there) if self._guarded else None
            self._sent(job)
            excluded = Excluded(
                self.request.exclude, guarded, lambda path: is_draft(path, token)
            )
            mirror = Mirror(
                self.request,
                there,
                self._report,
                modes=modes,
                token=token,
                told=lambda line: job.spool.append(Stream.OUT, line),
                limits=site.limits,
            )
            try:
                await mirror.run(excluded)
            except NoSource as none:
                complain(f'change_dir "{shown}" failed: {none}')
            except (SftpError, OSError) as error:
                why = error.strerror if isinstance(error, OSError) else str(error)
                complain(trouble("use", root, why or str(error)))
            except TooLargeError as error:
                raise LimitError(
                    Reason.LIMIT_REACHED,
                    f"{shown} on {site.host.shown} holds more than {error} names, too"
                    " many to compare without rsync; nothing was changed",
                    hint="Install rsync there, or sync a directory below it.",
                    metadata={"limit": "sync_entries", "host": site.host.shown},
                ) from None
            for line in mirror.troubles:
                complain(line)
            self._report.left = [p.decode("utf-8", "replace") for p in excluded.left]
            if self._report.left:
                self._tell_left(job)

    async def _guards(self, tree: SftpTree) -> Callable[[bytes], bool]:
        """Return what is guarded on one of the sides."""
        there = await tree.real()
        guard.all_of(self.request, there)
        sides = [self.request.here, there]
        source, destination = sides if self.request.upload else sides[::-1]

        def guarded(path: bytes) -> bool:
            text = path.decode("utf-8", "replace")
            return guard.guarded(source, text, write=False) or guard.guarded(
                destination, text, write=True
            )

        return guarded
