"""The MCP catalogue from the contract: which RPCs are tools, and their JSON schemas.

Schemas are kept terse because every client puts them into its model's context. What
providers refuse (a choice at the top of a request) is a mistake here, not there.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from descriptors import (
    Call,
    Contract,
    label_of,
    options_of,
    real_oneof,
    type_name,
    visible,
)
from holdfast.v1 import options_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor_pb2 import DescriptorProto

TOOLSETS = ("exec", "hosts", "sessions", "files", "forwards", "fleet")
NAME = re.compile(r"[a-z0-9_]{1,30}")
DESCRIPTION_CHARS = 1000

_PLAIN: dict[int, str] = {
    Field.TYPE_STRING: "string",
    Field.TYPE_BOOL: "boolean",
    Field.TYPE_DOUBLE: "number",
    Field.TYPE_FLOAT: "number",
    Field.TYPE_INT32: "integer",
    Field.TYPE_INT64: "integer",
    Field.TYPE_UINT32: "integer",
    Field.TYPE_UINT64: "integer",
    Field.TYPE_SINT32: "integer",
    Field.TYPE_SINT64: "integer",
    Field.TYPE_FIXED32: "integer",
    Field.TYPE_FIXED64: "integer",
    Field.TYPE_SFIXED32: "integer",
    Field.TYPE_SFIXED64: "integer",
}

Json = dict[str, Any]


class DerivationError(ValueError):
    """The contract says something that can't be a tool."""


class Deriver:
    """Turns one contract into tools."""

    def __init__(self, contract: Contract, *, planned: bool = False) -> None:
        self._contract = contract
        self._planned = planned
        self._told: dict[str, str] = {}  # nested message → the tool that spelled it out
        self._tool = ""

    def tools(self) -> list[Json]:
        """Return the catalogue's entries in their order."""
        found = list(self._tools())
        found.sort(key=lambda entry: TOOLSETS.index(entry["toolset"]))  # stable
        names = [entry["tool"]["name"] for entry in found]
        for name in names:
            if names.count(name) > 1:
                raise DerivationError(f"two tools are called {name}")
        return found

    def _tools(self) -> Iterator[Json]:
        for call in self._contract.calls:
            tool = call.tool
            if tool is None or (tool.planned and not self._planned):
                continue
            self._check(call, tool)
            self._tool = tool.name
            stream = call.method.server_streaming
            out = self._result(call) if stream else call.response
            form = tool.result == options_pb2.RESULT_FORM_TEXT
            yield {
                "tool": {
                    "name": tool.name,
                    "title": tool.title,
                    "description": self._contract.comments[call.name],
                    "inputSchema": self._input(call.request, ()),
                    "outputSchema": self._output(out, ()),
                    "annotations": {
                        "readOnlyHint": tool.read_only,
                        "destructiveHint": tool.destructive,
                        "idempotentHint": tool.idempotent,
                        "openWorldHint": tool.open_world,
                    },
                },
                "toolset": tool.toolset,
                "result": "text" if form else "structured",
                "rpc": call.path,
                "in": call.request,
                "out": out,
                "stream": stream,
            }

    def _check(self, call: Call, tool: options_pb2.Tool) -> None:
        if not NAME.fullmatch(tool.name):
            raise DerivationError(f"{call.path}: tool name {tool.name!r}")
        if tool.toolset not in TOOLSETS:
            raise DerivationError(f"{call.path}: toolset {tool.toolset!r}")
        if not tool.title:
            raise DerivationError(f"{call.path}: no title")
        if not 0 < len(self._contract.comments[call.name]) < DESCRIPTION_CHARS:
            raise DerivationError(f"{call.path}: no description, or too long a one")
        if tool.read_only and tool.destructive:
            raise DerivationError(f"{call.path}: read-only and destructive")
        if call.method.client_streaming:
            raise DerivationError(f"{call.path}: a tool takes one request")

    def _result(self, call: Call) -> str:
        message = self._contract.messages[call.response]
        for field in message.field:
            if field.name == "result" and real_oneof(message, field):
                return type_name(field)
        raise DerivationError(f"{call.response}: a stream without a result in a oneof")

    def _input(self, name: str, above: tuple[str, ...]) -> Json:
        message = self._enter(name, above)
        properties: Json = {}
        required: list[str] = []
        for field in visible(message):
            if real_oneof(message, field):
                # Providers answer HTTP 400 to the anyOf it would become.
                raise DerivationError(f"{name}.{field.name}: oneof in a request")
            schema = self._value(field, (*above, name), out=False)
            comment = self._contract.comments[f"{name}.{field.name}"]
            if comment and not above:  # what is inside, the field that holds it tells
                schema.setdefault("description", comment)
            properties[field.name] = schema
            if options_of(field).required:
                required.append(field.name)
        needed = {"required": required} if required else {}
        return {
            "type": "object",
            "properties": properties,
            **needed,
            "additionalProperties": False,
        }

    def _nested(self, name: str, above: tuple[str, ...]) -> Json:
        """Spell an object out once in a catalogue; later tools only point there."""
        told = self._told.setdefault(name, self._tool)
        if told != self._tool:
            return {"type": "object", "description": f"As in {told}."}
        return self._input(name, above)

    def _output(self, name: str, above: tuple[str, ...]) -> Json:
        message = self._enter(name, above)
        properties: Json = {}
        required: list[str] = []
        for field in visible(message):
            # Field names speak for themselves here, and each word costs every client.
            properties[field.name] = self._value(field, (*above, name), out=True)
            if _always_there(field):
                required.append(field.name)
        schema: Json = {"type": "object", "properties": properties}
        return schema | ({"required": required} if required else {})

    def _enter(self, name: str, above: tuple[str, ...]) -> DescriptorProto:
        if name in above:
            raise DerivationError(f"{name} contains itself")
        if name not in self._contract.messages:
            raise DerivationError(f"{name} is not a message of the contract")
        return self._contract.messages[name]

    def _value(self, field: Field, above: tuple[str, ...], *, out: bool) -> Json:
        entry = self._contract.messages.get(type_name(field))
        if entry is not None and entry.options.map_entry:
            value = self._one(entry.field[1], above, out=out)
            return {"type": "object", "additionalProperties": value}
        schema = self._one(field, above, out=out)
        if not out:
            schema |= _constraints(field, schema["type"])
        if field.label == Field.LABEL_REPEATED:
            least = {"minItems": 1} if options_of(field).required and not out else {}
            schema = {"type": "array", "items": schema, **least}
        if not out and options_of(field).default_json:
            schema["default"] = json.loads(options_of(field).default_json)
        return schema

    def _one(self, field: Field, above: tuple[str, ...], *, out: bool) -> Json:
        if field.type == Field.TYPE_MESSAGE:
            return (self._output if out else self._nested)(type_name(field), above)
        if field.type == Field.TYPE_ENUM:
            values = self._contract.enums[type_name(field)].value
            labels = [label_of(value) for value in values if value.number]
            if not all(labels):
                raise DerivationError(f"{type_name(field)}: a value without a label")
            return {"type": "string", "enum": labels}
        if field.type == Field.TYPE_BYTES:
            return {"type": "string", "contentEncoding": "base64"}
        return {"type": _PLAIN[field.type]}


def _always_there(field: Field) -> bool:
    """Tell whether the translation to JSON always shows the field, as a plain value."""
    return (
        field.label != Field.LABEL_REPEATED
        and not field.HasField("oneof_index")
        and not options_of(field).conditional
        and field.type not in (Field.TYPE_MESSAGE, Field.TYPE_ENUM)
    )


def _constraints(field: Field, kind: str) -> Json:
    options = options_of(field)
    found: Json = {}
    if options.HasField("min"):
        found["minimum"] = _number(options.min)
    if options.HasField("max"):
        found["maximum"] = _number(options.max)
    if options.pattern:
        whole = f"(?:{options.pattern})" if "|" in options.pattern else options.pattern
        found["pattern"] = f"^{whole}$"
    if found.keys() - {"pattern"} and kind not in ("integer", "number"):
        raise DerivationError(f"{field.name}: a range does not fit {kind}")
    if "pattern" in found and kind != "string":
        raise DerivationError(f"{field.name}: a pattern does not fit {kind}")
    return found


def _number(value: float) -> float:
    return int(value) if value.is_integer() else value


def catalogue_json(contract: Contract, digest: str) -> str:
    """Return the catalogue as it is kept in the tree."""
    catalogue = {"contract": digest, "tools": Deriver(contract).tools()}
    return json.dumps(catalogue, indent=1, ensure_ascii=False) + "\n"
