"""One tool call carried to the daemon: arguments in, result or typed failure out."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.runtime_version import VersionError
from grpc import aio

from holdfast_shim import audience, elicit, errors, render
from holdfast_shim.client import LOG_HINT, MESSAGE_BYTES, error_of, metadata_of
from holdfast_shim.errors import CallError
from holdfast_shim.nearest import alike
from holdfast_shim.planned import PLANNED
from holdfast_shim.translate import ArgumentError, fill

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.message import Message

    from holdfast.v1 import admin_pb2
    from holdfast_shim.arguments import Options
    from holdfast_shim.catalogue import Catalogue
    from holdfast_shim.client import DaemonClient
    from holdfast_shim.elicit import Forms
    from holdfast_shim.protocol import Call
    from holdfast_shim.settings import Settings
    from holdfast_shim.skew import Skew

    # How far it is, of how much (0: not known), and what happened last.
    Progress = Callable[[float, float, str], None]
    Metadata = tuple[tuple[str, bytes], ...]

# Room for what frames a message.
_REQUEST_BYTES = MESSAGE_BYTES - 4096
# The daemon answers within wait_seconds and the time it takes to connect; beyond that
# and this much it is frozen, and nobody should wait for it.
_FROZEN_SECONDS = 60.0
_WAIT_SECONDS = 50.0
# The longest that its configuration may give a call which can't say how long to wait.
_WORK_SECONDS = 300.0
_USUAL_WAIT_SECONDS = 45.0
_CONNECT_SECONDS = 10.0
# The daemon refuses more than that, and a deadline can't tell any number.
_LONGEST_CONNECT_SECONDS = 3600.0
# Names a client may have given; one is the rule.
_KNOWN = 256


class Calls:
    """Carries tool calls over one channel."""

    def __init__(
        self,
        options: Options,
        catalogue: Catalogue,
        settings: Settings,
        client: DaemonClient,
        *,
        forms: Forms,
        skew: Skew,
    ) -> None:
        self._skew = skew
        self._forms = forms
        self._options = options
        self._catalogue = catalogue
        self._settings = settings
        self._client = client
        self._stubs: dict[str, _Stub] = {}
        self._known: dict[tuple[str, str, str], Metadata] = {}
        # of the daemon that was looked at; another takes none of our calls
        self._instance = ""

    async def result(self, call: Call, progress: Progress) -> dict[str, Any]:
        """Return the tool result of `call`; its failures are results too.

        Raises:
            ProtocolError: It says it goes on where an earlier one ended, but does not.
        """
        resumed = self._forms.resumed(call)
        if resumed is not None and not resumed.accepted:
            return errors.result(resumed.error)
        try:
            entry = self._entry(call.name)
            if self._settings.problem is not None:
                raise self._settings.problem
            stub = self._stub(entry)
            request = _request(stub, call.arguments)
            if resumed is not None and resumed.request_id:
                request.request_id = resumed.request_id
            rising = _Rising(progress)
            try:
                answer = await self._carry(entry, stub, request, call, rising)
            except CallError as error:
                if resumed is not None or not elicit.wanted(error, call):
                    raise
                if call.stateless:
                    request_id = request.request_id if stub.has_request_id else ""
                    return self._forms.required(error, call, request_id)
                if not await self._forms.accepted(error):
                    raise
                # Nothing ran, so the same call, by the same request_id, may go again.
                answer = await self._carry(entry, stub, request, call, rising)
        except CallError as error:
            return errors.result(error)
        return render.result(
            answer,
            form=entry["result"],
            results=self._options.results,
            client=call.client.name,
            request=request,
        )

    def _entry(self, name: str) -> dict[str, Any]:
        entry = self._catalogue.entries.get(name)
        if entry is None:
            raise _unknown(name, self._catalogue.tools)
        if entry["toolset"] not in self._catalogue.toolsets:
            raise CallError(
                "UNKNOWN_TOOL",
                f"{name} belongs to the toolset {entry['toolset']}, which is off",
                hint="start holdfast-mcp with --toolsets naming it, or all",
            )
        # One hidden by --read-only goes on: the daemon refuses it and records that.
        return entry

    def _stub(self, entry: dict[str, Any]) -> _Stub:
        rpc = entry["rpc"]
        stub = self._stubs.get(rpc)
        if stub is None:
            try:
                stub = self._stubs[rpc] = _Stub(self._client.channel, entry)
            except (ImportError, KeyError, TypeError, VersionError) as error:
                # The files of another release are in the place of ours.
                raise CallError(
                    "UNSUPPORTED",
                    "holdfast was upgraded or removed since this client started it"
                    f" ({error})",
                    hint="restart this MCP server",
                ) from error
        return stub

    async def _carry(
        self,
        entry: dict[str, Any],
        stub: _Stub,
        request: Message,
        call: Call,
        rising: _Rising,
    ) -> Message:
        """Make the call; again only where a second one changes nothing."""
        hello = await self._client.connected()
        await self._fit(hello, call)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        hints = entry["tool"]["annotations"]
        timeout = patience(
            request,
            self._settings.connect_timeout_seconds,
            at_host=hints["openWorldHint"],
        )
        try:
            return await stub.call(request, self._metadata(call), timeout, rising)
        except aio.AioRpcError as error:
            failure, lost = error_of(error), error
        if lost.code() is not grpc.StatusCode.UNAVAILABLE:
            raise failure from lost
        if failure.reason != "DAEMON_LOST":
            raise failure from lost
        try:
            now = await self._client.connect()
        except CallError:
            raise failure from lost
        harmless = hints["readOnlyHint"] and hints["idempotentHint"]
        # A daemon that was started since knows nothing of the first call's request_id.
        same = stub.has_request_id and now.instance == hello.instance
        if failure.ran != "no" and not harmless and not same:
            raise failure from lost
        await self._fit(now, call)
        spend(request, loop.time() - begun)
        try:
            return await stub.call(request, self._metadata(call), timeout, rising)
        except aio.AioRpcError as error:
            again = error_of(error)
            if again.ran == "no" and not harmless:
                # That is told of the second call: it may have been refused at the door.
                again.ran = failure.ran
            raise again from error

    async def _fit(self, hello: admin_pb2.HelloResponse, call: Call) -> None:
        """See that the daemon which answers knows what is asked for.

        Raises:
            CallError: It does not; nothing ran.
        """
        await self._skew.meet(hello)
        self._skew.check(call.name, call.arguments)
        if self._instance != hello.instance:
            self._instance = hello.instance
            self._known.clear()

    def _metadata(self, call: Call) -> Metadata:
        """Return who calls; in the stateless era each call may name another client."""
        key = (call.client.name, call.client.version, call.name)
        known = self._known.get(key)
        if known is None:
            context = self._settings.context(
                call.client.name,
                call.client.version,
                read_only=self._options.read_only,
                max_output_chars=audience.budget(call.client.name),
            )
            context.daemon = self._instance
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[key] = metadata_of(context, call.name)
        return known


class _Rising:
    """Passes progress on, strictly rising as the protocol demands."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last = -1.0

    def __call__(self, value: float, total: float, text: str) -> None:
        self._last = value if value > self._last else self._last + 1.0
        # One that was made again, or estimated too low, is no total any more.
        self._progress(self._last, total if total >= self._last else 0.0, text)


class _Stub:
    """One RPC of the catalogue."""

    def __init__(self, channel: aio.Channel, entry: Mapping[str, Any]) -> None:
        path: str = entry["rpc"]
        service, _, method = path[1:].partition("/")
        package, _, name = service.rpartition(".")
        # Each service has a file of its own; importing it fills the descriptor pool.
        import_module(f"{package}.{name.removesuffix('Service').lower()}_pb2")
        pool = descriptor_pool.Default()
        found = pool.FindServiceByName(service).methods_by_name[method]
        self.request: type[Message] = message_factory.GetMessageClass(found.input_type)
        self.has_request_id = "request_id" in found.input_type.fields_by_name
        answer: type[Message] = message_factory.GetMessageClass(found.output_type)
        self._endings: set[asyncio.Future[Any]] = set()
        self._unary: aio.UnaryUnaryMultiCallable[Message, Message] | None = None
        self._stream: aio.UnaryStreamMultiCallable[Message, Message] | None = None
        if entry["stream"]:
            self._stream = channel.unary_stream(
                path,
                request_serializer=self.request.SerializeToString,
                response_deserializer=answer.FromString,
            )
        else:
            self._unary = channel.unary_unary(
                path,
                request_serializer=self.request.SerializeToString,
                response_deserializer=answer.FromString,
            )

    async def call(
        self, request: Message, metadata: Metadata, seconds: float, progress: Progress
    ) -> Message:
        if self._unary is not None:
            return await self._unary(request, metadata=metadata, timeout=seconds)
        assert self._stream is not None  # noqa: S101 - one of the two is set
        call = self._stream(request, metadata=metadata, timeout=seconds)
        answered = False
        try:
            async for frame in call:
                told: Any = frame
                kind = told.WhichOneof("event")
                if kind == "progress":
                    far = told.progress
                    progress(far.progress, far.total, far.message)
                elif kind == "result":
                    answered = True
                    # The last frame by contract: nobody waits for the status after it.
                    ending = asyncio.ensure_future(call.code())
                    self._endings.add(ending)
                    ending.add_done_callback(self._endings.discard)
                    result: Message = told.result
                    return result
        finally:
            # grpc misses a cancellation that comes just as the request was sent, and
            # the daemon would go on waiting for nobody. After the end it does nothing.
            if not answered:
                call.cancel()
        raise CallError(
            "INTERNAL",
            "the holdfast daemon ended its answer without a result",
            hint=LOG_HINT,
            ran="unknown",
        )


def _unknown(name: str, tools: list[dict[str, Any]]) -> CallError:
    """Return the error for a tool that is not there, with what may be used instead."""
    offered = [tool["name"] for tool in tools]
    others = f"the tools are {', '.join(offered)}"
    if name in PLANNED:
        return CallError(
            "UNKNOWN_TOOL",
            f"{name} is not available yet in this release",
            hint="use ssh_exec" if "ssh_exec" in offered else others,
        )
    risky = {t["name"]: t["annotations"]["destructiveHint"] for t in tools}
    # A guess must not lead to harm where a harmless one is as good.
    close = sorted(alike(name, offered), key=lambda near: bool(risky[near]))
    return CallError(
        "UNKNOWN_TOOL",
        f"there is no tool named {name[:100]!r}",
        hint=f"did you mean {' or '.join(close)}?" if close else others,
    )


def _request(stub: _Stub, arguments: object) -> Any:
    if arguments is not None and not isinstance(arguments, dict):
        raise errors.invalid("arguments", "arguments must be an object")
    request: Any = stub.request()
    try:
        fill(request, arguments or {})
    except ArgumentError as error:
        raise errors.invalid(error.field, error.message) from None
    if request.ByteSize() > _REQUEST_BYTES:
        field, value = max(request.ListFields(), key=lambda item: len(str(item[1])))
        raise errors.invalid(
            field.name,
            f"{field.name} is too large ({len(str(value)):,} characters); a call takes "
            "4 MiB in all",
            hint="put large data in a file on the host and name the file",
        )
    if stub.has_request_id and not request.request_id:
        # So that the daemon can tell a call that we repeat from a second command.
        request.request_id = f"shim-{os.urandom(12).hex()}"
    return request


def spend(request: Any, seconds: float) -> None:
    """Take from what a call may wait the time that it waited before it was repeated."""
    if "wait_seconds" not in request.DESCRIPTOR.fields_by_name:
        return
    given = request.HasField("wait_seconds")
    left = request.wait_seconds if given else _USUAL_WAIT_SECONDS
    request.wait_seconds = max(0.0, left - seconds)


def patience(
    request: Any, connect_seconds: float | None, *, at_host: bool = True
) -> float:
    """Return after how many seconds the daemon must be frozen.

    `at_host`: it has something to do at a host.
    """
    fields = request.DESCRIPTOR.fields_by_name
    if "connect" in fields and request.connect.HasField("connect_timeout_seconds"):
        connect_seconds = request.connect.connect_timeout_seconds
    # Each jump host may take its own time.
    one = max(0.0, min(connect_seconds or _CONNECT_SECONDS, _LONGEST_CONNECT_SECONDS))
    connecting: float = 3 * one
    told = "wait_seconds" in fields or not at_host
    working = _WAIT_SECONDS if told else _WORK_SECONDS
    return _FROZEN_SECONDS + working + connecting
