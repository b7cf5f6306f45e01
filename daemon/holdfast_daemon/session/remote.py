"""A shell that is kept on the host: it outlives the link, the daemon and us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon import failpoint
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason
from holdfast_daemon.exec.kept import Kept
from holdfast_daemon.kept import half, wrapper
from holdfast_daemon.kept.follower import Follower
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.kept.runs import Runs, new_nonce
from holdfast_daemon.kept.standing import Plan as Keeping
from holdfast_daemon.output import disk
from holdfast_daemon.session.kept_run import KeptRun
from holdfast_daemon.session.receipts import Receipts
from holdfast_daemon.session.shell import Durability, Over, RunEnd, ShellEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.half import Half
    from holdfast_daemon.kept.line import LineEnd
    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.session.shell import Listener, Plan
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0
_HEARD_SECONDS = 20.0
# Who types waits so long for a host that was away.
_BACK_SECONDS = 5.0
# The host is told to forget a command that soon after its end.
_FAREWELL_SECONDS = 30.0
# A shell tells a signal as this and its number.
_SIGNALLED = 128
# What breaks a command off when it is typed: SIGINT and SIGQUIT by their keys.
_BREAKS = frozenset(b"\x03\x1c")
_SETTLE_TRIES = 4


class Key(NamedTuple):
    """What a shell is found again by, and what only its daemon knows of it."""

    ident: str
    nonce: str


class RemoteShell:
    """One shell on one host, and the daemon's attachment to it."""

    durability = Durability.REMOTE

    def __init__(
        self,
        site: Site,
        key: Key,
        listener: Listener,
        spool: Spool,
        *,
        skipped: int = 0,
        on_skipped: Callable[[int], None],
    ) -> None:
        """Follow what is kept under `key`; `open` and `adopt` begin it.

        `skipped` bytes were not to be had so far: the host had dropped them.
        """
        self._site = site
        self._nonce = key.nonce
        self._ident = key.ident
        self._listener = listener
        self._spool = spool
        self._skipped = skipped
        self._tell_skipped = on_skipped
        self._keeper = Keeper(site.pool, site.host, site.limits)
        self._runs = Runs(site.pool, site.host, site.limits)
        self._program: str | None = None
        # whether a line was begun there, as by an earlier daemon
        self._half: Half = "perhaps"
        # of the last command; None: not asked yet
        self._number: int | None = None
        self._over: Over | None = None
        # the signals that were to end it, by the codes that tell of them
        self._sent: dict[int, str] = {}
        # what runs there, and what is not forgotten yet
        self._jobs: dict[str, Job] = {}
        self._runs_there: dict[str, KeptRun] = {}
        self._forgotten = asyncio.Event()
        self._settling: asyncio.Task[None] | None = None
        self._abandoned = False
        self._chores: set[asyncio.Task[None]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._receipts = Receipts(
            self._keeper,
            self._ident,
            spool,
            self._reached,
            kept_bytes=site.limits.kept_bytes,
        )
        self._follower = self._follow()

    def _follow(self) -> Follower:
        return Follower(
            self._keeper,
            self._ident,
            self._nonce,
            self._reached,
            self,
            on_away=self._went,
            on_back=self._back,
            on_end=self._ended,
            on_skipped=self._skip,
        )

    def _reached(self) -> int:
        """Return the offset on the host behind what came."""
        return self._spool.end + self._skipped

    async def open(self, plan: Plan, *, name: str, owner: str) -> None:
        """Start it on the host.

        Raises:
            StateError: The host can keep nothing, and nothing is left there.
            DaemonError: It can't be reached, or the shell can't be had.
        """
        started = await self._keeper.start(
            Keeping(
                ident=self._ident,
                nonce=self._nonce,
                shell=plan.shell,
                cwd=plan.cwd,
                env=plan.env,
                cols=plan.cols,
                rows=plan.rows,
                name=name,
                owner=owner,
                restore=plan.restore,
                old=plan.old,
            )
        )
        failpoint.reach("session.open.started")
        self._spool.patient = True
        self._program, self._number, self._half = started.shell, 0, "none"
        self._follower.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._site.limits.session_start_seconds):
                await self._follower.attached()

    def adopt(self, jobs: Iterable[Job]) -> None:
        """Attach to one that an earlier daemon began; what became of it is told.

        `jobs` ran in it then: `follow` goes on with each.
        """
        self._jobs = {job.id: job for job in jobs}
        self._spool.patient = True
        self._follower.start()

    # what comes from the host

    def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
        """Take what its terminal printed."""
        self._listener.printed(data)
        if self._spool.full and self._draining is None:
            self._follower.pause()
            self._draining = asyncio.create_task(self._drain())
        self._receipts.came()

    async def _drain(self) -> None:
        await self._spool.drained()
        self._draining = None
        self._follower.resume()

    def _do(self, chore: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)
        return task

    def _skip(self, offset: int) -> None:
        """The host dropped what was before `offset`."""
        self._skipped = offset - self._spool.end
        self._tell_skipped(self._skipped)

    def _went(self, why: str) -> None:
        self._receipts.stop()
        self._listener.away(why)

    def _back(self) -> None:
        self._listener.back()
        self._receipts.again()
        self._nudge_runs()

    def _nudge_runs(self) -> None:
        """Who waits to look for a command again need not: its host is heard of."""
        for run in self._runs_there.values():
            run.nudge()

    def _ended(self, end: LineEnd) -> None:
        told = self._told(end)
        self._receipts.stop()
        self._runs.unprepare(self._ident)
        self._nudge_runs()
        self._listener.ended(told)

    def _told(self, end: LineEnd) -> ShellEnd:
        code, name = end.exit_code, end.signal
        if self._over is not None:
            # what has a terminal for it tells a signal as a shell does
            killer = self._sent.get(code or 0)
            if name is None and killer is not None:
                code, name = None, killer
            return ShellEnd(self._over, code, name)
        if end.kind == "exited":
            over = Over.EXITED if code is not None else Over.SIGNALLED
            return ShellEnd(over, code, name)
        if end.why == "host_restarted":
            return ShellEnd(Over.HOST_RESTARTED, why="the host was restarted")
        why = "what kept it on the host was killed" if end.why == "killed" else end.why
        return ShellEnd(Over.CONNECTION_LOST, why=why)

    async def safe(self) -> None:
        """Wait until all that came of it is on our disk."""
        backoff = disk.pauses()
        for spool in (self._spool, *(job.spool for job in self._jobs.values())):
            while not await spool.sync():
                await self._site.pool.pauses.rest(backoff.failed())

    async def emptied(self) -> None:
        """Wait until all of it is on our disk, and what ran in it is done with."""
        for job in list(self._jobs.values()):
            await job.ended.wait()
        await self.safe()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                while self._jobs:
                    self._forgotten.clear()
                    await self._forgotten.wait()

    # what goes to it

    async def _reach(self) -> None:
        """Give a host that was away a moment to come back."""
        if self._follower.away:
            self.nudge()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BACK_SECONDS):
                    await self._follower.attached()

    async def write(self, data: bytes) -> None:
        """Type keys, once."""
        await self._reach()
        failpoint.reach("session.write.begun")
        self._half = half.after(data, self._half)
        await self._follower.write(data)
        failpoint.reach("session.write.typed")
        running = [job for job in self._jobs.values() if job.running]
        if running and _BREAKS.intersection(data):
            self._settle_soon(running[-1])

    async def answer(self, data: bytes) -> None:
        """Tell a program what it asked."""
        self._half = half.after(data, self._half)
        await self._follower.write(data)

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        await self._keeper.resize(self._ident, cols, rows)

    async def run(self, job: Job) -> RunEnd:
        """Run a command in it, which this daemon's end does not end."""
        if self._program is None:
            self._program = await self._keeper.program(self._ident)
        if self._number is None:
            latest = await self._runs.latest(self._ident)
            self._number = latest.number if latest is not None else 0
        self._number += 1
        family = wrapper.family(self._program)
        job.kept = Kept(new_nonce(), self._ident, self._number, principal=job.principal)
        self._jobs[job.id] = job
        # Should we die now, what is typed must be found again.
        if self._site.keep is not None:
            await self._site.keep(job)
        begun, self._half = self._half, "none"
        run = KeptRun(self._runs, job, self._site, begun)
        try:
            return await self._see_through(job, run, run.run(family))
        except DaemonError:
            if self._half == "none":
                self._half = begun
            raise

    async def follow(self, job: Job, reached: asyncio.Event) -> RunEnd:
        """Go on with what an earlier daemon ran; `reached` is set once that may be."""
        assert job.kept is not None  # noqa: S101  it would not be gone on with
        self._number = max(self._number or 0, job.kept.number)
        await self._follower.attached()
        reached.set()
        # It may have been broken off when nobody was there to have its end told.
        self._settle_soon(job)
        run = KeptRun(self._runs, job, self._site)
        if self._abandoned:
            run.abandon()
        return await self._see_through(job, run, run.follow())

    def give_up(self, job: Job) -> None:
        """Follow one of an earlier daemon no more."""
        self._forget(job)

    async def drop(self, number: int) -> bool:
        """Have the host forget a command whose end is known; whether it was told."""
        await self._follower.attached()
        try:
            await self._runs.drop(self._ident, number)
        except DaemonError as error:
            _log.debug("the host keeps more than it need: %s", error.message)
            return False
        return True

    async def _see_through(
        self, job: Job, run: KeptRun, work: Coroutine[None, None, RunEnd]
    ) -> RunEnd:
        self._runs_there[job.id] = run
        try:
            end = await work
        except BaseException:
            self._forget(job)
            raise
        finally:
            del self._runs_there[job.id]

        async def farewell() -> None:
            try:
                await run.forget()
            finally:
                self._forget(job)

        job.farewell = farewell
        number = job.kept.number if job.kept is not None else None
        if number is not None and number == self._number:
            self._runs.prepare(self._ident, number + 1)
        return end

    def _forget(self, job: Job) -> None:
        self._jobs.pop(job.id, None)
        self._forgotten.set()

    async def interrupt(self, name: str) -> None:
        """Signal the command that runs, and have the shell tell its end."""
        await self._reach()
        found = await self._keeper.signal(self._ident, name, self._number or 0)
        self._nudge_runs()
        if found.sent == "never":
            for run in self._runs_there.values():
                run.withdraw()
            return
        if self._number is not None:
            await self._runs.settle(self._ident, self._number)

    def _settle_soon(self, job: Job) -> None:
        if self._settling is None or self._settling.done():
            self._settling = self._do(self._settle(job))

    async def _settle(self, job: Job) -> None:
        """Have the shell tell the end of what was broken off by hand, or by others."""
        for _ in range(_SETTLE_TRIES):
            if not job.running or job.kept is None:
                return
            number = job.kept.number
            try:
                if await self._runs.settle(self._ident, number):
                    return
            except DaemonError as error:
                _log.debug("the end of a command is not told: %s", error.message)
                return

    async def end(self, *, force: bool) -> str:
        """Hang up on it, as a closed terminal does; with `force` kill all of it."""
        self._over = Over.CLOSED
        name = "KILL" if force else "HUP"
        self._sent[_SIGNALLED + signal.Signals[f"SIG{name}"]] = name
        failpoint.reach("session.close.begun")
        try:
            found = await self._keeper.end(self._ident, force=force)
        except DaemonError as error:
            if error.ran is Ran.NO:
                # it goes on, and what ends it later is something else
                self._over = None
                self._sent.clear()
            raise
        # one that was left alone on its host is looked at again
        self._follower.start()
        try:
            # one that has ended has only to be heard of
            ended = found.state != "running"
            async with asyncio.timeout(_HEARD_SECONDS if ended else _GRACE_SECONDS):
                end = await self._follower.ended()
        except TimeoutError:
            if force:
                raise _unheard("killed") from None
            return await self.end(force=True)
        if end.kind == "gone":
            # somebody let go of it meanwhile, and it need not mind that it was hung up
            raise _unheard("killed" if force else "hung up on")
        return name

    async def abandon(self) -> None:
        """Wait for nothing of it any more: its host is away, and it is over."""
        self._abandoned = True
        for run in self._runs_there.values():
            run.abandon()
        await self._follower.close()

    async def leave(self) -> None:
        """Let go of it; it goes on on the host."""
        await self._follower.close()
        await self._receipts.leave()
        for task in list(self._chores):
            task.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    async def rest(self, why: str) -> None:
        """Leave it alone on its host until somebody uses it again."""
        await self._follower.close()
        self._receipts.stop()
        self._follower = self._follow()
        self._listener.away(why)

    def nudge(self, *, asked: bool = True) -> None:
        """Look for the host again now; `asked`: somebody wants it to."""
        self._follower.start()
        self._follower.nudge(asked=asked)


def _unheard(how: str) -> LinkError:
    return LinkError(
        Reason.CONNECTION_LOST,
        f"it was {how}, and its end was not heard of",
        hint="ssh_session_list shows what became of it.",
        ran=Ran.UNKNOWN,
    )
