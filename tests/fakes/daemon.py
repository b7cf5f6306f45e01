"""A daemon without SSH: answers the shim's calls by what the command says.

echo TEXT     exits 0 with TEXT
wait          one progress frame, then nothing until `release` is set
progress N    N progress frames that all carry the same value
refuse        the typed refusal HOST_NOT_ALLOWED
lose-once     the connection's loss before any frame, then `echo again`; `lose-once
              refuse`: then the refusal
flood N       N characters of output
silent        an answer without a result
crash         the process ends (only as a program)
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Self
from urllib.parse import quote

import grpc
from google.protobuf import any_pb2
from grpc import aio

from holdfast.v1 import admin_pb2, common_pb2, exec_pb2, host_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Context = aio.ServicerContext[Any, Any]


class FakeDaemon:
    """A server on `socket` that records who called and what was asked."""

    def __init__(self, socket: Path, instance: str = "first") -> None:
        self.socket = socket
        self.instance = instance
        self.hellos = 0
        self.runs: list[exec_pb2.RunRequest] = []
        self.callers: list[common_pb2.ClientContext] = []
        self.begun = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.release = asyncio.Event()
        self.lost: set[str] = set()
        self._server: aio.Server | None = None

    async def start(self) -> None:
        """Bind and serve."""
        self.begun, self.cancelled = asyncio.Event(), asyncio.Event()
        server = aio.server()
        server.add_generic_rpc_handlers(self._handlers())
        old = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{quote(os.fsencode(self.socket))}")
        finally:
            os.umask(old)
        await server.start()
        self._server = server

    async def stop(self) -> None:
        """End at once, with whatever is under way."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None
            self.socket.unlink(missing_ok=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    def _handlers(self) -> tuple[Any, ...]:
        """Return the RPCs that the fake knows; all others are UNIMPLEMENTED."""

        def bytes_of(message: Any) -> Any:
            return message.SerializeToString()

        def unary(answer: Any, request: Any) -> Any:
            return grpc.unary_unary_rpc_method_handler(
                answer, request.FromString, bytes_of
            )

        def stream(answer: Any, request: Any) -> Any:
            return grpc.unary_stream_rpc_method_handler(
                answer, request.FromString, bytes_of
            )

        services = {
            "Admin": {"Hello": unary(self._hello, admin_pb2.HelloRequest)},
            "Host": {"ListHosts": unary(self._hosts, host_pb2.ListHostsRequest)},
            "Exec": {
                "Run": stream(self._run, exec_pb2.RunRequest),
                "ListJobs": unary(self._jobs, exec_pb2.ListJobsRequest),
                "ReadJob": stream(self._read, exec_pb2.ReadJobRequest),
            },
        }
        return tuple(
            grpc.method_handlers_generic_handler(f"holdfast.v1.{name}Service", known)
            for name, known in services.items()
        )

    async def _hello(
        self, request: admin_pb2.HelloRequest, _: Context
    ) -> admin_pb2.HelloResponse:
        self.hellos += 1
        return admin_pb2.HelloResponse(
            version="0",
            instance=self.instance,
            protocol_min=1,
            protocol_max=1,
            contract_hash=request.contract_hash,
            pid=os.getpid(),
        )

    async def _hosts(
        self, _: host_pb2.ListHostsRequest, context: Context
    ) -> host_pb2.ListHostsResponse:
        await self._seen(context)
        hosts = [host_pb2.Host(name="web1", target="me@web1:22", connected=True)]
        return host_pb2.ListHostsResponse(hosts=hosts)

    async def _run(
        self, request: exec_pb2.RunRequest, context: Context
    ) -> AsyncIterator[exec_pb2.RunResponse]:
        await self._seen(context)
        self.runs.append(request)
        word, _, rest = request.command.partition(" ")
        if word == "crash":
            os.kill(os.getpid(), signal.SIGKILL)
        elif word == "refuse":
            await refuse(context, "HOST_NOT_ALLOWED", "db1 is not allowed")
        elif word == "lose-once" and request.request_id not in self.lost:
            self.lost.add(request.request_id)
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"at {self.socket}")
        elif word == "lose-once" and rest == "refuse":
            await refuse(context, "HOST_NOT_ALLOWED", "db1 is not allowed any more")
        elif word == "wait":
            yield _progress(0.0, "started")
            self.begun.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        elif word == "progress":
            for number in range(int(rest)):
                yield _progress(1.0, f"line {number}")
        said = "x" * int(rest) if word == "flood" else rest or "again"
        if word != "silent":
            yield exec_pb2.RunResponse(result=ended(said, request))

    async def _jobs(
        self, request: exec_pb2.ListJobsRequest, context: Context
    ) -> exec_pb2.ListJobsResponse:
        await self._seen(context)
        if request.target == "lose-once" and "jobs" not in self.lost:
            self.lost.add("jobs")
            await context.abort(grpc.StatusCode.UNAVAILABLE, "gone")
        return exec_pb2.ListJobsResponse()

    async def _read(
        self, request: exec_pb2.ReadJobRequest, context: Context
    ) -> AsyncIterator[exec_pb2.ReadJobResponse]:
        await self._seen(context)
        yield exec_pb2.ReadJobResponse(
            result=exec_pb2.JobOutput(
                status=common_pb2.EXEC_STATUS_RUNNING,
                job_id=request.job_id,
                stdout="more\n",
                stdout_bytes=5,
                lines=1,
                lines_shown=1,
                next_offset=5,
            )
        )

    async def _seen(self, context: Context) -> None:
        """Note who calls; refuse what is for another daemon."""
        for key, value in context.invocation_metadata() or ():
            if key == "holdfast-client-bin":
                assert isinstance(value, bytes)
                told = common_pb2.ClientContext.FromString(value)
                if told.daemon not in ("", self.instance):
                    await refuse(
                        context,
                        "DAEMON_LOST",
                        "another runs now",
                        grpc.StatusCode.UNAVAILABLE,
                    )
                self.callers.append(told)


async def refuse(
    context: Context,
    reason: str,
    message: str,
    code: grpc.StatusCode = grpc.StatusCode.PERMISSION_DENIED,
) -> NoReturn:
    """Abort with a typed error, as the daemon does."""
    details: Any = import_module("google.rpc.error_details_pb2")
    info = details.ErrorInfo(
        reason=reason,
        domain="holdfast",
        metadata={"ran": "no", "hint": "ask for another host", "allowed": "web*"},
    )
    packed = any_pb2.Any()
    packed.Pack(info)
    status = import_module("google.rpc.status_pb2").Status(
        code=code.value[0], message=message, details=[packed]
    )
    context.set_trailing_metadata(
        (("grpc-status-details-bin", status.SerializeToString()),)
    )
    await context.abort(code, message)


def _progress(value: float, text: str) -> exec_pb2.RunResponse:
    return exec_pb2.RunResponse(
        progress=common_pb2.Progress(progress=value, message=text)
    )


def ended(stdout: str, request: exec_pb2.RunRequest) -> exec_pb2.ExecResult:
    """Return the result of a command that exited 0."""
    return exec_pb2.ExecResult(
        ok=True,
        status=common_pb2.EXEC_STATUS_EXITED,
        exit_code=0,
        stdout=stdout + "\n",
        stdout_bytes=len(stdout) + 1,
        duration_ms=1234,
        target=request.target or "me@web1",
        command=request.command,
        job_id="j7k2",
        lines=1,
        lines_shown=1,
        next_offset=len(stdout) + 1,
    )


async def _program(socket: Path) -> None:
    daemon = FakeDaemon(socket, instance=str(os.getpid()))
    await daemon.start()
    loop = asyncio.get_running_loop()
    end = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, end.set)
    await end.wait()
    await daemon.stop()


if __name__ == "__main__":
    asyncio.run(_program(Path(sys.argv[sys.argv.index("--socket") + 1])))
