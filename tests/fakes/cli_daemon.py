"""A daemon for the command line's tests: its one host is this machine, without SSH.

Commands run for real under `sh -c`, on pipes or a terminal; their output is kept as the
daemon's spool keeps it. What a real host will not do on request is asked for by target:

refused.example   HOST_UNREACHABLE
lost.example      the command's outcome is not known
gap.example       output was discarded before it could be read
cut.example       the call breaks off after the first output, its job is forgotten
late.example      fails after the first output, while input comes
slow.example      is told that its command has begun when `let_in` is set
"""
# ruff: noqa: N802, ARG002 - names and signatures of RPCs are the contract's

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import termios
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from grpc import StatusCode, aio

from fakes.daemon import refuse
from fakes.forked import begin, program
from fakes.nursery import CLI
from holdfast.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    exec_pb2,
    exec_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    Context = aio.ServicerContext[Any, Any]

OUT, ERR = exec_pb2.OUTPUT_STREAM_STDOUT, exec_pb2.OUTPUT_STREAM_STDERR
PIECE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Told:
    """What a run of the command line printed."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        """Both outputs, for looking into."""
        return self.out.decode() + self.err.decode()

    @property
    def json(self) -> Any:
        """The one document."""
        return json.loads(self.out)


@dataclass(slots=True)
class LocalJob:
    """One command and all it printed."""

    job_id: str
    request: exec_pb2.RunRequest
    process: asyncio.subprocess.Process
    terminal: int | None = None
    chunks: list[exec_pb2.OutputChunk] = field(
        default_factory=list[exec_pb2.OutputChunk]
    )
    total: int = 0
    end: exec_pb2.JobEnd | None = None
    grown: asyncio.Condition = field(default_factory=asyncio.Condition)
    signals: list[int] = field(default_factory=list[int])
    stopped: bool = False
    began: float = field(default_factory=time.monotonic)

    async def add(self, stream: exec_pb2.OutputStream.ValueType, data: bytes) -> None:
        """Keep output."""
        self.total += len(data)
        chunk = exec_pb2.OutputChunk(stream=stream, data=data, next_offset=self.total)
        async with self.grown:
            self.chunks.append(chunk)
            self.grown.notify_all()

    async def ended(self) -> None:
        """Wait for its end."""
        async with asyncio.timeout(40), self.grown:
            await self.grown.wait_for(lambda: self.end is not None)

    def kill(self, name: int) -> None:
        """Signal the process group."""
        self.signals.append(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, name)

    def bytes_of(self, stream: exec_pb2.OutputStream.ValueType) -> int:
        """Return how much one stream printed."""
        return sum(len(c.data) for c in self.chunks if c.stream == stream)

    def text_of(self, stream: exec_pb2.OutputStream.ValueType) -> str:
        """Return what one stream printed."""
        return b"".join(c.data for c in self.chunks if c.stream == stream).decode()


class LocalDaemon(
    exec_pb2_grpc.ExecServiceServicer,
    host_pb2_grpc.HostServiceServicer,
    admin_pb2_grpc.AdminServiceServicer,
):
    """Serves the CLI's RPCs on `socket`, whose directory it makes private."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.jobs: dict[str, LocalJob] = {}
        self.begun = asyncio.Condition()
        self.connects: list[host_pb2.ConnectRequest] = []
        self.let_in = asyncio.Event()
        self.intact = True
        self.config_error = ""
        self.records = [
            json.dumps({"seq": n, "timestamp": "2026-11-20T10:00:00.000Z",
                        "event_type": "command_execution", "phase": "start",
                        "client": "cli/0", "command": f"echo {n}\x1b[2J"})
            for n in range(3)
        ]  # fmt: skip
        self._server = aio.server()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.socket.parent.mkdir(mode=0o700, exist_ok=True)
        exec_pb2_grpc.add_ExecServiceServicer_to_server(self, self._server)
        host_pb2_grpc.add_HostServiceServicer_to_server(self, self._server)
        admin_pb2_grpc.add_AdminServiceServicer_to_server(self, self._server)
        old = os.umask(0o177)
        try:
            self._server.add_insecure_port(f"unix:{self.socket}")
        finally:
            os.umask(old)
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        for job in self.jobs.values():
            if job.end is None:
                job.kill(signal.SIGKILL)
            if job.terminal is not None:
                os.close(job.terminal)
        await asyncio.gather(*self._tasks)

    async def begin(self, *words: str, **options: Any) -> asyncio.subprocess.Process:
        """Start the command line, with an empty stdin unless `options` has one."""
        streams: dict[str, Any] = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
        }
        words = ("--no-autostart", "--socket", str(self.socket), *words)
        if options.keys() <= {"env", *streams}:
            environment = options.pop("env", os.environ)
            files = [
                stream if isinstance(stream, int) else stream.fileno()
                for stream in {**streams, **options}.values()
            ]
            return await begin(CLI, *words, env=environment, streams=files)
        return await asyncio.create_subprocess_exec(
            program(CLI), *words, **{**streams, **options}
        )

    async def job(self, job_id: str = "j1") -> LocalJob:
        """Wait for a job to exist."""
        async with asyncio.timeout(40), self.begun:
            await self.begun.wait_for(lambda: job_id in self.jobs)
        return self.jobs[job_id]

    async def cli(self, *words: str, stdin: bytes | None = None) -> Told:
        """Run the command line to its end."""
        pipe = asyncio.subprocess.PIPE
        process = await self.begin(*words, **({} if stdin is None else {"stdin": pipe}))
        out, err = await process.communicate(stdin)
        assert process.returncode is not None
        assert b"Traceback" not in err
        return Told(process.returncode, out, err)

    # Admin

    async def Hello(
        self, request: admin_pb2.HelloRequest, context: Context
    ) -> admin_pb2.HelloResponse:
        return admin_pb2.HelloResponse(
            version="9.9", protocol_min=1, protocol_max=1, pid=os.getpid()
        )

    async def Status(
        self, request: admin_pb2.StatusRequest, context: Context
    ) -> admin_pb2.StatusResponse:
        told = admin_pb2.StatusResponse(
            version="9.9",
            pid=os.getpid(),
            uptime_seconds=7505,
            socket=str(self.socket),
            memory_bytes=31 * 1024 * 1024,
            jobs_running=sum(job.end is None for job in self.jobs.values()),
            config_error=self.config_error,
        )
        told.connections.add(target="me@web1:22", state="ready", channels=1)
        told.clients.add(name="claude-code/2.1", pid=4711, calls=3)
        if request.limits:
            told.limits.add(name="answer_chars", value="30000", unit="characters")
        return told

    async def ReadAudit(
        self, request: admin_pb2.ReadAuditRequest, context: Context
    ) -> AsyncIterator[admin_pb2.ReadAuditResponse]:
        for record in self.records[-request.last :]:
            yield admin_pb2.ReadAuditResponse(record=record)

    async def VerifyAudit(
        self, request: admin_pb2.VerifyAuditRequest, context: Context
    ) -> admin_pb2.VerifyAuditResponse:
        faults = [] if self.intact else ["record 2: the hash does not match"]
        return admin_pb2.VerifyAuditResponse(
            intact=self.intact, records=len(self.records), faults=faults
        )

    async def ReadCatalogue(
        self, request: admin_pb2.ReadCatalogueRequest, context: Context
    ) -> admin_pb2.ReadCatalogueResponse:
        return admin_pb2.ReadCatalogueResponse()

    async def Reload(
        self, request: admin_pb2.ReloadRequest, context: Context
    ) -> admin_pb2.ReloadResponse:
        return admin_pb2.ReloadResponse(
            reloaded=not self.config_error, error=self.config_error
        )

    # Hosts

    async def ListHosts(
        self, request: host_pb2.ListHostsRequest, context: Context
    ) -> host_pb2.ListHostsResponse:
        hosts = [
            host_pb2.Host(name="web1", target="me@web1:22", connected=True),
            host_pb2.Host(name="db1", tags=["prod"], description="keeps \x1b]0;x\x07"),
        ]
        return host_pb2.ListHostsResponse(
            hosts=[
                h
                for h in hosts
                if request.query in h.name
                and (not request.tag or request.tag in h.tags)
            ]
        )

    async def Connect(
        self, request: host_pb2.ConnectRequest, context: Context
    ) -> host_pb2.ConnectResponse:
        self.connects.append(request)
        if request.target == "refused.example":
            await refuse(context, "HOST_UNREACHABLE", "refused.example refused")
        return host_pb2.ConnectResponse(
            target="me@web1",
            connected=True,
            rtt_ms=3.25,
            server_version="SSH-2.0-OpenSSH_9.2",
            host_key_fingerprint="SHA256:abc",
            auth_method="publickey",
        )

    async def Disconnect(
        self, request: host_pb2.DisconnectRequest, context: Context
    ) -> host_pb2.DisconnectResponse:
        return host_pb2.DisconnectResponse()

    # Commands

    async def Run(
        self, request: exec_pb2.RunRequest, context: Context
    ) -> AsyncIterator[exec_pb2.RunResponse]:
        await context.abort(StatusCode.UNIMPLEMENTED, "the command line never asks")
        yield exec_pb2.RunResponse()

    async def Wait(
        self, request: exec_pb2.WaitRequest, context: Context
    ) -> AsyncIterator[exec_pb2.WaitResponse]:
        await context.abort(StatusCode.UNIMPLEMENTED, "the command line never asks")
        yield exec_pb2.WaitResponse()

    async def start(self, request: exec_pb2.RunRequest) -> LocalJob:
        """Start a command."""
        theirs = ours = None
        pipe: int | None = asyncio.subprocess.PIPE
        if request.tty:
            ours, theirs = pty.openpty()
            _resize(ours, request.terminal)
        # setsid becomes the leader itself, so the shell's pid names its group.
        process = await asyncio.create_subprocess_exec(
            *(["setsid"] if theirs is None else ["setsid", "--ctty"]),
            "sh",
            "-c",
            request.command,
            stdin=pipe if theirs is None else theirs,
            stdout=pipe if theirs is None else theirs,
            stderr=pipe if theirs is None else theirs,
            env={**os.environ, **request.env, "TERM": request.terminal.term},
            cwd=request.cwd or None,
        )
        if theirs is not None:
            os.close(theirs)
        job = LocalJob(f"j{len(self.jobs) + 1}", request, process, ours)
        async with self.begun:
            self.jobs[job.job_id] = job
            self.begun.notify_all()
        self._tasks.add(asyncio.create_task(_work(job)))
        return job

    async def Interact(
        self,
        request_iterator: AsyncIterator[exec_pb2.InteractRequest],
        context: Context,
    ) -> AsyncIterator[exec_pb2.InteractResponse]:
        frames = aiter(request_iterator)
        request = (await anext(frames)).start
        if request.target == "refused.example":
            await refuse(context, "HOST_UNREACHABLE", "refused.example refused")
        job = await self.start(request)
        if request.target == "slow.example":
            await self.let_in.wait()
        yield exec_pb2.InteractResponse(started=job.job_id)
        listening = asyncio.create_task(_listen(job, frames))
        try:
            async for chunk in _chunks(job, 0):
                if request.target == "gap.example":
                    chunk.skipped = 100
                yield exec_pb2.InteractResponse(output=chunk)
                if request.target == "cut.example":
                    del self.jobs[job.job_id]
                    job.kill(signal.SIGKILL)
                    await context.abort(StatusCode.UNAVAILABLE, "gone")
                if request.target == "late.example":
                    await job.ended()
                    await refuse(context, "CWD_FAILED", "no such directory")
            assert job.end is not None
            if request.target == "lost.example":
                job.end.status = common_pb2.EXEC_STATUS_LOST
                job.end.lost = "the connection was lost"
            yield exec_pb2.InteractResponse(end=job.end)
        finally:
            listening.cancel()
            if job.end is None:
                job.kill(signal.SIGHUP)

    async def FollowJob(
        self, request: exec_pb2.FollowJobRequest, context: Context
    ) -> AsyncIterator[exec_pb2.FollowJobResponse]:
        job = await self._find(request.job_id, context)
        async for chunk in _chunks(job, request.offset):
            yield exec_pb2.FollowJobResponse(output=chunk)
        yield exec_pb2.FollowJobResponse(end=job.end)

    async def ReadJob(
        self, request: exec_pb2.ReadJobRequest, context: Context
    ) -> AsyncIterator[exec_pb2.ReadJobResponse]:
        job = await self._find(request.job_id, context)
        told = exec_pb2.JobOutput(
            status=common_pb2.EXEC_STATUS_RUNNING,
            job_id=job.job_id,
            target="me@here",
            command=job.request.command,
            stdout_bytes=job.bytes_of(OUT),
            stderr_bytes=job.bytes_of(ERR),
            next_offset=job.total,
        )
        if job.end is not None:
            told.status = job.end.status
            if job.end.HasField("exit_code"):
                told.exit_code = job.end.exit_code
        if request.max_output_chars:
            told.stdout, told.stderr = job.text_of(OUT), job.text_of(ERR)
        if request.HasField("tail_lines"):
            lines = told.stdout.splitlines(keepends=True)
            told.stdout = "".join(lines[-request.tail_lines :])
        if request.grep == "(":
            await refuse(context, "INVALID_ARGUMENT", "grep is no regular expression")
        if request.grep:
            lines = told.stdout.splitlines(keepends=True)
            told.stdout = "".join(x for x in lines if request.grep in x)
        yield exec_pb2.ReadJobResponse(progress=common_pb2.Progress(progress=1))
        yield exec_pb2.ReadJobResponse(result=told)

    async def StopJob(
        self, request: exec_pb2.StopJobRequest, context: Context
    ) -> exec_pb2.StopJobResponse:
        job = await self._find(request.job_id, context)
        job.stopped = True
        name = common_pb2.Signal.Name(request.signal or common_pb2.SIGNAL_TERM)
        job.kill(getattr(signal, "SIG" + name.removeprefix("SIGNAL_")))
        async with job.grown:
            await job.grown.wait_for(lambda: job.end is not None)
        assert job.end is not None
        return exec_pb2.StopJobResponse(
            stopped=True, status=job.end.status, signal=job.end.signal or None
        )

    async def ListJobs(
        self, request: exec_pb2.ListJobsRequest, context: Context
    ) -> exec_pb2.ListJobsResponse:
        told = exec_pb2.ListJobsResponse()
        for job in reversed(self.jobs.values()):
            if request.running_only and job.end is not None:
                continue
            row = told.jobs.add(
                job_id=job.job_id,
                target="me@here",
                command=job.request.command,
                status=job.end.status if job.end else common_pb2.EXEC_STATUS_RUNNING,
                started="2026-11-20T10:00:00.000Z",
                duration_ms=1234,
                client="cli/0",
            )
            if job.end is not None and job.end.HasField("exit_code"):
                row.exit_code = job.end.exit_code
        return told

    async def _find(self, job_id: str, context: Context) -> LocalJob:
        if job_id not in self.jobs:
            await refuse(context, "JOB_NOT_FOUND", f"there is no job {job_id!r}")
        return self.jobs[job_id]


def _resize(terminal: int, size: exec_pb2.TerminalSize) -> None:
    packed = struct.pack("HHHH", size.rows or 24, size.cols or 80, 0, 0)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, packed)


async def _work(job: LocalJob) -> None:
    """Keep what a command prints, and how it ended."""
    process = job.process
    readers: list[Any] = []
    if job.terminal is not None:
        readers.append(_drain_terminal(job, job.terminal))
    else:
        assert process.stdout is not None
        assert process.stderr is not None
        readers.append(_drain(job, OUT, process.stdout))
        readers.append(_drain(job, ERR, process.stderr))
    await asyncio.gather(*readers)
    code = await process.wait()
    end = exec_pb2.JobEnd(duration_ms=int((time.monotonic() - job.began) * 1000))
    if code < 0:
        end.status = common_pb2.EXEC_STATUS_SIGNALLED
        end.signal = signal.Signals(-code).name.removeprefix("SIG")
    else:
        end.status = common_pb2.EXEC_STATUS_EXITED
        end.exit_code = code
    if job.stopped:
        end.status = common_pb2.EXEC_STATUS_CANCELLED
    async with job.grown:
        job.end = end
        job.grown.notify_all()


async def _drain(
    job: LocalJob, stream: exec_pb2.OutputStream.ValueType, reader: asyncio.StreamReader
) -> None:
    while data := await reader.read(PIECE):
        await job.add(stream, data)


async def _drain_terminal(job: LocalJob, terminal: int) -> None:
    with contextlib.suppress(OSError):
        while data := await asyncio.to_thread(os.read, terminal, PIECE):
            await job.add(OUT, data)


async def _chunks(job: LocalJob, offset: int) -> AsyncIterator[exec_pb2.OutputChunk]:
    index = 0
    while True:
        async with job.grown:
            while len(job.chunks) == index and job.end is None:
                await job.grown.wait()
        while index < len(job.chunks):
            chunk = job.chunks[index]
            index += 1
            late = chunk.next_offset - offset
            if late > 0:
                yield exec_pb2.OutputChunk(
                    stream=chunk.stream,
                    data=chunk.data[-late:] if late < len(chunk.data) else chunk.data,
                    next_offset=chunk.next_offset,
                )
        if job.end is not None and index == len(job.chunks):
            return


async def _listen(
    job: LocalJob, frames: AsyncIterator[exec_pb2.InteractRequest]
) -> None:
    stdin = job.process.stdin
    async for frame in frames:
        kind = frame.WhichOneof("frame")
        if kind == "stdin" and job.terminal is not None:
            os.write(job.terminal, frame.stdin)
        elif kind == "stdin" and stdin is not None:
            with contextlib.suppress(OSError):
                stdin.write(frame.stdin)
                await stdin.drain()
        elif kind == "eof" and stdin is not None:
            stdin.close()
        elif kind == "size" and job.terminal is not None:
            _resize(job.terminal, frame.size)
        elif kind == "signal":
            name = common_pb2.Signal.Name(frame.signal).removeprefix("SIGNAL_")
            job.kill(getattr(signal, "SIG" + name))
