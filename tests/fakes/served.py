"""A real gRPC server on a Unix socket behind the real door; its handlers do as told.

`RunRequest.command` says what a handler does; all four kinds of RPC are served.
"""

# ruff: noqa: N802, ARG002 - gRPC names the methods and what they are given

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool

# It has .pyi files but no py.typed marker, so both checkers take it for untyped.
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from fakes.audit import audit_log, records
from holdfast.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    common_pb2,
    exec_pb2,
    exec_pb2_grpc,
    options_pb2,
)
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.config import Config
from holdfast_daemon.errors import DeniedError, LinkError, Ran, Reason, StateError
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.policy.gate import Gate
from holdfast_daemon.rpc.context import KEY
from holdfast_daemon.rpc.door import Door, current
from holdfast_daemon.rpc.methods import CONTRACT
from holdfast_daemon.rpc.status import DETAILS
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterable
    from pathlib import Path

    from google.protobuf.descriptor import FileDescriptor

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.rpc.door import Call

    AnyContext = grpc.aio.ServicerContext[Any, Any]

STREAM_UNARY = "/holdfast.test.v1.ProbeService/Collect"
UNARY_UNARY = "/holdfast.test.v1.ProbeService/Ask"


def file_with(
    name: str,
    service: str,
    methods: Iterable[tuple[str, bool, options_pb2.Action.ValueType | None]],
) -> FileDescriptor:
    """Return a file with one service: (name, client streams, action or no rule)."""
    proto = descriptor_pb2.FileDescriptorProto(
        name=name,
        package="holdfast.test.v1",
        syntax="proto3",
        dependency=["holdfast/v1/exec.proto", "holdfast/v1/options.proto"],
    )
    made = proto.service.add(name=service)
    for method, streams, action in methods:
        kind = "InteractRequest" if streams else "RunRequest"
        one = made.method.add(
            name=method,
            input_type=f".holdfast.v1.{kind}",
            output_type=".holdfast.v1.StopJobResponse",
            client_streaming=streams,
        )
        if action is not None:
            rule = one.options.Extensions[options_pb2.rule]
            rule.action = action
            rule.audit_event = "command_execution"
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(proto.SerializeToString())
    return pool.FindFileByName(name)


PROBE = file_with(
    "holdfast/test/v1/probe.proto",
    "ProbeService",
    (
        ("Ask", False, options_pb2.ACTION_EXECUTE),
        ("Collect", True, options_pb2.ACTION_EXECUTE),
    ),
)


class Unforeseen(Exception):  # noqa: N818 - it plays a fault of ours
    """What no handler should raise."""


@dataclass
class Told:
    """What the handlers saw."""

    calls: list[Call] = field(default_factory=list["Call"])
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    resolved: list[str] = field(default_factory=list[str])
    work: asyncio.Task[bool] | None = None

    async def do(self, request: exec_pb2.RunRequest) -> None:
        """Behave as the command says."""
        self.calls.append(current())
        self.entered.set()
        match request.command:
            case "refuse":
                raise StateError(
                    Reason.NO_TARGET, "as things stand, no", hint="do otherwise"
                )
            case "deny":
                current().ticket.check(Host(name="mail", hostname="mail", user="u"))
            case "lose":
                raise LinkError(
                    Reason.CONNECTION_LOST,
                    "the connection ended",
                    ran=Ran.UNKNOWN,
                    retry_after=1.5,
                )
            case "crash":
                raise Unforeseen("with hunter22 inside")
            case "leak":
                task = asyncio.create_task(asyncio.sleep(60))
                task.cancel()
                await task
            case "wait for a task":
                self.work = asyncio.create_task(asyncio.Event().wait())
                await self.work
            case "wait" | "wait detached":
                if request.command.endswith("detached"):
                    current().ticket.detach()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.closed.set()
            case "detach":
                current().ticket.detach()
            case _:
                await asyncio.sleep(0)


class Exec(exec_pb2_grpc.ExecServiceServicer):
    """Both kinds of streaming answer."""

    def __init__(self, told: Told) -> None:
        self._told = told

    async def Run(
        self, request: exec_pb2.RunRequest, context: AnyContext
    ) -> AsyncIterator[exec_pb2.RunResponse]:
        if request.command == "endless":
            try:
                self._told.entered.set()
                while True:
                    yield exec_pb2.RunResponse(
                        progress=common_pb2.Progress(message="x" * 1000)
                    )
            finally:
                self._told.closed.set()
        yield exec_pb2.RunResponse(progress=common_pb2.Progress(message="going"))
        await self._told.do(request)
        yield exec_pb2.RunResponse(result=exec_pb2.ExecResult(command=request.command))

    async def Interact(
        self,
        request_iterator: AsyncIterator[exec_pb2.InteractRequest],
        context: AnyContext,
    ) -> AsyncIterator[exec_pb2.InteractResponse]:
        async for frame in request_iterator:
            kind = frame.WhichOneof("frame")
            yield exec_pb2.InteractResponse(started=str(kind))
            if kind == "start":
                await self._told.do(frame.start)

    async def ListJobs(
        self, request: exec_pb2.ListJobsRequest, context: AnyContext
    ) -> exec_pb2.ListJobsResponse:
        self._told.calls.append(current())
        return exec_pb2.ListJobsResponse()

    def ReadJob(
        self, request: exec_pb2.ReadJobRequest, context: AnyContext
    ) -> AsyncIterator[exec_pb2.ReadJobResponse]:
        """No generator itself: it returns one."""
        return self._read()

    async def _read(self) -> AsyncIterator[exec_pb2.ReadJobResponse]:
        yield exec_pb2.ReadJobResponse(result=exec_pb2.JobOutput(ok=True))

    async def FollowJob(
        self, request: exec_pb2.FollowJobRequest, context: AnyContext
    ) -> AsyncIterator[exec_pb2.FollowJobResponse]:
        for number in range(3):
            chunk = exec_pb2.OutputChunk(next_offset=number)
            yield exec_pb2.FollowJobResponse(output=chunk)

    async def StopJob(
        self, request: exec_pb2.StopJobRequest, context: AnyContext
    ) -> exec_pb2.StopJobResponse:
        self._told.calls.append(current())
        if request.job_id == "jmail":
            current().ticket.check(Host(name="mail", hostname="mail", user="u"))
        return exec_pb2.StopJobResponse(stopped=True)

    def Wait(
        self, request: exec_pb2.WaitRequest, context: AnyContext
    ) -> AsyncIterator[exec_pb2.WaitResponse]:
        raise DeniedError(Reason.POLICY_DENIED, "raised before the first await")


class Admin(admin_pb2_grpc.AdminServiceServicer):
    """Only Hello is of interest."""

    async def Hello(
        self, request: admin_pb2.HelloRequest, context: AnyContext
    ) -> admin_pb2.HelloResponse:
        return admin_pb2.HelloResponse(version="1")

    async def ReadCatalogue(
        self, request: admin_pb2.ReadCatalogueRequest, context: AnyContext
    ) -> admin_pb2.ReadCatalogueResponse:
        return admin_pb2.ReadCatalogueResponse()

    async def Status(
        self, request: admin_pb2.StatusRequest, context: AnyContext
    ) -> admin_pb2.StatusResponse:
        return admin_pb2.StatusResponse()

    async def ReadAudit(
        self, request: admin_pb2.ReadAuditRequest, context: AnyContext
    ) -> AsyncIterator[admin_pb2.ReadAuditResponse]:
        yield admin_pb2.ReadAuditResponse()

    async def VerifyAudit(
        self, request: admin_pb2.VerifyAuditRequest, context: AnyContext
    ) -> admin_pb2.VerifyAuditResponse:
        return admin_pb2.VerifyAuditResponse()

    async def Reload(
        self, request: admin_pb2.ReloadRequest, context: AnyContext
    ) -> admin_pb2.ReloadResponse:
        return admin_pb2.ReloadResponse(reloaded=True)


@dataclass
class Served:
    """The server, what its handlers saw, and a client."""

    channel: grpc.aio.Channel
    told: Told
    log: AuditLog
    gate: Gate
    redactor: Redactor
    server: grpc.aio.Server
    door: Door

    @property
    def exec(self) -> exec_pb2_grpc.ExecServiceStub:
        return exec_pb2_grpc.ExecServiceStub(self.channel)

    @property
    def admin(self) -> admin_pb2_grpc.AdminServiceStub:
        return admin_pb2_grpc.AdminServiceStub(self.channel)

    def ask(
        self,
    ) -> grpc.aio.UnaryUnaryMultiCallable[
        exec_pb2.RunRequest, exec_pb2.StopJobResponse
    ]:
        return self.channel.unary_unary(
            UNARY_UNARY,
            exec_pb2.RunRequest.SerializeToString,
            exec_pb2.StopJobResponse.FromString,
        )

    def collect(
        self,
    ) -> grpc.aio.StreamUnaryMultiCallable[
        exec_pb2.InteractRequest, exec_pb2.StopJobResponse
    ]:
        return self.channel.stream_unary(
            STREAM_UNARY,
            exec_pb2.InteractRequest.SerializeToString,
            exec_pb2.StopJobResponse.FromString,
        )

    async def records(self) -> list[dict[str, Any]]:
        """Return what the audit log holds by now."""
        await self.log.flush()
        return records(self.log.directory)


def decode(data: bytes) -> tuple[Any, Any]:
    """Return google.rpc.Status and ErrorInfo, as a client reads them."""
    found = status_pb2.Status.FromString(data)
    info = error_details_pb2.ErrorInfo()
    assert found.details[0].Unpack(info)
    return found, info


def status_of(error: grpc.aio.AioRpcError) -> Any:
    """Decode the google.rpc.Status of an error."""
    found = [value for key, value in error.trailing_metadata() or () if key == DETAILS]
    assert len(found) == 1, error
    assert isinstance(found[0], bytes)
    return decode(found[0])[0]


def info_of(error: grpc.aio.AioRpcError) -> Any:
    """Decode the google.rpc.ErrorInfo of an error."""
    return decode(status_of(error).SerializeToString())[1]


def retry_ms_of(error: grpc.aio.AioRpcError) -> int:
    """Decode the google.rpc.RetryInfo of an error."""
    retry = error_details_pb2.RetryInfo()
    assert status_of(error).details[1].Unpack(retry)
    delay: int = retry.retry_delay.ToMilliseconds()
    return delay


def metadata(**context: Any) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata of a client."""
    return ((KEY, common_pb2.ClientContext(**context).SerializeToString()),)


async def resolve(
    told: Told, caller: Caller, target: str, connect: common_pb2.ConnectOptions | None
) -> Host:
    """Resolve any name to itself; `gone` does not resolve."""
    told.resolved.append(target)
    name = target or caller.defaults.host or "web1"
    if name == "gone":
        raise LinkError(Reason.HOST_NOT_FOUND, "gone does not resolve")
    if name == "odd":
        raise Unforeseen("in the resolver")
    jump = None
    if connect is not None and connect.jump:
        jump = Host(name=connect.jump, hostname=connect.jump, user="u")
    return Host(name=name, hostname=name, user="deploy", proxy_jump=jump)


@asynccontextmanager
async def served(
    directory: Path, *, config: Config | None = None, first_frame_seconds: float = 10.0
) -> AsyncGenerator[Served, None]:
    """Serve on a socket in `directory`."""
    redactor, told = Redactor(), Told()
    log = audit_log(directory / "audit", redactor=redactor)
    await log.open()
    gate = Gate(lambda: config or Config(), log, SystemClock())
    door = Door(
        gate,
        lambda caller, target, connect: resolve(told, caller, target, connect),
        principal="uid:1",
        redactor=redactor,
        contract=(*CONTRACT, PROBE),
        first_frame_seconds=first_frame_seconds,
    )
    server = grpc.aio.server(interceptors=[door])
    exec_pb2_grpc.add_ExecServiceServicer_to_server(Exec(told), server)
    admin_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)
    server.add_generic_rpc_handlers((_probe(told),))
    server.add_insecure_port(f"unix:{directory}/s")
    await server.start()
    async with grpc.aio.insecure_channel(f"unix:{directory}/s") as channel:
        try:
            yield Served(channel, told, log, gate, redactor, server, door)
        finally:
            await server.stop(0)
            await log.close()


def _probe(told: Told) -> grpc.GenericRpcHandler:
    async def ask(
        request: exec_pb2.RunRequest, context: AnyContext
    ) -> exec_pb2.StopJobResponse:
        if request.command == "abort":
            await context.abort(grpc.StatusCode.ABORTED, "by hand")
        await told.do(request)
        return exec_pb2.StopJobResponse(stopped=True)

    async def collect(
        frames: AsyncIterator[exec_pb2.InteractRequest], context: AnyContext
    ) -> exec_pb2.StopJobResponse:
        kinds: list[str] = []
        async for frame in frames:
            kinds.append(str(frame.WhichOneof("frame")))
            if kinds == ["start"]:
                await told.do(frame.start)
        return exec_pb2.StopJobResponse(note=" ".join(kinds))

    async def unruled(request: Any, context: AnyContext) -> exec_pb2.StopJobResponse:
        raise AssertionError("an RPC without a rule was served")

    write = exec_pb2.StopJobResponse.SerializeToString
    handlers: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "Ask": grpc.unary_unary_rpc_method_handler(
            ask, exec_pb2.RunRequest.FromString, write
        ),
        "Collect": grpc.stream_unary_rpc_method_handler(
            collect, exec_pb2.InteractRequest.FromString, write
        ),
        "Unruled": grpc.unary_unary_rpc_method_handler(
            unruled, exec_pb2.RunRequest.FromString, write
        ),
    }
    return grpc.method_handlers_generic_handler(
        "holdfast.test.v1.ProbeService", handlers
    )
