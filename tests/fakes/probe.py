"""A message with a field of every kind, to test what goes by descriptor."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from holdfast.v1 import options_pb2

if TYPE_CHECKING:
    from google.protobuf.message import Message

_FILE = "probe/probe.proto"
_SCALARS = {
    "text": Field.TYPE_STRING,
    "data": Field.TYPE_BYTES,
    "flag": Field.TYPE_BOOL,
    "small": Field.TYPE_INT32,
    "big": Field.TYPE_INT64,
    "count": Field.TYPE_UINT32,
    "size_bytes": Field.TYPE_UINT64,
    "real": Field.TYPE_DOUBLE,
    "short_real": Field.TYPE_FLOAT,
}
_OPTIONS = {
    "hidden": options_pb2.Field(hidden=True),
    "planned": options_pb2.Field(planned=True),
    "unlisted": options_pb2.Field(unlisted=True),
    "secret": options_pb2.Field(secret=True),
    "name": options_pb2.Field(pattern="[a-z]+"),
    "percent": options_pb2.Field(min=0, max=100),
    "level": options_pb2.Field(min=-1.5),
    "most": options_pb2.Field(max=9),
}
_KINDS = {
    "percent": Field.TYPE_DOUBLE,
    "level": Field.TYPE_DOUBLE,
    "most": Field.TYPE_INT32,
}


def _add(
    message: DescriptorProto,
    name: str,
    kind: Field.Type.ValueType,
    *,
    options: options_pb2.Field | None = None,
    type_name: str = "",
    repeated: bool = False,
) -> Field:
    field = message.field.add(name=name, number=len(message.field) + 1, type=kind)
    field.label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
    if type_name:
        field.type_name = f".probe.{type_name}"
    if options is not None:
        field.options.Extensions[options_pb2.field].CopyFrom(options)
    return field


def _optional(message: DescriptorProto, field: Field) -> None:
    field.proto3_optional = True
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name=f"_{field.name}")


def _map(
    message: DescriptorProto,
    name: str,
    key: Field.Type.ValueType,
    value: Field.Type.ValueType,
    type_name: str = "",
) -> None:
    entry = message.nested_type.add(name=f"{name.title().replace('_', '')}Entry")
    entry.options.map_entry = True
    _add(entry, "key", key)
    _add(entry, "value", value, type_name=type_name)
    _add(
        message,
        name,
        Field.TYPE_MESSAGE,
        type_name=f"{message.name}.{entry.name}",
        repeated=True,
    )


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name=_FILE, package="probe", syntax="proto3")
    file.dependency.append("holdfast/v1/options.proto")
    mode = file.enum_type.add(name="Mode")
    for number, label in enumerate(("", "fast", "slow")):
        value = mode.value.add(name=f"MODE_{label or 'unspecified'}".upper())
        value.number = number
        value.options.Extensions[options_pb2.label] = label

    part = file.message_type.add(name="Part")
    _add(part, "word", Field.TYPE_STRING, options=options_pb2.Field(required=True))
    _add(part, "port", Field.TYPE_UINT32, options=options_pb2.Field(min=1, max=65535))

    probe = file.message_type.add(name="Probe")
    for name, kind in _SCALARS.items():
        _add(probe, name, kind)
        _add(probe, f"{name}_list", kind, repeated=True)
        _optional(probe, _add(probe, f"{name}_maybe", kind))
    _add(probe, "mode", Field.TYPE_ENUM, type_name="Mode")
    _add(probe, "mode_list", Field.TYPE_ENUM, type_name="Mode", repeated=True)
    _add(probe, "part", Field.TYPE_MESSAGE, type_name="Part")
    _add(probe, "parts", Field.TYPE_MESSAGE, type_name="Part", repeated=True)
    _map(probe, "env", Field.TYPE_STRING, Field.TYPE_STRING)
    _map(probe, "by_number", Field.TYPE_INT32, Field.TYPE_BOOL)
    _map(probe, "by_flag", Field.TYPE_BOOL, Field.TYPE_DOUBLE)
    _map(probe, "by_name", Field.TYPE_STRING, Field.TYPE_MESSAGE, "Part")
    for name, options in _OPTIONS.items():
        kind = _KINDS.get(name, Field.TYPE_STRING)
        _optional(probe, _add(probe, name, kind, options=options))

    needs = file.message_type.add(name="Needs")
    required = options_pb2.Field(required=True)
    _add(needs, "text", Field.TYPE_STRING, options=required)
    _optional(needs, _add(needs, "content", Field.TYPE_STRING, options=required))
    _add(needs, "items", Field.TYPE_STRING, options=required, repeated=True)
    _add(needs, "mode", Field.TYPE_ENUM, options=required, type_name="Mode")
    _add(needs, "part", Field.TYPE_MESSAGE, options=required, type_name="Part")

    wrong = file.message_type.add(name="Wrong")
    _add(wrong, "flag", Field.TYPE_BOOL, options=required)
    return file


@cache
def _class(name: str) -> type[Message]:
    pool = descriptor_pool.Default()
    try:
        found = pool.FindFileByName(_FILE)
    except KeyError:
        pool.AddSerializedFile(_file().SerializeToString())
        found = pool.FindFileByName(_FILE)
    return message_factory.GetMessageClass(found.message_types_by_name[name])


def probe(**fields: Any) -> Message:
    """Return a message with fields of every kind."""
    return _class("Probe")(**fields)


def needs(**fields: Any) -> Message:
    """Return a message whose every field is required."""
    return _class("Needs")(**fields)


def wrong() -> Message:
    """Return a message whose required field can't tell whether it was given."""
    return _class("Wrong")()
