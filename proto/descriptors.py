"""The contract as protoc saw it: calls, messages, enums, and the comments above them.

Comments are only in descriptor sets, never in generated code; so what needs them runs
at build time. A comment above a field is for models too, one behind it only for people.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from google.protobuf import descriptor_pb2

# Imported before a descriptor set is parsed; else our options stay unknown fields.
from holdfast.v1 import options_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import (
        DescriptorProto,
        EnumDescriptorProto,
        EnumValueDescriptorProto,
        FieldDescriptorProto,
        FileDescriptorProto,
        MethodDescriptorProto,
        ServiceDescriptorProto,
    )

# How descriptor.proto numbers the lists that comments are addressed by.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS = 2, 3, 4
_SERVICE_METHODS = 2

PACKAGE = "holdfast.v1"


class Call(NamedTuple):
    """One RPC."""

    service: str
    method: MethodDescriptorProto

    @property
    def name(self) -> str:
        """Full name, as comments know it."""
        return f"{self.service}.{self.method.name}"

    @property
    def path(self) -> str:
        """Path, as gRPC calls it."""
        return f"/{self.service}/{self.method.name}"

    @property
    def request(self) -> str:
        """Full name of the request."""
        return self.method.input_type.removeprefix(".")

    @property
    def response(self) -> str:
        """Full name of the response."""
        return self.method.output_type.removeprefix(".")

    @property
    def tool(self) -> options_pb2.Tool | None:
        """What makes it an MCP tool, or None."""
        options = self.method.options
        if not options.HasExtension(options_pb2.tool):
            return None
        return options.Extensions[options_pb2.tool]


class Contract:
    """All of package `holdfast.v1` in a descriptor set, in the order of the files."""

    def __init__(self, raw: bytes) -> None:
        self.messages: dict[str, DescriptorProto] = {}
        self.enums: dict[str, EnumDescriptorProto] = {}
        self.services: list[str] = []
        self.calls: list[Call] = []
        self.comments: dict[str, str] = {}
        self._texts: dict[tuple[int, ...], str] = {}
        for file in descriptor_pb2.FileDescriptorSet.FromString(raw).file:
            if file.package == PACKAGE:
                self._file(file)

    def _file(self, file: FileDescriptorProto) -> None:
        self._texts = {
            tuple(place.path): " ".join(place.leading_comments.split())
            for place in file.source_code_info.location
        }
        for index, message in enumerate(file.message_type):
            self._message(message, file.package, (_FILE_MESSAGES, index))
        for index, enum in enumerate(file.enum_type):
            self._enum(enum, file.package, (_FILE_ENUMS, index))
        for index, service in enumerate(file.service):
            self._service(service, file.package, (_FILE_SERVICES, index))

    def _note(self, name: str, path: tuple[int, ...]) -> None:
        self.comments[name] = self._texts.get(path, "")

    def _message(
        self, message: DescriptorProto, scope: str, path: tuple[int, ...]
    ) -> None:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        self._note(name, path)
        for index, field in enumerate(message.field):
            self._note(f"{name}.{field.name}", (*path, _MESSAGE_FIELDS, index))
        for index, nested in enumerate(message.nested_type):
            self._message(nested, name, (*path, _MESSAGE_MESSAGES, index))
        for index, enum in enumerate(message.enum_type):
            self._enum(enum, name, (*path, _MESSAGE_ENUMS, index))

    def _enum(
        self, enum: EnumDescriptorProto, scope: str, path: tuple[int, ...]
    ) -> None:
        self.enums[f"{scope}.{enum.name}"] = enum
        self._note(f"{scope}.{enum.name}", path)

    def _service(
        self, service: ServiceDescriptorProto, scope: str, path: tuple[int, ...]
    ) -> None:
        name = f"{scope}.{service.name}"
        self.services.append(name)
        for index, method in enumerate(service.method):
            call = Call(name, method)
            self.calls.append(call)
            self._note(call.name, (*path, _SERVICE_METHODS, index))


def options_of(field: FieldDescriptorProto) -> options_pb2.Field:
    """Return our options of a field; all unset when it has none."""
    return field.options.Extensions[options_pb2.field]


def label_of(value: EnumValueDescriptorProto) -> str:
    """Return an enum value's name in JSON, or nothing when it has none."""
    return value.options.Extensions[options_pb2.label]


def type_name(field: FieldDescriptorProto) -> str:
    """Return the full name of a field's message or enum."""
    return field.type_name.removeprefix(".")


def real_oneof(message: DescriptorProto, field: FieldDescriptorProto) -> str:
    """Return the oneof a field belongs to; `optional` makes none worth the name."""
    if not field.HasField("oneof_index") or field.proto3_optional:
        return ""
    return message.oneof_decl[field.oneof_index].name


def visible(message: DescriptorProto) -> Iterator[FieldDescriptorProto]:
    """Yield the fields that a model sees."""
    for field in message.field:
        options = options_of(field)
        if not (options.hidden or options.unlisted or options.planned):
            yield field
