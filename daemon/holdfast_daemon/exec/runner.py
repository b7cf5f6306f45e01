"""Runs one job on its host: open, feed, read into the spool, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason, StateError
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.preamble import MarkerReader, command_line, compose
from holdfast_daemon.exec.request import check_line
from holdfast_daemon.exec.sink import JobSink
from holdfast_daemon.exec.stop import stop

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site

_log = logging.getLogger(__name__)

# Ctrl-D ends one read, or in mid-line hands the line over; a script may ask several
# times.
_END_OF_INPUT = b"\x04" * 16
_LEFT_BEHIND = (
    "it left processes in the background that held its output open; they go on without"
    " it, and may fail at their next line: start such with nohup and their output in a"
    " file"
)
_AFTERMATH = "it was started, and what became of it must be looked up on the host"


async def run(job: Job, site: Site) -> None:
    """Run `job`; its outcome, or `job.opened`'s error, says what came of it.

    Raises:
        DaemonError: Nothing ran: the host can't be had, or can't do what was asked.
    """
    timeout = job.request.timeout or None
    deadline = None if timeout is None else job.begun + timeout
    async with contextlib.AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout):
                lease = await stack.enter_async_context(
                    await site.pool.lease(site.host)
                )
                facts = await lease.facts()
        except TimeoutError as error:
            raise _too_late(job, Ran.NO) from error
        end = await _converse(job, lease, facts, site, deadline)
    job.settle(end)
    if end.lost is not None:
        job.add_note(_AFTERMATH)


def _too_late(job: Job, ran: Ran) -> DaemonError:
    look = "" if ran is Ran.NO else "Look first whether it ran. "
    return LinkError(
        Reason.CONNECT_TIMEOUT,
        f"{job.target} was not ready within the command's {job.request.timeout:g} s",
        hint=f"{look}Raise timeout_seconds or check the host.",
        ran=ran,
    )


def _left(job: Job, deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - job.clock.monotonic())


async def _converse(
    job: Job, lease: Lease, facts: ShellFacts, site: Site, deadline: float | None
) -> ChannelEnd:
    request = job.request
    marker: MarkerReader | None = None
    line = request.command
    if facts.family == "posix":
        preamble = compose(request)
        marker = MarkerReader(preamble)
        line = command_line(request, preamble)
        check_line(line, site.limits)
    elif request.cwd or request.env or request.shell:
        raise StateError(
            Reason.UNSUPPORTED,
            f"{site.host.shown} has no POSIX login shell:"
            " cwd, env and shell can't be set there",
            hint="Write them into the command, in that shell's own words.",
        )
    sink = JobSink(job, marker, site.limits.marker_seconds)
    job.asked = True
    try:
        async with asyncio.timeout(_left(job, deadline)):
            channel = await lease.open(line, sink, terminal=request.terminal)
    except TimeoutError as error:
        raise _too_late(job, Ran.UNKNOWN) from error
    job.channel = channel
    sink.opened()
    if not job.opened.done():
        job.opened.set_result(None)
    if marker is None:
        job.begun_there.set()
    feeding = _begin_feeding(job, channel)
    try:
        async with asyncio.timeout(_left(job, deadline)):
            end = await _ended(
                job, channel, sink, lease, site.limits.held_output_seconds
            )
    except TimeoutError:
        end = await _time_out(job, channel, site)
    finally:
        if feeding is not None:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)
        channel.close()
        sink.close()
    if marker is not None and marker.failure:
        job.error = _refusal(job, marker.failure)
        job.add_note(job.error.message)
    return end


def _begin_feeding(job: Job, channel: Channel) -> asyncio.Task[None] | None:
    """See to standard input; without any, its end is all there is to send."""
    request = job.request
    if request.live:
        return None
    if request.stdin or request.terminal is not None:
        return asyncio.create_task(_feed(job, channel))
    channel.eof()
    return None


async def _feed(job: Job, channel: Channel) -> None:
    """Send standard input and its end; a command may end without reading it."""
    data = job.request.stdin or b""
    if job.request.terminal is not None:
        # A terminal has no other end of input; sshd does nothing about a channel's.
        data += _END_OF_INPUT
    if data:
        try:
            await channel.write(data)
        except BrokenPipeError:
            _log.debug("stdin was not taken whole", extra={"job": job.id})
            return
    if job.request.terminal is None:
        channel.eof()


async def _time_out(job: Job, channel: Channel, site: Site) -> ChannelEnd:
    """End a command that took too long."""
    job.verdict = Status.TIMED_OUT
    if trouble := await stop(job, channel, site):
        return ChannelEnd(lost=trouble)
    return await channel.ended()


async def _ended(
    job: Job, channel: Channel, sink: JobSink, lease: Lease, silence: float
) -> ChannelEnd:
    """Return how the command ended, and let go of what it left in the background.

    Such processes keep the channel open for as long as they hold its output: ssh hangs
    then, and a job would run forever.
    """
    await channel.exited()
    while True:
        printed = job.spool.end
        try:
            async with asyncio.timeout(silence):
                return await channel.ended()
        except TimeoutError:
            silent = job.spool.end == printed and not sink.paused
        # What was on its way arrives before the answer to a question asked now: a slow
        # network is not silence.
        if silent and await _answers(lease) and job.spool.end == printed:
            break
    job.add_note(_LEFT_BEHIND)
    channel.close()
    return await channel.ended()


async def _answers(lease: Lease) -> bool:
    try:
        await lease.link.rtt()
    except DaemonError:
        return False
    return True


def _refusal(job: Job, failure: str) -> DaemonError:
    request = job.request
    if failure == "cwd":
        return StateError(
            Reason.CWD_FAILED,
            f"the working directory {request.cwd!r} can't be entered on {job.target}",
            hint="Give a directory that exists and may be entered.",
            ran=Ran.NO,
            metadata={"cwd": request.cwd},
        )
    return StateError(
        Reason.SHELL_FAILED,
        f"the shell {request.shell!r} was not found on {job.target}",
        hint="Leave shell out to use the login shell.",
        ran=Ran.NO,
        metadata={"shell": request.shell},
    )
