"""Who calls: from a gRPC call's metadata to the daemon's own `Caller`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

from google.protobuf.message import DecodeError

from holdfast.v1 import common_pb2, exec_pb2, options_pb2
from holdfast_daemon.errors import InputError
from holdfast_daemon.policy.caller import Caller, CallerDefaults
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor import Descriptor

KEY = "holdfast-client-bin"

# What a client calls itself is shown in lists and in every record: a label, no more.
_LABEL_CHARS = 80
_INSTANCE_CHARS = 128


def context_of(metadata: Iterable[tuple[str, str | bytes]] | None) -> bytes | None:
    """Return what the client says of itself, still as bytes; None: nothing.

    Raises:
        InputError: It says so several times.
    """
    found = [value for key, value in metadata or () if key == KEY]
    if len(found) > 1:
        raise InputError(KEY, f"{KEY} was sent {len(found)} times")
    if not found:
        return None
    return found[0] if isinstance(found[0], bytes) else found[0].encode()


def read(data: bytes) -> common_pb2.ClientContext:
    """Return a client's context.

    Raises:
        InputError: It is none.
    """
    message = common_pb2.ClientContext()
    try:
        message.ParseFromString(data)
    except DecodeError as error:
        raise InputError(
            KEY,
            f"{KEY} holds no holdfast.v1.ClientContext",
            hint="Client and daemon may be of different releases: update both.",
        ) from error
    return message


def caller_of(message: common_pb2.ClientContext, principal: str) -> Caller:
    """Return who calls.

    Raises:
        InputError: A value in the context can't be meant.
    """
    return Caller(
        principal=principal,
        name=_label(message.name) or "unknown",
        version=_label(message.version),
        instance=message.instance[:_INSTANCE_CHARS],
        pid=message.pid,
        tool=_label(message.tool),
        read_only=message.read_only,
        person=message.person,
        project=message.project if message.project.startswith("/") else "",
        allowed_hosts=tuple(message.allowed_hosts),
        defaults=_defaults(message),
    )


def _label(text: str) -> str:
    return "".join(c for c in text[:_LABEL_CHARS] if c.isprintable()).strip()


def _defaults(message: common_pb2.ClientContext) -> CallerDefaults:
    port = _number(message, "default_port")
    chars = _number(message, "max_output_chars")
    return CallerDefaults(
        host=message.default_host,
        user=message.default_user,
        port=None if port is None else int(port),
        password=_secret(message.default_password),
        private_key=_secret(message.private_key),
        timeout_seconds=_number(message, "timeout_seconds"),
        connect_timeout_seconds=_number(message, "connect_timeout_seconds"),
        max_output_chars=None if chars is None else int(chars),
        auth_sock=message.auth_sock,
    )


def _secret(text: str) -> Secret | None:
    return Secret(text) if text else None


_Numbers = Literal[
    "connect_timeout_seconds", "default_port", "max_output_chars", "timeout_seconds"
]


class _Range(NamedTuple):
    low: float
    high: float
    variable: str


def _most(descriptor: Descriptor, name: str) -> float:
    """Return the bound that the same number has in a call."""
    field = descriptor.fields_by_name[name]
    return field.GetOptions().Extensions[options_pb2.field].max


_CONNECT = common_pb2.ConnectOptions.DESCRIPTOR
_RUN = exec_pb2.RunRequest.DESCRIPTOR
_RANGES: dict[_Numbers, _Range] = {
    "default_port": _Range(1, _most(_CONNECT, "port"), "SSH_DEFAULT_PORT"),
    "timeout_seconds": _Range(
        0, _most(_RUN, "timeout_seconds"), "SSH_DEFAULT_TIMEOUT_SEC"
    ),
    "connect_timeout_seconds": _Range(
        0, _most(_CONNECT, "connect_timeout_seconds"), "SSH_CONNECT_TIMEOUT_SEC"
    ),
    "max_output_chars": _Range(
        0, _most(_RUN, "max_output_chars"), "SSH_MAX_OUTPUT_CHARS"
    ),
}


def _number(message: common_pb2.ClientContext, field: _Numbers) -> float | None:
    if not message.HasField(field):
        return None
    value: float = getattr(message, field)
    low, high, variable = _RANGES[field]
    # Written so that NaN fails too.
    if not low <= value <= high:
        raise InputError(
            field,
            f"the client's {field} is {value:.15g};"
            f" it must be a number from {low:.15g} to {high:.15g}",
            hint=f"Correct {variable} in the client's configuration.",
        )
    return value
