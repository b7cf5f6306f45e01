"""Runs a command that its host keeps: it outlives its link and this daemon (NF-10)."""

from __future__ import annotations

import asyncio
import contextlib
import math
import platform
import random
import shlex
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from holdfast_daemon import failpoint
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.connection.returning import Returning
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LinkError,
    Ran,
    Reason,
    StateError,
)
from holdfast_daemon.exec.following import Following
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.kept import Kept
from holdfast_daemon.exec.stop import ESCALATION
from holdfast_daemon.kept.farewell import Farewell, patience
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.kept.run_line import RunEnd
from holdfast_daemon.kept.runs import Program, Runs, new_nonce
from holdfast_daemon.unless import unless

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.request import ExecRequest
    from holdfast_daemon.exec.site import Site

_FIRST = 0.2
_MOST = 30.0
_SHOWN_CHARS = 200
_UNSURE = "its link was lost while it was begun: it is looked up on its host"
_NOT_BEGUN = "its host has not said yet that it began it; once it does, "
_GIVEN_UP = (
    "it was given up while its host was away, and is ended there once it is back"
)
_BY_KILL = "signal KILL alone ends it here at once, and there once its host is back"
_NEVER = "the link was lost before its host began it; it never ran, and never will"


def check(request: ExecRequest) -> None:
    """Refuse what can't be asked of a command that nobody stays with.

    Raises:
        InputError: It is named; nothing was opened.
    """
    asked = {
        "tty": request.terminal is not None,
        "sudo": request.sudo,
        "stdin": request.live,
    }
    instead = {
        "tty": "Open a session instead: it is kept with its terminal.",
        "sudo": "Put `sudo -n` into the command, where it asks for no password.",
        "stdin": "Give all of the input with the call.",
    }
    for field, given in asked.items():
        if given:
            raise InputError(
                field,
                f"{field} and durable can't be had together; nothing ran",
                hint=instead[field],
            )


async def run(job: Job, site: Site) -> None:
    """Begin `job`, or go on with it where it was begun, and follow it to its end.

    A job table calls it as its runner.

    Raises:
        DaemonError: It did not run, or its host keeps nothing of it any more.
    """
    runs = Runs(site.pool, site.host, site.limits)
    following = Following(runs, job, site)
    stopping = _Stop(job, site, following.nudge)
    job.interrupt = stopping.signal

    async def see_through() -> RunEnd:
        if job.kept is None:
            await _begin(job, site, runs)
        elif not job.kept.begun:
            await _settle(job, site, runs)
        stopping.may_go()
        return await following.until_end()

    try:
        end = await unless(stopping.given_up, see_through())
    except asyncio.CancelledError:
        stopping.left()
        raise
    finally:
        job.interrupt = None
        following.leave()
    stopping.over.set()
    failpoint.reach("exec.durable.ended")
    end = end or RunEnd(lost=_GIVEN_UP)
    if end.late:
        job.verdict = job.verdict or Status.TIMED_OUT
    job.farewell = stopping.forget
    job.settle(_told(end))


async def _begin(job: Job, site: Site, runs: Runs) -> None:
    """Have its host begin it, once.

    Raises:
        DaemonError: It did not, and will not.
    """
    job.kept = Kept(new_nonce(), job.id, principal=job.principal)
    await _keep(job, site)
    if not job.saved:
        job.kept = None
        raise StateError(
            Reason.NOT_KEPT,
            "its record can't be written to this machine's disk; nothing ran",
            hint="Make room below the state directory, and call again.",
        )
    job.asked = True
    failpoint.reach("exec.durable.recorded")
    try:
        standing = await runs.begin(job.id, job.kept.nonce, _program(job))
    except DaemonError as error:
        if error.ran is Ran.NO:
            job.kept = None
            raise _refused(error, site) from error
        job.add_note(_UNSURE)
        await _settle(job, site, runs)
        return
    failpoint.reach("exec.durable.begun")
    job.group = standing.pid or None
    _begun(job)
    await _keep(job, site)


async def _keep(job: Job, site: Site) -> None:
    if site.keep is not None:
        await site.keep(job)


def _begun(job: Job) -> None:
    assert job.kept is not None  # noqa: S101  the caller made it
    job.kept = job.kept.sure()
    job.sent()


async def _settle(job: Job, site: Site, runs: Runs) -> None:
    """Find out whether its host began it, for as long as that takes.

    Raises:
        LinkError: It did not, and never will.
        StateError: Its host can't tell.
    """
    backoff = Backoff(_FIRST, _MOST, random.random)
    returning = Returning(site.pool, site.host, site.limits)
    begun: bool | None = None
    while begun is None:
        try:
            if await returning.may():
                begun = await runs.ever(job.id)
        except DaemonError as error:
            if error.reason is Reason.NOT_KEPT:
                error.ran = Ran.UNKNOWN
                raise
            # What else is wrong, as a login that needs a person, says nothing of it.
            await returning.met(error)
        if begun is None:
            await site.pool.pauses.rest(backoff.failed())
    if not begun:
        job.kept = None
        raise LinkError(Reason.CONNECTION_LOST, _NEVER, hint="Run it again.")
    _begun(job)
    await _keep(job, site)


def _refused(error: DaemonError, site: Site) -> DaemonError:
    if error.reason is not Reason.NOT_KEPT:
        return error
    why = error.metadata.get("why", error.message)
    return StateError(
        Reason.NOT_KEPT,
        f"{site.host.shown} can't keep a command: {why}; nothing ran",
        hint="Call again without durable: the daemon then stays with it.",
        metadata={"host": site.host.shown},
    )


def _program(job: Job) -> Program:
    request = job.request
    shown = " ".join(request.command.split())[:_SHOWN_CHARS]
    told = {
        "name": "",
        "owner": platform.node(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shown,
    }
    return Program(
        command=request.command,
        cwd=request.cwd,
        env=request.env,
        shell=shlex.join(shlex.split(request.shell)),
        stdin=request.stdin or b"",
        seconds=math.ceil(request.timeout),
        meta="\n".join(f"{name}={value}" for name, value in told.items()),
    )


def _told(end: RunEnd) -> ChannelEnd:
    lost = end.lost
    if end.not_begun:
        lost = "its host keeps nothing of it any more"
    elif lost is None and end.exit_code is None and end.signal is None:
        lost = "its host does not tell how it ended"
    if lost is not None:
        return ChannelEnd(lost=lost)
    return ChannelEnd(end.exit_code, end.signal)


class _Stop:
    """Signals a durable command by a channel of its own."""

    def __init__(self, job: Job, site: Site, reached: Callable[[], None]) -> None:
        self._job = job
        # whoever follows it need not wait to look for its host
        self._reached = reached
        self._pool = site.pool
        self._keeper = Keeper(site.pool, site.host, site.limits)
        self._runs = Runs(site.pool, site.host, site.limits)
        self._grace = site.limits.stop_grace_seconds
        self._limits = site.limits
        self._where = site.host.name
        self._begun = asyncio.Event()
        self._asked: asyncio.Task[None] | None = None
        # what was to be sent before there was anybody to have it
        self._wanted: list[Sequence[str]] = []
        # the signal on its way is one that need not end it
        self._single = False
        self.over = asyncio.Event()
        self.given_up = asyncio.Event()

    def may_go(self) -> None:
        """It is there now; who wanted it ended before that gets it."""
        self._begun.set()
        if self._wanted:
            self._asked = asyncio.create_task(self._catch_up())

    async def _catch_up(self) -> None:
        for names in self._wanted:
            if not self.over.is_set():
                await self.signal(names)

    async def signal(self, names: Sequence[str]) -> str:
        """Send signals in turn until it has ended; return why it did not."""
        job = self._job
        ends = bool(set(names) & set(ESCALATION))
        if ends:
            job.verdict = Status.CANCELLED
        if not await self._there():
            return self._later(names)
        async with job.stop_lock:
            if ends:
                # another signal may have come to nothing meanwhile
                job.verdict = Status.CANCELLED
            self._single = len(names) == 1
            for name in names:
                if self.over.is_set():
                    break
                try:
                    await self._keeper.signal(job.id, name)
                except DaemonError as error:
                    job.verdict = None
                    trouble = f"{name} did not reach it: {error.message}"
                    return self._unreached(names, trouble, error.ran)
                self._reached()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._grace):
                        await self.over.wait()
            if not self.over.is_set():
                if self._single:
                    job.verdict = None
                last = names[-1]
                return f"it did not end on {last} and may still run on {self._where}"
            if len(names) > 1:
                # its shell dies of INT, and what that left in the background does not
                with contextlib.suppress(DaemonError):
                    await self._keeper.signal(job.id, "KILL")
        return ""

    async def _there(self) -> bool:
        """Wait a moment for it to begin."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                await self._begun.wait()
        return self._begun.is_set()

    def _later(self, names: Sequence[str]) -> str:
        """Send them once there is somebody to have them."""
        self._wanted.append(names)
        then = "it is ended there" if len(names) > 1 else f"{names[0]} is sent"
        return self._unreached(names, _NOT_BEGUN + then)

    def _unreached(self, names: Sequence[str], trouble: str, sent: Ran = Ran.NO) -> str:
        """Give it up where it was to be killed: its host may be gone for good."""
        if sent is not Ran.NO or self._pool.connected(self._keeper.host.account):
            return trouble
        if tuple(names) != ("KILL",):
            return f"{trouble}; {_BY_KILL}"
        self._job.verdict = None
        self.given_up.set()
        return ""

    def left(self) -> None:
        """Note that the daemon goes: what a single signal does the next one tells."""
        if self._single:
            self._job.verdict = None

    async def forget(self) -> None:
        """Have its host keep nothing of it.

        Raises:
            LinkError: It could not be told for long; the next daemon tells it.
        """
        failpoint.reach("exec.durable.forgotten")
        given_up = self.given_up.is_set()
        seconds = patience(self._limits, runs=given_up)
        farewell = Farewell(self._pool, self._keeper.host, self._wipe, seconds)
        if not given_up:
            # nobody may be connected there any more, and need not be for this
            farewell.rest()
        with self._pool.farewells.due(farewell):
            told = await farewell.say(self._job.id)
        if not told:
            raise LinkError(Reason.CONNECTION_LOST, f"{self._where} was not told")

    async def _wipe(self) -> None:
        async with self._job.stop_lock:
            if self._job.kept is not None and not self._job.kept.begun:
                # what was asked for may be on its way still
                await self._runs.ever(self._job.id)
            await self._keeper.wipe(self._job.id)
