"""The one gRPC channel to the daemon: finds it, starts it, and tells failures typed."""

from __future__ import annotations

import asyncio
import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

# Set before grpc is imported: it must never write to a person's terminal, and its fork
# handlers only complain when the daemon is started.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

import grpc
from grpc import aio

from holdfast.contract import HASH
from holdfast.v1 import admin_pb2
from holdfast_shim import autostart
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from holdfast.v1 import common_pb2

METADATA_KEY = "holdfast-client-bin"
DETAILS_KEY = "grpc-status-details-bin"
DOMAIN = "holdfast"
PROTOCOL = 1
MESSAGE_BYTES = 4 * 1024 * 1024
HELLO_SECONDS = 10.0
HELLO_TRY_SECONDS = 2.0

_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES),
    ("grpc.max_send_message_length", MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.absolute_max_metadata_size", 64 * 1024),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
RESTART = (
    "`holdfast service upgrade` has the installed version take over; with --now also"
    " from a daemon that does not answer"
)
LOG_HINT = (
    "the daemon's log tells more: log/holdfastd.log in the state directory that "
    "`holdfast status` names"
)


class DaemonClient:
    """A channel to the daemon behind `socket`; connects when first needed."""

    def __init__(
        self,
        socket: Path,
        context: common_pb2.ClientContext,
        *,
        autostart: bool,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Prepare the client; nothing is opened yet.

        Args:
            socket: Where the daemon listens.
            context: Who calls.
            autostart: Start the daemon when nothing answers.
            env: Environment for a daemon that is started; the process's own by default.
        """
        self.socket = socket
        self.context = context
        self._autostart = autostart
        self._env = os.environ if env is None else env
        self._channel: aio.Channel | None = None
        self._hello: asyncio.Task[admin_pb2.HelloResponse] | None = None
        self._known: admin_pb2.HelloResponse | None = None
        self._metadata: dict[str, tuple[tuple[str, bytes], ...]] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End calls under way and close the channel."""
        if self._hello is not None:
            self._hello.cancel()
            await asyncio.gather(self._hello, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close()
            self._channel = None

    @property
    def channel(self) -> aio.Channel:
        """The channel; one for the client's whole life, it reconnects by itself."""
        if self._channel is None:
            # The target is a URI, and a directory may be named anything.
            self._channel = aio.insecure_channel(
                f"unix:{quote(os.fsencode(self.socket))}", _OPTIONS
            )
        return self._channel

    def metadata(self, tool: str = "") -> tuple[tuple[str, bytes], ...]:
        """Return what to pass as `metadata` to every stub call."""
        known = self._metadata.get(tool)
        if known is None:
            known = self._metadata[tool] = metadata_of(self.context, tool)
        return known

    @property
    def ready(self) -> bool:
        """The daemon was greeted and the connection to it still stands."""
        return (
            self._known is not None
            and self._channel is not None
            and self._channel.get_state() == grpc.ChannelConnectivity.READY
        )

    async def connected(self) -> admin_pb2.HelloResponse:
        """Return who answers, greeting the daemon only when the connection is new."""
        if self._known is not None and self.ready:
            return self._known
        return await self.connect()

    async def connect(self) -> admin_pb2.HelloResponse:
        """Greet the daemon, starting it if need be; callers share one attempt.

        Raises:
            CallError: It could not be reached or started; nothing ran.
        """
        if self._hello is None or self._hello.done():
            self._hello = asyncio.create_task(self._greet())
            # Whoever asked may be gone by the time it fails.
            self._hello.add_done_callback(lambda t: t.cancelled() or t.exception())
        return await asyncio.shield(self._hello)

    async def _greet(self) -> admin_pb2.HelloResponse:
        self._known = None
        hello = await self._hello_of_somebody()
        if not hello.protocol_min <= PROTOCOL <= hello.protocol_max:
            raise CallError(
                "DAEMON_UNAVAILABLE",
                f"the running daemon {hello.version} speaks protocol "
                f"{hello.protocol_min} to {hello.protocol_max}, this client {PROTOCOL}",
                hint=RESTART,
            )
        self._known = hello
        return hello

    async def _hello_of_somebody(self) -> admin_pb2.HelloResponse:
        left = HELLO_SECONDS
        while True:
            # Each time anew: a daemon that is just dying still takes connections.
            await autostart.reach(self.socket, self._env, start=self._autostart)
            left -= HELLO_TRY_SECONDS
            try:
                return await self._ask_hello()
            except aio.AioRpcError as error:
                if left <= 0 or error.code() not in _AGAIN:
                    raise error_of(error, sent=False) from error

    async def _ask_hello(self) -> admin_pb2.HelloResponse:
        call: aio.UnaryUnaryMultiCallable[
            admin_pb2.HelloRequest, admin_pb2.HelloResponse
        ] = self.channel.unary_unary(
            "/holdfast.v1.AdminService/Hello",
            request_serializer=admin_pb2.HelloRequest.SerializeToString,
            response_deserializer=admin_pb2.HelloResponse.FromString,
        )
        return await call(
            admin_pb2.HelloRequest(contract_hash=HASH),
            metadata=self.metadata(),
            timeout=HELLO_TRY_SECONDS,
            wait_for_ready=True,
        )


def metadata_of(
    context: common_pb2.ClientContext, tool: str
) -> tuple[tuple[str, bytes], ...]:
    """Return the metadata that tells the daemon who calls and for which tool."""
    told = type(context)()
    told.CopyFrom(context)
    told.tool = tool
    return ((METADATA_KEY, told.SerializeToString()),)


def error_of(error: aio.AioRpcError, *, sent: bool = True) -> CallError:
    """Return what a failed RPC means.

    Args:
        error: The failure.
        sent: The call may have reached the daemon; decides what `ran` says where the
            daemon itself did not tell.
    """
    told = _details(error)
    code = error.code()
    if told is not None:
        return told
    unknown = "unknown" if sent else "no"
    if code in _LOST:
        slow = code is grpc.StatusCode.DEADLINE_EXCEEDED
        if not sent:
            message = (
                "took the connection but did not answer" if slow else "is not there"
            )
            return CallError(
                "DAEMON_UNAVAILABLE",
                f"the holdfast daemon {message}",
                hint=RESTART if slow else "try again; `holdfast status` tells more",
                code=code.name,
            )
        message = "the connection to the holdfast daemon ended before its answer came"
        hint = "the next call reconnects"
        if slow:
            # The connection stands, and the next call would wait as long.
            message = "the holdfast daemon has the call, and did not answer in time"
            hint = f"if it answers no other call either, it hangs: {RESTART}"
        return CallError(
            "DAEMON_LOST",
            message,
            hint=f"{hint}; look with ssh_job_list before running a command again",
            ran="unknown",
            code=code.name,
        )
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return CallError(
            "UNSUPPORTED",
            "the running holdfast daemon does not know this call; it is another "
            "version than this client",
            hint=RESTART,
            code=code.name,
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _too_large(error, ran=unknown)
    return CallError(
        "INTERNAL",
        f"the holdfast daemon failed with {code.name} and gave no details",
        hint=LOG_HINT,
        ran=unknown,
        code=code.name,
    )


def _too_large(error: aio.AioRpcError, *, ran: str) -> CallError:
    message = "a message between this client and the daemon is larger than 4 MiB"
    hint = "send or ask for less at a time"
    if _METADATA in (error.details() or ""):
        message = "what this client's environment adds to each call is over 64 KiB"
        hint = "name fewer hosts in SSH_ALLOWED_HOSTS, or patterns such as web*"
        ran = "no"
    return CallError(
        "LIMIT_REACHED", message, hint=hint, ran=ran, code=error.code().name
    )


# A connection that was cut just now, or a daemon that took it and was gone.
_AGAIN = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED}
# gRPC's words for headers that are refused before anything is read of the call.
_METADATA = "metadata size exceeds"
_LOST = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _details(error: aio.AioRpcError) -> CallError | None:
    """Decode the google.rpc.Status that the daemon sends with its errors."""
    trailers: Any = error.trailing_metadata() or ()
    for key, value in trailers:
        if key == DETAILS_KEY:
            # Imported by name: the package carries no types, and only failures need it.
            status = import_module("google.rpc.status_pb2").Status.FromString(value)
            info = import_module("google.rpc.error_details_pb2").ErrorInfo()
            for detail in status.details:
                if detail.Unpack(info) and info.domain == DOMAIN:
                    metadata = dict(info.metadata)
                    return CallError(
                        info.reason,
                        status.message or str(error.details()),
                        hint=metadata.pop("hint", ""),
                        ran=metadata.pop("ran", "unknown"),
                        metadata=metadata,
                        code=error.code().name,
                    )
    return None
