from __future__ import annotations

import re
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)
from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

import derive
from descriptors import Contract
from holdfast.v1 import options_pb2

DOC = "Does it."


class Draft:
    """A small contract with one tool, to be bent."""

    def __init__(self) -> None:
        self.file = FileDescriptorProto(name="draft.proto", package="holdfast.v1")
        self.request = self.message("DoRequest")
        self.response = self.message("DoResponse")
        service = self.file.service.add(name="DoService")
        self.method = service.method.add(
            name="Do",
            input_type=".holdfast.v1.DoRequest",
            output_type=".holdfast.v1.DoResponse",
        )
        self.tool = self.method.options.Extensions[options_pb2.tool]
        self.tool.MergeFrom(
            options_pb2.Tool(name="do_it", title="Do it", toolset="exec")
        )
        self.comments: dict[tuple[int, ...], str] = {(6, 0, 2, 0): DOC}

    def message(self, name: str) -> DescriptorProto:
        return self.file.message_type.add(name=name)

    def enum(self, name: str, **labels: str) -> EnumDescriptorProto:
        enum = self.file.enum_type.add(name=name)
        enum.value.add(name=f"{name.upper()}_UNSPECIFIED", number=0)
        for number, (value, label) in enumerate(labels.items(), 1):
            added = enum.value.add(name=value, number=number)
            added.options.Extensions[options_pb2.label] = label
        return enum

    def add(
        self,
        message: DescriptorProto,
        name: str,
        kind: Field.Type.ValueType = Field.TYPE_STRING,
        type_name: str = "",
        **options: Any,
    ) -> Field:
        field = message.field.add(
            name=name,
            number=len(message.field) + 1,
            type=kind,
            label=Field.LABEL_OPTIONAL,
        )
        if type_name:
            field.type_name = f".holdfast.v1.{type_name}"
        field.options.Extensions[options_pb2.field].MergeFrom(
            options_pb2.Field(**options)
        )
        return field

    def tools(self) -> list[dict[str, Any]]:
        for path, text in self.comments.items():
            self.file.source_code_info.location.add(path=path, leading_comments=text)
        raw = FileDescriptorSet(file=[self.file]).SerializeToString()
        return derive.Deriver(Contract(raw)).tools()

    def properties(self) -> dict[str, Any]:
        schema = self.tools()[0]["tool"]["inputSchema"]
        found: dict[str, Any] = schema["properties"]
        return found

    def refusal(self) -> str:
        with pytest.raises(derive.DerivationError) as caught:
            self.tools()
        return str(caught.value)


@pytest.fixture
def draft() -> Draft:
    return Draft()


def test_constraints_become_schema_keywords(draft: Draft) -> None:
    add, request = draft.add, draft.request
    add(request, "port", Field.TYPE_UINT32, min=1, max=65535)
    add(request, "wait", Field.TYPE_DOUBLE, min=0.5, default_json="45")
    add(request, "name", pattern="[a-z]+", required=True)
    add(request, "mode", pattern="a|b")
    add(request, "data", Field.TYPE_BYTES)
    assert draft.properties() == {
        "port": {"type": "integer", "minimum": 1, "maximum": 65535},
        "wait": {"type": "number", "minimum": 0.5, "default": 45},
        "name": {"type": "string", "pattern": "^[a-z]+$"},
        "mode": {"type": "string", "pattern": "^(?:a|b)$"},
        "data": {"type": "string", "contentEncoding": "base64"},
    }
    assert draft.tools()[0]["tool"]["inputSchema"]["required"] == ["name"]


def test_enums_show_their_labels_and_lists_their_items(draft: Draft) -> None:
    draft.enum("Mode", MODE_FAST="fast", MODE_SLOW="slow")
    draft.add(draft.request, "mode", Field.TYPE_ENUM, "Mode")
    names = draft.add(draft.request, "names", required=True)
    names.label = Field.LABEL_REPEATED
    assert draft.properties() == {
        "mode": {"type": "string", "enum": ["fast", "slow"]},
        "names": {"type": "array", "items": {"type": "string"}, "minItems": 1},
    }


def test_a_map_is_an_object_of_any_names(draft: Draft) -> None:
    entry = draft.request.nested_type.add(name="EnvEntry")
    entry.options.map_entry = True
    draft.add(entry, "key")
    draft.add(entry, "value", Field.TYPE_INT64)
    env = draft.add(draft.request, "env", Field.TYPE_MESSAGE, "DoRequest.EnvEntry")
    env.label = Field.LABEL_REPEATED
    assert draft.properties() == {
        "env": {"type": "object", "additionalProperties": {"type": "integer"}}
    }


def test_fields_not_meant_for_models_are_left_out(draft: Draft) -> None:
    draft.add(draft.request, "seen")
    for option in ("hidden", "unlisted", "planned"):
        for message in (draft.request, draft.response):
            field = draft.add(message, option)
            setattr(field.options.Extensions[options_pb2.field], option, True)
    tool = draft.tools()[0]["tool"]
    assert tool["inputSchema"]["properties"].keys() == {"seen"}
    assert tool["outputSchema"] == {"type": "object", "properties": {}}


def test_only_a_comment_above_a_field_describes_it(draft: Draft) -> None:
    draft.add(draft.request, "above")
    draft.add(draft.request, "behind")
    draft.comments[4, 0, 2, 0] = " For models,\n in two lines.\n"
    location = draft.file.source_code_info.location.add(path=(4, 0, 2, 1))
    location.trailing_comments = "For people."
    assert draft.properties() == {
        "above": {"type": "string", "description": "For models, in two lines."},
        "behind": {"type": "string"},
    }


def test_an_object_is_spelled_out_once_in_a_catalogue(draft: Draft) -> None:
    draft.add(draft.message("Way"), "port", Field.TYPE_INT32)
    draft.add(draft.request, "way", Field.TYPE_MESSAGE, "Way")
    again = draft.file.service[0].method.add()
    again.CopyFrom(draft.method)
    again.name = "Again"
    again.options.Extensions[options_pb2.tool].name = "again"
    draft.comments[6, 0, 2, 1] = DOC
    first, second = draft.tools()
    assert first["tool"]["inputSchema"]["properties"]["way"] == {
        "type": "object",
        "properties": {"port": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert second["tool"]["inputSchema"]["properties"]["way"] == {
        "type": "object",
        "description": "As in do_it.",
    }


def test_a_result_promises_what_is_always_there(draft: Draft) -> None:
    draft.enum("Mode", MODE_FAST="fast")
    draft.add(draft.response, "plain", Field.TYPE_UINT64)
    draft.response.oneof_decl.add(name="_maybe")
    maybe = draft.add(draft.response, "maybe")
    maybe.proto3_optional, maybe.oneof_index = True, 0
    draft.add(draft.response, "mode", Field.TYPE_ENUM, "Mode")
    draft.add(draft.response, "part", Field.TYPE_MESSAGE, "DoRequest")
    assert draft.tools()[0]["tool"]["outputSchema"] == {
        "type": "object",
        "properties": {
            "plain": {"type": "integer"},
            "maybe": {"type": "string"},
            "mode": {"type": "string", "enum": ["fast"]},
            "part": {"type": "object", "properties": {}},
        },
        "required": ["plain"],
    }


def test_the_result_of_a_stream_is_that_of_its_oneof(draft: Draft) -> None:
    draft.method.server_streaming = True
    draft.response.oneof_decl.add(name="event")
    draft.message("Outcome")
    result = draft.add(draft.response, "result", Field.TYPE_MESSAGE, "Outcome")
    result.oneof_index = 0
    tool = draft.tools()[0]
    assert (tool["out"], tool["stream"]) == ("holdfast.v1.Outcome", True)


class TestRefusals:
    def test_a_choice_at_the_top_of_a_request(self, draft: Draft) -> None:
        """Providers answer HTTP 400 to the anyOf that it would become."""
        draft.request.oneof_decl.add(name="choice")
        draft.add(draft.request, "one").oneof_index = 0
        assert draft.refusal() == "holdfast.v1.DoRequest.one: oneof in a request"

    def test_a_message_that_contains_itself(self, draft: Draft) -> None:
        draft.add(draft.message("Tree"), "left", Field.TYPE_MESSAGE, "Tree")
        draft.add(draft.request, "tree", Field.TYPE_MESSAGE, "Tree")
        assert draft.refusal() == "holdfast.v1.Tree contains itself"

    def test_a_message_from_elsewhere(self, draft: Draft) -> None:
        field = draft.add(draft.request, "at", Field.TYPE_MESSAGE)
        field.type_name = ".google.protobuf.Timestamp"
        assert "not a message of the contract" in draft.refusal()

    def test_a_stream_without_a_result(self, draft: Draft) -> None:
        draft.method.server_streaming = True
        assert "without a result" in draft.refusal()

    def test_an_enum_value_without_a_label(self, draft: Draft) -> None:
        draft.enum("Mode", MODE_FAST="")
        draft.add(draft.request, "mode", Field.TYPE_ENUM, "Mode")
        assert draft.refusal() == "holdfast.v1.Mode: a value without a label"

    def test_a_range_or_pattern_for_the_wrong_type(self, draft: Draft) -> None:
        field = draft.add(draft.request, "name", min=1)
        assert draft.refusal() == "name: a range does not fit string"
        field.type = Field.TYPE_INT32
        options = field.options.Extensions[options_pb2.field]
        options.Clear()
        options.pattern = "x"
        assert draft.refusal() == "name: a pattern does not fit integer"

    def test_two_tools_of_one_name(self, draft: Draft) -> None:
        draft.file.service[0].method.add().CopyFrom(draft.method)
        draft.comments[6, 0, 2, 1] = DOC
        assert draft.refusal() == "two tools are called do_it"

    @pytest.mark.parametrize(
        ("field", "value", "said"),
        [
            ("name", "Do-It", "tool name"),
            ("name", "x" * 31, "tool name"),
            ("toolset", "other", "toolset"),
            ("title", "", "no title"),
        ],
    )
    def test_a_tool_that_clients_would_not_take(
        self, draft: Draft, field: str, value: str, said: str
    ) -> None:
        setattr(draft.tool, field, value)
        assert re.search(said, draft.refusal())

    def test_a_description_that_clients_would_cut(self, draft: Draft) -> None:
        draft.comments[6, 0, 2, 0] = "x" * 1000
        assert "too long" in draft.refusal()

    def test_a_tool_that_both_only_reads_and_destroys(self, draft: Draft) -> None:
        draft.tool.read_only = draft.tool.destructive = True
        assert "read-only and destructive" in draft.refusal()

    def test_a_tool_that_takes_a_stream(self, draft: Draft) -> None:
        draft.method.client_streaming = True
        assert "one request" in draft.refusal()
