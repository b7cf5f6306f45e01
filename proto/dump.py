"""The contract as plain text, one line for each thing, sorted and without comments.

A change of the contract is a visible diff of this text; its hash names the contract.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from descriptors import (
    PACKAGE,
    Call,
    Contract,
    label_of,
    options_of,
    real_oneof,
    type_name,
)
from holdfast.v1 import options_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

HASH_CHARS = 16
PROTOCOL_MIN = 1
PROTOCOL_MAX = 1


def dump(contract: Contract) -> str:
    """Return the contract's lines: what it is, its number and name, its options."""
    lines: list[str] = []
    for name in sorted(contract.enums):
        lines.extend(_enum(contract, name))
    for name in sorted(contract.messages):
        if not contract.messages[name].options.map_entry:
            lines.extend(_message(contract, name))
    lines.extend(_rpc(call) for call in sorted(contract.calls, key=_path))
    lines.extend(f"service {_short(name)}" for name in sorted(contract.services))
    return "\n".join(lines) + "\n"


def digest(text: str) -> str:
    """Return the name of a contract: the beginning of its dump's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_CHARS]


def module(name: str) -> str:
    """Return the Python module that tells client and daemon their contract."""
    return (
        '"""Which contract this is; written by proto/generate.py."""\n\n'
        "from __future__ import annotations\n\n"
        f'HASH = "{name}"\n'
        f"PROTOCOL_MIN = {PROTOCOL_MIN}\n"
        f"PROTOCOL_MAX = {PROTOCOL_MAX}\n"
    )


def _path(call: Call) -> str:
    return call.path


def _short(name: str) -> str:
    return name.removeprefix(f"{PACKAGE}.")


def _enum(contract: Contract, name: str) -> Iterator[str]:
    yield f"enum {_short(name)}"
    for value in sorted(contract.enums[name].value, key=lambda v: v.number):
        label = label_of(value)
        tail = _tail({"label": label} if label else {})
        yield f"enum {_short(name)} {value.number} {value.name}{tail}"


def _message(contract: Contract, name: str) -> Iterator[str]:
    message = contract.messages[name]
    yield f"message {_short(name)}"
    for field in sorted(message.field, key=lambda f: f.number):
        words = [f"message {_short(name)} {field.number} {field.name}"]
        if oneof := real_oneof(message, field):
            words.append(f"oneof:{oneof}")
        if field.proto3_optional:
            words.append("optional")
        words.append(_type(contract, field))
        yield " ".join(words) + _tail(_values(options_of(field)))


def _type(contract: Contract, field: Field) -> str:
    entry = contract.messages.get(type_name(field))
    if entry is not None and entry.options.map_entry:
        key, value = (_type(contract, part) for part in entry.field)
        return f"map<{key},{value}>"
    kind = Field.Type.Name(field.type).removeprefix("TYPE_").lower()
    named = _short(type_name(field)) if field.type_name else kind
    return f"repeated {named}" if field.label == Field.LABEL_REPEATED else named


def _rpc(call: Call) -> str:
    method = call.method
    request = "stream " * method.client_streaming + _short(call.request)
    response = "stream " * method.server_streaming + _short(call.response)
    tail: dict[str, Any] = {
        "rule": _values(method.options.Extensions[options_pb2.rule])
    }
    if call.tool is not None:
        tail["tool"] = _values(call.tool)
    return f"rpc {_short(call.name)} {request} -> {response}{_tail(tail)}"


def _values(options: Message) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field, value in options.ListFields():
        if field.enum_type is not None:
            found[field.name] = field.enum_type.values_by_number[value].name
        elif isinstance(value, float) and value.is_integer():
            found[field.name] = int(value)
        else:
            found[field.name] = value
    return found


def _tail(options: dict[str, Any]) -> str:
    return f" {json.dumps(options, sort_keys=True)}" if options else ""
