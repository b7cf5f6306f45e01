"""What the contract says of each RPC, read once from its descriptors.

Every RPC must carry `(holdfast.v1.rule)`: one without is refused before the server
starts.
"""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import holdfast.v1
from holdfast.v1 import options_pb2
from holdfast_daemon.errors import InputError
from holdfast_daemon.policy.rules import Action

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from google.protobuf.descriptor import (
        Descriptor,
        FileDescriptor,
        MethodDescriptor,
    )
    from google.protobuf.message import Message


def _contract() -> Iterator[FileDescriptor]:
    """Yield every file of `holdfast.v1`, so that none can be forgotten here."""
    for module in pkgutil.iter_modules(holdfast.v1.__path__, "holdfast.v1."):
        if module.name.endswith("_pb2"):
            yield import_module(module.name).DESCRIPTOR


CONTRACT: tuple[FileDescriptor, ...] = tuple(_contract())

# A call with one of these touches a host, and its target is resolved before the gate.
_ON_HOST = frozenset({Action.EXECUTE, Action.READ, Action.WRITE, Action.INSTALL})
# What of a request is evidence. Not here: content, environment, anything secret.
_RECORDED = (
    "all",
    "checksum",
    "compress",
    "cwd",
    "delete",
    "destination",
    "direction",
    "dry_run",
    "exclude",
    "fingerprint",
    "force",
    "forward",
    "ids",
    "job_id",
    "path",
    "remove",
    "request_id",
    "session",
    "session_name",
    "shell",
    "signal",
    "source",
    "sources",
    "sudo",
    "timeout_seconds",
    "tty",
)
_ACTIONS = {
    options_pb2.ACTION_INSPECT: Action.INSPECT,
    options_pb2.ACTION_READ: Action.READ,
    options_pb2.ACTION_EXECUTE: Action.EXECUTE,
    options_pb2.ACTION_WRITE: Action.WRITE,
    options_pb2.ACTION_INSTALL: Action.INSTALL,
    options_pb2.ACTION_MANAGE: Action.MANAGE,
}


class UnruledError(Exception):
    """An RPC says nothing of who may call it."""


@dataclass(frozen=True, slots=True)
class Method:
    """One RPC as the door sees it.

    Attributes:
        path: As gRPC names it.
        name: `Service/Method`, as records name it.
        person: Only a person's own command line may call it.
        by_start: The request proper is the `start` of a stream's first frame.
        resolves: It has a target, and needs it resolved.
        connects: It has `connect`, which may name jump hosts.
        recorded: Fields that go into the audit record.
        secrets: Paths of fields whose values must not be seen.
    """

    path: str
    name: str
    action: Action
    event: str
    person: bool
    by_start: bool
    resolves: bool
    targets: bool
    commands: bool
    connects: bool
    recorded: tuple[str, ...]
    secrets: tuple[tuple[str, ...], ...]

    def subject(self, message: Message) -> Any:
        """Return the request proper.

        Raises:
            InputError: The first frame of the stream is not its start.
        """
        if not self.by_start:
            return message
        if not message.HasField("start"):
            raise InputError("start", "the first frame must be start")
        return getattr(message, "start")  # noqa: B009 - a field of some message

    def evidence(self, subject: Any) -> dict[str, Any]:
        """Return what a record tells of the request, beside target and command."""
        return dict(self._evidence(subject))

    def _evidence(self, subject: Any) -> Iterator[tuple[str, Any]]:
        for field, value in subject.ListFields():
            if field.name not in self.recorded:
                continue
            if field.enum_type is not None:
                named = field.enum_type.values_by_number.get(value)
                value = named.name if named else value  # noqa: PLW2901
            yield field.name, list(value) if field.is_repeated else value

    def secret_values(self, subject: Any) -> Iterator[str]:
        """Yield the secrets that the request carries."""
        for path in self.secrets:
            value = subject
            for name in path:
                value = getattr(value, name)
            if value:
                yield value


def methods(contract: Iterable[FileDescriptor] = CONTRACT) -> Mapping[str, Method]:
    """Return every RPC of `contract` by its path.

    Raises:
        UnruledError: One has no rule.
    """
    return {
        method.path: method
        for file in contract
        for service in file.services_by_name.values()
        for method in map(_method, service.methods)
    }


def _method(descriptor: MethodDescriptor) -> Method:
    service = descriptor.containing_service
    options = descriptor.GetOptions()
    rule = options.Extensions[options_pb2.rule]
    action = _ACTIONS.get(rule.action)
    if action is None or not options.HasExtension(options_pb2.rule):
        raise UnruledError(f"{descriptor.full_name} has no (holdfast.v1.rule)")
    request = descriptor.input_type
    start = request.fields_by_name.get("start") if descriptor.client_streaming else None
    started = start.message_type if start is not None else None
    subject = started or request
    names = subject.fields_by_name
    return Method(
        path=f"/{service.full_name}/{descriptor.name}",
        name=f"{service.name}/{descriptor.name}",
        action=action,
        event=rule.audit_event,
        person=rule.person,
        by_start=started is not None,
        resolves=action in _ON_HOST and "target" in names,
        targets="target" in names,
        commands="command" in names,
        connects="connect" in names,
        recorded=tuple(
            name
            for name in _RECORDED
            if name in names and names[name].message_type is None
        ),
        secrets=tuple(_secrets(subject, ())),
    )


def _secrets(message: Descriptor, seen: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of secret texts in `message` and the messages it holds."""
    for field in message.fields:
        if field.is_repeated:
            continue
        held = field.message_type
        if held is not None:
            if held.full_name not in seen:
                for path in _secrets(held, (*seen, message.full_name)):
                    yield (field.name, *path)
        elif field.GetOptions().Extensions[options_pb2.field].secret:
            yield (field.name,)
