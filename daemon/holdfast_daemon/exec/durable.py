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
from holdfast_daemon.kept.farewell import Farewell
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.kept.runs import Program, Runs, new_nonce

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.request import ExecRequest
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.run_line import RunEnd

_FIRST = 0.2
_MOST = 30.0
_SHOWN_CHARS = 200
_UNSURE = "its link was lost while it was begun: it is looked up on its host"
_NOT_BEGUN = (
    "its host has not said yet that it began it; once it does, it is ended there"
)
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
    try:
        if job.kept is None:
            await _begin(job, site, runs)
        elif not job.kept.begun:
            await _settle(job, site, runs)
        stopping.may_go()
        end = await following.until_end()
    finally:
        job.interrupt = None
        following.leave()
    stopping.over.set()
    failpoint.reach("exec.durable.ended")
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
    """
    backoff = Backoff(_FIRST, _MOST, random.random)
    while True:
        try:
            begun = await runs.ever(job.id)
        except LinkError:
            await site.pool.pauses.rest(backoff.failed())
            continue
        if begun:
            break
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
        self._grace = site.limits.stop_grace_seconds
        self._where = site.host.name
        self._begun = asyncio.Event()
        self._asked: asyncio.Task[str] | None = None
        self._wanted = False
        self.over = asyncio.Event()

    def may_go(self) -> None:
        """It is there now; who wanted it ended before that gets it."""
        self._begun.set()
        if self._wanted:
            self._asked = asyncio.create_task(self.signal(ESCALATION))

    async def signal(self, names: Sequence[str]) -> str:
        """Send signals in turn until it has ended; return why it did not."""
        job = self._job
        before = job.verdict
        if set(names) & set(ESCALATION):
            job.verdict = before or Status.CANCELLED
        try:
            async with asyncio.timeout(self._grace):
                await self._begun.wait()
        except TimeoutError:
            self._wanted = True
            return _NOT_BEGUN
        async with job.stop_lock:
            for name in names:
                if self.over.is_set():
                    break
                try:
                    await self._keeper.signal(job.id, name)
                except DaemonError as error:
                    job.verdict = before
                    return f"{name} did not reach it: {error.message}"
                self._reached()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._grace):
                        await self.over.wait()
            if not self.over.is_set():
                if len(names) == 1:
                    job.verdict = before
                last = names[-1]
                return f"it did not end on {last} and may still run on {self._where}"
            if len(names) > 1:
                # its shell dies of INT, and what that left in the background does not
                with contextlib.suppress(DaemonError):
                    await self._keeper.signal(job.id, "KILL")
        return ""

    async def forget(self) -> None:
        """Have its host keep nothing of it.

        Raises:
            LinkError: It could not be told for long; the next daemon tells it.
        """
        failpoint.reach("exec.durable.forgotten")
        farewell = Farewell(self._pool, self._keeper.host, self._wipe)
        # nobody may be connected there any more, and need not be for this
        farewell.rest()
        if not await farewell.say(self._job.id):
            raise LinkError(Reason.CONNECTION_LOST, f"{self._where} was not told")

    async def _wipe(self) -> None:
        async with self._job.stop_lock:
            await self._keeper.wipe(self._job.id)
