"""The one door: every gRPC call of every kind comes in here, and leaves here.

It tells who calls, checks the request, has its target resolved, passes the gate, runs
the handler and tells the outcome. Knows no service. Handlers read a stream of requests
from their iterator and never by `context.read()`: the first frame was read here.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from holdfast_daemon import logs
from holdfast_daemon.errors import (
    DaemonError,
    DeniedError,
    InputError,
    LinkError,
    Ran,
    Reason,
    StateError,
)
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import LOOKING, Operation
from holdfast_daemon.rpc import context as context_module
from holdfast_daemon.rpc import status
from holdfast_daemon.rpc.methods import CONTRACT, methods
from holdfast_daemon.rpc.place import Places, default_port_of
from holdfast_daemon.rpc.validate import validate

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
    )

    from google.protobuf.descriptor import FileDescriptor
    from google.protobuf.message import Message

    from holdfast.v1.common_pb2 import ConnectOptions
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.gate import Gate, Ticket
    from holdfast_daemon.rpc.methods import Method
    from holdfast_daemon.rpc.place import Resolve
    from holdfast_daemon.rpc.status import AnyContext
    from holdfast_daemon.secrets import Redactor

    Handler = grpc.RpcMethodHandler[Any, Any]
    Continuation = Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]

_log = logging.getLogger(__name__)

# Secrets that clients sent are hidden from then on; so many different ones at most.
_SECRETS = 256
# Contexts that need not be read again.
_CALLERS = 256


@dataclass(slots=True)
class Call:
    """One call that was let in: what a handler needs to know of it."""

    ticket: Ticket
    caller: Caller
    host: Host | None


_current: ContextVar[Call] = ContextVar("call")


def current() -> Call:
    """Return the call that this handler, or a task it started, works for."""
    return _current.get()


class Door(grpc.aio.ServerInterceptor):
    """Put it in front of a server; every RPC the server has must be in `contract`."""

    def __init__(
        self,
        gate: Gate,
        resolve: Resolve,
        principal: str,
        *,
        seen: Callable[[Caller], None] | None = None,
        redactor: Redactor | None = None,
        instance: str = "",
        failed: Callable[[Caller, DaemonError], None] | None = None,
        contract: Iterable[FileDescriptor] = CONTRACT,
        first_frame_seconds: float = 10.0,
    ) -> None:
        """Read the rules of `contract`; `failed` hears of calls that were let in.

        A call for another `instance` of the daemon is refused.

        Raises:
            UnruledError: An RPC has no rule.
        """
        self._gate = gate
        self._places = Places(resolve)
        self._principal = principal
        self._seen = seen
        self._redactor = redactor
        self._instance = instance
        self._told = failed
        self._methods = methods(contract)
        self._first_frame_seconds = first_frame_seconds
        self._hidden: OrderedDict[str, None] = OrderedDict()
        self._callers: dict[bytes, tuple[Caller, tuple[str, ...]]] = {}
        self._wrapped: dict[str, tuple[Handler, Handler]] = {}
        self._working: set[asyncio.Task[Any]] = set()
        self._cut: set[asyncio.Task[Any]] = set()

    def close(self) -> None:
        """Cut off whoever still works; its caller is told that the daemon stops."""
        for task in self._working - self._cut:
            self._cut.add(task)
            task.cancel()

    async def resolve(
        self, caller: Caller, target: str, connect: ConnectOptions | None
    ) -> Host:
        """Resolve a target as for a call, named as the rules want it."""
        return await self._places.resolve(caller, target, connect)

    async def admit(self, caller: Caller, path: str, name: str, request: Any) -> Call:
        """Pass the gate as the RPC of `path` does, for what the RPC `name` does too.

        Whoever asked tells the ticket's outcome.

        Raises:
            DaemonError: It is refused, or the target can't be resolved.
        """
        method = replace(self._methods[path], name=name)
        return await self._admit(method, caller, request)

    async def intercept_service(
        self,
        continuation: Continuation,
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Return the handler of one call, wrapped; None: there is no such RPC."""
        path = handler_call_details.method
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        known = self._wrapped.get(path)
        if known is not None and known[0] is handler:
            return known[1]
        method = self._methods.get(path)
        if method is None:
            _log.error("%s is served but not in the contract: refused", path)
            return None
        wrapped = self._wrap(handler, method)
        self._wrapped[path] = (handler, wrapped)
        return wrapped

    def _wrap(self, handler: Handler, method: Method) -> Handler:
        if handler.request_streaming:
            behaviour = handler.stream_stream or handler.stream_unary
        else:
            behaviour = handler.unary_stream or handler.unary_unary
        if handler.response_streaming:
            answer = _stream(behaviour)
        else:
            answer = _single(behaviour)
        if handler.request_streaming:
            enter = self._from_stream(method, answer)
        else:
            enter = self._from_message(method, answer)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(enter, handler.request_deserializer, handler.response_serializer)

    # These are coroutines that write, and no generators, for streams too: only so does
    # a client that goes away interrupt us here, where the outcome is told.

    def _from_message(self, method: Method, answer: Answer) -> Any:
        async def enter(request: Any, context: AnyContext) -> Any:
            try:
                caller = self._caller(context)
                validate(request)
                call = await self._admit(method, caller, request)
            except Exception as error:  # noqa: BLE001 - all of them become a status
                return await _refuse(context, error)
            return await self._work(method, call, answer, request, context)

        return enter

    def _from_stream(self, method: Method, answer: Answer) -> Any:
        async def enter(requests: Any, context: AnyContext) -> Any:
            frames = aiter(requests)
            try:
                caller = self._caller(context)
                first = await self._first(frames)
                validate(first)
                call = await self._admit(method, caller, method.subject(first))
            except Exception as error:  # noqa: BLE001 - all of them become a status
                return await _refuse(context, error)
            async with aclosing(_rejoined(first, frames)) as rejoined:
                return await self._work(method, call, answer, rejoined, context)

        return enter

    async def _first(self, frames: AsyncIterator[Message]) -> Message:
        try:
            async with asyncio.timeout(self._first_frame_seconds):
                return await anext(frames)
        except StopAsyncIteration:
            raise InputError(
                "start", "the stream ended before its first frame"
            ) from None
        except TimeoutError:
            raise InputError(
                "start", f"no first frame came within {self._first_frame_seconds:g} s"
            ) from None

    def _caller(self, context: AnyContext) -> Caller:
        data = context_module.context_of(context.invocation_metadata())
        if data is None:
            caller = Caller(self._principal)
        else:
            # A client says the same with each call, but for the tool.
            known = self._callers.get(data)
            if known is None:
                known = self._learn(data)
            caller, secrets = known
            for secret in secrets:
                self._hide(secret)
        if self._seen is not None:
            self._seen(caller)
        return caller

    def _learn(self, data: bytes) -> tuple[Caller, tuple[str, ...]]:
        told = context_module.read(data)
        if told.daemon not in ("", self._instance):
            raise LinkError(
                Reason.DAEMON_LOST,
                "the daemon that this call was for has ended; another runs now",
                hint="the same call again reaches it",
            )
        caller = context_module.caller_of(told, self._principal)
        secrets = (told.default_password, told.private_key, told.token)
        while len(self._callers) >= _CALLERS:
            del self._callers[next(iter(self._callers))]
        self._callers[data] = known = caller, tuple(filter(None, secrets))
        return known

    def _hide(self, secret: str) -> None:
        """Keep `secret` out of every text from now on."""
        if self._redactor is None:
            return
        if secret in self._hidden:
            self._hidden.move_to_end(secret)
            return
        self._redactor.add(secret)
        self._hidden[secret] = None
        if len(self._hidden) > _SECRETS:
            oldest, _ = self._hidden.popitem(last=False)
            self._redactor.remove(oldest)

    async def _admit(self, method: Method, caller: Caller, subject: Any) -> Call:
        """Pass the gate, with the target resolved."""
        for secret in method.secret_values(subject):
            self._hide(secret)
        host: Host | None = None
        hops: list[Host] = []
        disabled: list[Host] = []
        default_port: int | None = None
        metadata = method.evidence(subject)
        if method.resolves:
            given = method.connects and subject.HasField("connect")
            connect = subject.connect if given else None
            host = await self._places.resolve(caller, subject.target, connect)
            if connect is not None and connect.jump:
                hops = await self._places.hops(caller, host)
                metadata["jump"] = connect.jump
            disabled = await self._places.named(caller, self._gate.disabled())
            default_port = default_port_of(caller, subject.target, connect)
        elif method.targets and subject.target:
            metadata["target"] = subject.target
        ticket = await self._gate.enter(
            Operation(
                method.name,
                method.action,
                method.event,
                caller,
                default_port,
                method.person,
            ),
            host,
            command=subject.command if method.commands else None,
            metadata=metadata,
            hops=hops,
            disabled=disabled,
        )
        return Call(ticket, caller, host)

    async def _work(
        self,
        method: Method,
        call: Call,
        answer: Answer,
        request: Any,
        context: AnyContext,
    ) -> Any:
        _current.set(call)
        logs.about(
            client=call.caller.label,
            host=call.host.name if call.host else "",
            session=getattr(request, "session", ""),
        )
        ticket = call.ticket
        try:
            with self._at_work():
                result = await answer(request, context)
        except (asyncio.CancelledError, grpc.aio.InternalError) as error:
            # a frame that can't be sent any more is told before the end of its call
            if _asked_to_stop() or isinstance(error, grpc.aio.InternalError):
                await _tell(ticket, "cancelled", "the caller went away")
                raise asyncio.CancelledError from error
            # It was cut off, or a task that it waited for was cancelled: that is the
            # stop's doing, or our own fault.
            stopped = _stopped(method) if self._gate.draining else error
            return await self._failed(method, ticket, stopped, context)
        except grpc.aio.AbortError:
            await _tell(ticket, "error", "aborted by its handler")
            raise
        except Exception as error:  # noqa: BLE001 - all of them become a status
            return await self._failed(method, ticket, error, context)
        await _tell(ticket, "ok", None)
        return result

    @contextmanager
    def _at_work(self) -> Generator[None]:
        """Let this task be cut off; afterwards only others have asked it to stop."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a handler runs in no task")
        self._working.add(task)
        try:
            yield
        finally:
            self._working.discard(task)
            if task in self._cut:
                self._cut.discard(task)
                task.uncancel()

    async def _failed(
        self,
        method: Method,
        ticket: Ticket,
        error: BaseException,
        context: AnyContext,
    ) -> Any:
        if isinstance(error, DaemonError):
            known = error
        else:
            ran = Ran.NO if method.action in LOOKING else Ran.UNKNOWN
            known = status.incident(error, ran=ran)
        if self._told is not None:
            self._told(ticket.operation.caller, known)
        result = "denied" if isinstance(known, DeniedError) else "error"
        await _tell(ticket, result, known.recorded or known.message)
        return await status.abort(context, known)


if TYPE_CHECKING:
    Answer = Callable[[Any, AnyContext], Awaitable[Any]]


async def _refuse(context: AnyContext, error: Exception) -> Any:
    """Tell that a call was not let in: nothing ran, whatever went wrong."""
    if not isinstance(error, DaemonError):
        error = status.incident(error, ran=Ran.NO)
    return await status.abort(context, error)


async def _tell(ticket: Ticket, result: str, error: str | None) -> None:
    if not ticket.detached:
        await ticket.finish(result, error=error)


def _asked_to_stop() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def _stopped(method: Method) -> DaemonError:
    """Return what a caller is told of a handler that the stop cut off."""
    looked = method.action in LOOKING
    again = "Call again in a moment."
    return StateError(
        Reason.DRAINING,
        "the daemon is stopping",
        hint=again if looked else f"Look first whether it was done. {again}",
        ran=Ran.NO if looked else Ran.UNKNOWN,
    )


async def _rejoined(
    first: Message, rest: AsyncIterator[Message]
) -> AsyncGenerator[Message, None]:
    """Yield the frame that was read to know the call, and then the others, checked."""
    yield first
    async for frame in rest:
        validate(frame)
        yield frame


def _single(behaviour: Any) -> Answer:
    async def answer(request: Any, context: AnyContext) -> Any:
        given = behaviour(request, context)
        return await given if inspect.isawaitable(given) else given

    return answer


def _stream(behaviour: Any) -> Answer:
    async def answer(request: Any, context: AnyContext) -> None:
        given = behaviour(request, context)
        if inspect.isawaitable(given):
            given = await given
        try:
            async for message in given:
                await context.write(message)
        finally:
            close = getattr(given, "aclose", None)
            if close is not None:
                await close()

    return answer
