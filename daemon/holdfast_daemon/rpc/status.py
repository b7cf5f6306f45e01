"""Errors on the wire: the one place that turns a failure into a gRPC status.

The details carry google.rpc.ErrorInfo (reason, domain, metadata with `ran` and `hint`)
and, where trying again may help, google.rpc.RetryInfo.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import grpc.aio

# It has .pyi files but no py.typed marker, so both checkers take it for untyped.
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped]  # pyright: ignore[reportMissingTypeStubs]

from holdfast_daemon import errors, ids
from holdfast_daemon.errors import DaemonError, Ran, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

    AnyContext = grpc.aio.ServicerContext[Any, Any]

DOMAIN = "holdfast"
DETAILS = "grpc-status-details-bin"

_log = logging.getLogger(__name__)

_CODES: tuple[tuple[type[DaemonError], grpc.StatusCode], ...] = (
    (errors.InputError, grpc.StatusCode.INVALID_ARGUMENT),
    (errors.NotFoundError, grpc.StatusCode.NOT_FOUND),
    (errors.StateError, grpc.StatusCode.FAILED_PRECONDITION),
    (errors.DeniedError, grpc.StatusCode.PERMISSION_DENIED),
    (errors.NeedsError, grpc.StatusCode.UNAUTHENTICATED),
    (errors.LimitError, grpc.StatusCode.RESOURCE_EXHAUSTED),
    (errors.RangeError, grpc.StatusCode.OUT_OF_RANGE),
    (errors.LinkError, grpc.StatusCode.UNAVAILABLE),
)
# Of the root class itself, which says nothing.
_BY_REASON: Mapping[Reason, grpc.StatusCode] = {
    Reason.INTERNAL: grpc.StatusCode.INTERNAL,
    Reason.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
}

# A client takes 8 KiB of headers unless told otherwise, and drops the whole status
# beyond.
_MESSAGE_BYTES = 1500
_VALUE_BYTES = 500
_VALUES = 12


async def abort(context: AnyContext, error: BaseException) -> NoReturn:
    """End the call with `error`; what is no DaemonError becomes an incident."""
    known = error if isinstance(error, DaemonError) else incident(error)
    message = _cut(known.message, _MESSAGE_BYTES)
    code = code_of(known)
    await context.abort(code, message, ((DETAILS, details(known)),))


def code_of(error: DaemonError) -> grpc.StatusCode:
    """Return the canonical code of `error`."""
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code
    return _BY_REASON.get(error.reason, grpc.StatusCode.FAILED_PRECONDITION)


def details(error: DaemonError) -> bytes:
    """Return the serialised google.rpc.Status of `error`."""
    values = dict(list(error.metadata.items())[:_VALUES])
    values["ran"] = error.ran.value
    values["hint"] = error.hint
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value,
        domain=DOMAIN,
        metadata={
            _cut(key, _VALUE_BYTES): _cut(value, _VALUE_BYTES)
            for key, value in values.items()
        },
    )
    number, _ = code_of(error).value
    status = status_pb2.Status(code=number, message=_cut(error.message, _MESSAGE_BYTES))
    status.details.add().Pack(info)
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromMilliseconds(round(error.retry_after * 1000))
        status.details.add().Pack(retry)
    data: bytes = status.SerializeToString()
    return data


def incident(error: BaseException, *, ran: Ran = Ran.UNKNOWN) -> DaemonError:
    """Log a fault of ours with its traceback; return what callers are told of it."""
    number = ids.mint("e")
    _log.error("incident %s", number, exc_info=error)
    told = DaemonError(
        Reason.INTERNAL,
        f"the daemon failed (incident {number})",
        hint="The daemon's log has the details under this number.",
        ran=ran,
        metadata={"incident": number},
    )
    told.__cause__ = error
    return told


def _cut(text: str, limit: int) -> str:
    """Return `text` as it may travel: valid, and no longer than `limit` bytes."""
    data = text.encode("utf-8", "replace")
    if len(data) <= limit:
        return data.decode("utf-8")
    return data[: limit - 3].decode("utf-8", "ignore") + "…"
