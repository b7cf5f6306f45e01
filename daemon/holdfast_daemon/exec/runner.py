"""Runs one job on its host: open, feed, read into the spool, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, TypedDict

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason
from holdfast_daemon.exec import permit
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.sink import JobSink
from holdfast_daemon.exec.stop import stop
from holdfast_daemon.exec.sudo import SudoReader
from holdfast_daemon.exec.wording import word

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.preamble import MarkerReader
    from holdfast_daemon.exec.site import Site

_log = logging.getLogger(__name__)

# Ctrl-D ends one read, or in mid-line hands the line over; a script may ask several
# times.
_END_OF_INPUT = b"\x04" * 16
# Less than any server's first window.
_AT_ONCE = 32 * 1024
_LEFT_BEHIND = (
    "it left processes in the background that held its output open; they go on without"
    " it, and may fail at their next line: start such with nohup and their output in a"
    " file"
)
_NOT_BEGUN = "the host ended the shell that waited for the command"
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
                if job.request.sudo:
                    job.elevation = await permit.prepare(site)
                lease = await stack.enter_async_context(
                    await site.pool.lease(site.host)
                )
                facts = await lease.facts()
        except TimeoutError as error:
            raise _too_late(job, Ran.NO) from error
        end = await _converse(job, lease, facts, site, deadline)
    job.settle(end)
    if end.lost is not None and job.error is None:
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
    job.signals = facts.signals
    talk = permit.Talk(site.limits, job.elevation)
    wording = word(
        request,
        facts,
        site.host,
        elevation=job.elevation,
        limits=site.limits,
        heard=talk.heard,
    )
    marker = wording.marker
    patience = site.limits.marker_seconds if job.elevation is None else None
    sink = JobSink(job, marker, patience)
    job.asked = True
    try:
        async with asyncio.timeout(_left(job, deadline)):
            channel = await lease.open(
                wording.line, sink, terminal=request.terminal, **_first_input(job)
            )
    except TimeoutError as error:
        raise _too_late(job, Ran.UNKNOWN) from error
    job.channel = channel
    sink.opened()
    if not job.opened.done():
        job.opened.set_result(None)
    if marker is None:
        job.begun_there.set()
    feeding = _begin_feeding(job, channel, talk, marker)
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
    refusal = wording.refusal(request, site.host, job.elevation, end.lost or "")
    if refusal is not None and job.verdict is None:
        job.error = refusal
        if end.lost is not None:
            # nobody told a code: sudo was given up on
            return ChannelEnd(lost=refusal.message)
        job.add_note(refusal.message)
        return end
    silent = marker is not None and not (marker.group or marker.failure)
    if channel.waited and silent and end.lost is None:
        # the waiting shell's own end, which says nothing of the command
        return ChannelEnd(lost=_NOT_BEGUN)
    return end


class _FirstInput(TypedDict):
    """Standard input that goes out with the command: a round trip is saved."""

    stdin: bytes
    eof: bool


def _first_input(job: Job) -> _FirstInput:
    """Return all of a short input and its end, or nothing of it.

    A terminal is set up first, a long one waits for the host to take it, and sudo may
    ask before the command.
    """
    request = job.request
    stdin = request.stdin or b""
    asks = job.elevation is not None and job.elevation.password is not None
    if request.live or request.terminal is not None or len(stdin) > _AT_ONCE or asks:
        return {"stdin": b"", "eof": False}
    return {"stdin": stdin, "eof": True}


def _begin_feeding(
    job: Job,
    channel: Channel,
    talk: permit.Talk,
    marker: MarkerReader | SudoReader | None,
) -> asyncio.Task[None] | None:
    """See to the standard input that was not sent with the command."""
    fed = job.request.live or _first_input(job)["eof"]
    if isinstance(marker, SudoReader):
        return asyncio.create_task(_feed_under_sudo(job, channel, talk, marker, fed))
    if fed:
        return None
    return asyncio.create_task(_feed(job, channel))


async def _feed_under_sudo(
    job: Job, channel: Channel, talk: permit.Talk, marker: SudoReader, fed: bool
) -> None:
    """Have sudo let the command in; only then is its input the command's."""
    await talk.go(channel, marker)
    if marker.begun and not fed:
        await _feed(job, channel)


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
