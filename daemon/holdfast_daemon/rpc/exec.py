"""ExecService: commands and jobs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_daemon.connection.channel import Terminal
from holdfast_daemon.errors import DaemonError, InputError, Ran, RangeError, Reason
from holdfast_daemon.exec import answer, durable
from holdfast_daemon.exec.pace import Pace
from holdfast_daemon.hosts import fidelity
from holdfast_daemon.rpc import convert
from holdfast_daemon.rpc.door import current
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc.aio

    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.rpc.door import Call
    from holdfast_daemon.rpc.wait import WaitServicer

    type_context = grpc.aio.ServicerContext[Any, Any]

_log = logging.getLogger(__name__)

_STREAMS = {
    Stream.OUT: exec_pb2.OUTPUT_STREAM_STDOUT,
    Stream.ERR: exec_pb2.OUTPUT_STREAM_STDERR,
}


# Of one row of a list as it is told: its names, and what is of one length.
_ROW_CHARS = 190


class ExecServicer(exec_pb2_grpc.ExecServiceServicer):
    """Thin: converts, calls the table, waits."""

    def __init__(
        self, table: JobTable, config: Callable[[], Config], waits: WaitServicer
    ) -> None:
        """Serve `table` under the current configuration."""
        self._table = table
        self._config = config
        self._waits = waits

    async def Run(
        self, request: exec_pb2.RunRequest, context: type_context
    ) -> AsyncIterator[exec_pb2.RunResponse]:
        """Run one command; progress about once a second, then one result."""
        call, config = current(), self._config()
        job = self._start(request, call)
        limits = config.limits
        wait = limits.wait_seconds
        if request.HasField("wait_seconds"):
            wait = min(request.wait_seconds, limits.wait_max_seconds)
        begun = asyncio.get_running_loop().time()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(wait, limits.start_seconds)):
                # The job is the table's: who goes away ends this wait and nothing else.
                await asyncio.shield(job.opened)
        wait -= asyncio.get_running_loop().time() - begun
        async for progress in self._progress(
            job, wait, limits.progress_interval_seconds
        ):
            yield exec_pb2.RunResponse(progress=progress)
        if job.error is not None:
            raise job.error
        if job.running:
            await self._table.tell(job)
        shown = await answer.of_job(job, self._size(request, call))
        job.move_cursor(call.caller.instance, shown.next_offset)
        yield exec_pb2.RunResponse(result=convert.exec_result(job, shown))

    def _start(
        self, request: exec_pb2.RunRequest, call: Call, *, live: bool = False
    ) -> Job:
        host = call.host
        if host is None:
            raise InputError("target", "target names no host")
        fidelity.check_command(host)
        wanted = convert.exec_request(request, call.caller, self._config(), live=live)
        if host.request_tty == "force" and wanted.terminal is None:
            wanted = replace(wanted, terminal=Terminal())
        if not request.durable:
            return self._table.start(wanted, host, call.ticket, request.request_id)
        durable.check(wanted)
        return self._table.start(
            replace(wanted, durable=True),
            host,
            call.ticket,
            request.request_id,
            runner=durable.run,
        )

    async def _progress(
        self, job: Job, seconds: float, interval: float
    ) -> AsyncIterator[common_pb2.Progress]:
        """Yield signs of life until the job ends or `seconds` are over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while not job.ended.is_set():
            left = deadline - loop.time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, interval)):
                    await job.ended.wait()
            if not job.ended.is_set() and left > interval:
                yield common_pb2.Progress(
                    progress=round(job.duration, 3), message=job.spool.last_line
                )

    async def ListJobs(
        self, request: exec_pb2.ListJobsRequest, context: type_context
    ) -> exec_pb2.ListJobsResponse:
        """List what this caller may see, newest first."""
        call = current()
        jobs = [
            job
            for job in self._table.list(running_only=request.running_only)
            if self._visible(call, job)
            and (not request.target or _names(job, request.target))
        ]
        room = None if call.caller.person else call.caller.defaults.max_output_chars
        rows = _listed(jobs, self._config().limits.jobs_listed, room)
        return exec_pb2.ListJobsResponse(jobs=rows, truncated=len(rows) < len(jobs))

    def _size(
        self, request: exec_pb2.RunRequest | exec_pb2.ReadJobRequest, call: Call
    ) -> int:
        given = (
            request.max_output_chars if request.HasField("max_output_chars") else None
        )
        return convert.budget(given, call.caller, self._config())

    def _visible(self, call: Call, job: Job) -> bool:
        return call.ticket.allows_name(job.target, job.address)

    def _find(self, job_id: str, call: Call) -> Job:
        job = self._table.find(job_id)
        call.ticket.check_name(job.target, job.address)
        return job

    async def ReadJob(
        self, request: exec_pb2.ReadJobRequest, context: type_context
    ) -> AsyncIterator[exec_pb2.ReadJobResponse]:
        """Read a job's output: a page, its tail, or what matches."""
        call = current()
        job = self._find(request.job_id, call)
        start = since = _position(request, job, call.caller)
        size, reader = self._size(request, call), call.caller.instance
        own, looks = not request.HasField("offset"), _looks(request)
        if own and looks:
            since = max(start, job.looked.get(reader, 0))
        # of a page there is enough at once; a look, or no output, is for what comes
        due = looks or not size or job.spool.end - start < size
        if request.wait_seconds and job.running and due:
            wait = min(request.wait_seconds, self._config().limits.wait_max_seconds)
            async for progress in self._until_quiet(job, since, wait):
                yield exec_pb2.ReadJobResponse(progress=progress)
        if looks:
            job.note_look(reader)
        shown = await self._read(request, job, start, size)
        if own and not looks:
            job.move_cursor(reader, shown.next_offset)
        yield exec_pb2.ReadJobResponse(result=convert.job_output(job, shown))

    async def _until_quiet(
        self, job: Job, offset: int, seconds: float
    ) -> AsyncIterator[common_pb2.Progress]:
        """Yield signs of life until the job ends, or has printed and then paused."""
        quiet = self._config().limits.quiet_seconds
        seen = job.spool.end
        async for progress in self._progress(job, seconds, quiet):
            if job.spool.end == seen > offset:
                return
            seen = job.spool.end
            yield progress

    async def _read(
        self, request: exec_pb2.ReadJobRequest, job: Job, start: int, size: int
    ) -> answer.Answer:
        stream = convert.stream(request.stream)
        if request.grep:
            return await answer.matching(
                job.spool,
                request.grep,
                size,
                stream,
                self._config().limits.grep_seconds,
            )
        if request.HasField("tail_lines"):
            return await answer.last_lines(job.spool, request.tail_lines, size, stream)
        if start > job.spool.end:
            raise RangeError(
                Reason.INVALID_ARGUMENT,
                f"offset {start} is beyond the end, {job.spool.end}",
                hint="Leave offset out to read on from where you stopped.",
                metadata={"field": "offset", "end": str(job.spool.end)},
            )
        return await answer.page(job.spool, start, size, stream)

    async def FollowJob(
        self, request: exec_pb2.FollowJobRequest, context: type_context
    ) -> AsyncIterator[exec_pb2.FollowJobResponse]:
        """Follow a job byte for byte until its end."""
        job = self._find(request.job_id, current())
        async for chunk in self._chunks(job, request.offset):
            yield exec_pb2.FollowJobResponse(output=chunk)
        await job.ended.wait()
        yield exec_pb2.FollowJobResponse(end=convert.job_end(job))

    async def _chunks(
        self, job: Job, offset: int
    ) -> AsyncIterator[exec_pb2.OutputChunk]:
        limit = self._config().limits.chunk_bytes
        while True:
            await job.spool.grown(offset)
            part = await job.spool.read(offset, limit)
            skipped, position = part.skipped, offset + part.skipped
            for piece in part.pieces:
                position += len(piece.data)
                yield exec_pb2.OutputChunk(
                    stream=_STREAMS[piece.stream],
                    data=piece.data,
                    next_offset=position,
                    skipped=skipped,
                )
                skipped = 0
            offset = part.next_offset
            if job.spool.closed and offset >= job.spool.end:
                return

    async def Interact(
        self,
        request_iterator: AsyncIterator[exec_pb2.InteractRequest],
        context: type_context,
    ) -> AsyncIterator[exec_pb2.InteractResponse]:
        """Run one command with live input and output."""
        call = current()
        frames = aiter(request_iterator)
        first = await anext(frames, None)
        if first is None or first.WhichOneof("frame") != "start":
            raise InputError("start", "the first frame must be start")
        job = self._start(first.start, call, live=True)
        job.pace = pace = Pace(self._config().limits.live_window_bytes)
        broken: list[DaemonError] = []
        incoming = asyncio.create_task(self._listen(job, frames, broken))
        try:
            await asyncio.shield(job.opened)
            await job.begun_there.wait()
            if job.error is not None:
                raise job.error
            await self._table.tell(job)
            yield exec_pb2.InteractResponse(started=job.id)
            async for chunk in self._chunks(job, 0):
                yield exec_pb2.InteractResponse(output=chunk)
                pace.read(chunk.next_offset)
            await job.ended.wait()
            if broken:
                raise broken[0]
            yield exec_pb2.InteractResponse(end=convert.job_end(job))
        finally:
            pace.release()
            incoming.cancel()
            await asyncio.gather(incoming, return_exceptions=True)
            if job.running:
                # As ssh does: the caller is gone, so the command is hung up on.
                await asyncio.shield(self._table.stop(job, "HUP"))

    async def _listen(
        self,
        job: Job,
        frames: AsyncIterator[exec_pb2.InteractRequest],
        broken: list[DaemonError],
    ) -> None:
        """Pass input on; a command that is gone takes no more of it.

        A frame that is wrong ends the command: what would come after it can't be meant.
        """
        await asyncio.shield(job.opened)
        channel = job.channel
        if channel is None:
            return
        if job.request.sudo:
            # Until it begins, what is sent would be sudo's.
            await job.begun_there.wait()
        try:
            async for frame in frames:
                kind = frame.WhichOneof("frame")
                if kind == "stdin":
                    await channel.write(frame.stdin)
                elif kind == "eof":
                    channel.eof()
                elif kind == "size" and frame.size.cols and frame.size.rows:
                    channel.resize(frame.size.cols, frame.size.rows)
                elif kind == "signal" and (name := convert.signal_name(frame.signal)):
                    await self._pass_on(job, name)
        except BrokenPipeError:
            return
        except DaemonError as error:
            error.ran = Ran.YES
            broken.append(error)
            await self._table.stop(job)

    async def _pass_on(self, job: Job, name: str) -> None:
        try:
            await self._table.signal(job, name)
        except DaemonError as error:
            # No second channel is to be had: the server may take it on the first.
            _log.info("signal goes by its channel: %s", error.message)
            if job.channel is not None:
                job.channel.signal(name)

    async def StopJob(
        self, request: exec_pb2.StopJobRequest, context: type_context
    ) -> exec_pb2.StopJobResponse:
        """Stop a job and tell what came of it."""
        job = self._find(request.job_id, current())
        current().ticket.add(job_id=job.id, stopped_command=job.request.command)
        before = not job.running
        stopping = self._table.stop(job, convert.signal_name(request.signal))
        # half a stop is none: who goes away meanwhile changes nothing
        trouble = await asyncio.shield(asyncio.ensure_future(stopping))
        unsure = bool(job.lost) and job.asked
        if before and not unsure:
            trouble = "it had ended before"
        row = convert.job_row(job)
        return exec_pb2.StopJobResponse(
            stopped=not job.running and not trouble and not unsure,
            status=row.status,
            exit_code=job.exit_code,
            signal=job.signal,
            note=trouble or job.note or None,
        )

    def Wait(
        self, request: exec_pb2.WaitRequest, context: type_context
    ) -> AsyncIterator[exec_pb2.WaitResponse]:
        """Wait for the first of several things."""
        return self._waits.Wait(request, context)

    def close(self) -> None:
        """End the calls that wait for several things."""
        self._waits.close()


def _listed(jobs: Sequence[Job], most: int, room: int | None) -> list[exec_pb2.Job]:
    """Return rows of as many as an answer holds; what runs is never left for others."""
    rows: dict[str, exec_pb2.Job] = {}
    for job in sorted(jobs, key=lambda job: not job.running)[:most]:
        row = convert.job_row(job)
        if room is not None:
            told = (row.command, row.target, row.client, row.session_id)
            room -= len(json.dumps(told)) + _ROW_CHARS
            if rows and room < 0:
                break
        rows[job.id] = row
    return [rows[job.id] for job in jobs if job.id in rows]


def _names(job: Job, target: str) -> bool:
    return target in {job.target, job.address, job.address.partition("@")[2]}


def _looks(request: exec_pb2.ReadJobRequest) -> bool:
    """Say whether a read only looks at a part, and so does not move the position."""
    return bool(
        request.grep
        or request.HasField("tail_lines")
        or convert.stream(request.stream) is not None
    )


def _position(request: exec_pb2.ReadJobRequest, job: Job, caller: Caller) -> int:
    if request.HasField("offset"):
        return request.offset
    return job.cursors.get(caller.instance, 0)
