from __future__ import annotations

import importlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor

import check
import derive
import descriptors
import dump
import generate
from holdfast import contract
from holdfast.v1 import options_pb2
from holdfast_daemon.rpc.validate import validate
from holdfast_shim.translate import fill, to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.message import Message

Json = dict[str, Any]

ROOT = Path(generate.__file__).parent
TOKENS = 4500
HINTS = {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
for path in sorted((ROOT / "holdfast/v1").glob("*_pb2.py")):
    importlib.import_module(f"holdfast.v1.{path.stem}")  # fills the descriptor pool
VALIDATOR: Any = importlib.import_module("jsonschema").Draft202012Validator

# The contract's tool table: toolset, tool, arguments; * is required.
TABLE = """
exec ssh_exec target command* cwd env stdin shell tty timeout_seconds wait_seconds
    durable max_output_chars connect request_id sudo
exec ssh_job_list target running_only
exec ssh_job_read job_id* stream offset tail_lines grep wait_seconds max_output_chars
exec ssh_job_stop job_id* signal
exec ssh_wait any_of* wait_seconds
hosts ssh_hosts query tag
hosts ssh_connect target* connect
hosts ssh_disconnect target* force
sessions ssh_session_open target session_name cwd env shell cols rows durability
    auto_close idle_timeout_seconds observer new connect
sessions ssh_session_run session* command* timeout_seconds wait_seconds max_output_chars
sessions ssh_session_write session* input* wait_seconds until max_output_chars
sessions ssh_session_read session* wait_seconds until view offset max_output_chars
sessions ssh_session_list target session_name include_exited
sessions ssh_session_close session* force
files ssh_file_read target path* start_line end_line max_bytes force
files ssh_file_write target path* content* mode permissions make_parents expected_sha256
files ssh_file_edit target path* edits*
files ssh_dir_list target path depth hidden detailed
files ssh_search target pattern* path glob case_insensitive output before after limit
files ssh_find target glob* path limit
files ssh_copy target* direction* sources* destination* recursive preserve overwrite
files ssh_sync target* direction* source* destination* delete dry_run exclude compress
    checksum
forwards ssh_forward_open target direction* name bind_address local_port remote_host
    remote_port durable
forwards ssh_forward_list target include_stopped
forwards ssh_forward_close forward*
fleet ssh_exec_many targets tag command* parallel strategy stop_on_failure
    timeout_seconds wait_seconds group_identical
fleet ssh_host_info target
fleet ssh_service_status target service*
fleet ssh_package_install target packages* manager
"""
ROWS = [row.split() for row in TABLE.replace("\n    ", " ").strip().splitlines()]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> descriptors.Contract:
    raw = generate.write_code(tmp_path_factory.mktemp("code"))
    return descriptors.Contract(raw)


def catalogue() -> Json:
    return cast("Json", json.loads((ROOT / "holdfast/catalog.json").read_text("utf-8")))


ENTRIES: list[Json] = catalogue()["tools"]
NAMES = [entry["tool"]["name"] for entry in ENTRIES]


@pytest.fixture(params=ENTRIES, ids=NAMES)
def entry(request: pytest.FixtureRequest) -> Json:
    return cast("Json", request.param)


def schemas(schema: Any) -> Iterator[Json]:
    """Yield a schema and every schema in it."""
    if isinstance(schema, dict):
        yield cast("Json", schema)
        for part in cast("Json", schema).values():
            yield from schemas(part)


def new(name: str) -> Message:
    found = descriptor_pool.Default().FindMessageTypeByName(name)
    return message_factory.GetMessageClass(found)()


def tokens(entries: list[Json], *, outputs: bool) -> int:
    """Estimate what a tool list costs, as clients get it with `--results auto`."""
    listed = [
        {
            key: value
            for key, value in entry["tool"].items()
            if key != "outputSchema" or (outputs and entry["result"] == "structured")
        }
        for entry in entries
        if entry["toolset"] != "fleet"
    ]
    return len(json.dumps(listed, separators=(",", ":"), ensure_ascii=False)) // 4


class TestTable:
    def test_every_tool_of_the_contract_is_defined_in_its_order(
        self, source: descriptors.Contract
    ) -> None:
        """NF-18: one API for every verb."""
        tools = derive.Deriver(source, planned=True).tools()
        assert [(e["toolset"], e["tool"]["name"]) for e in tools] == [
            (row[0], row[1]) for row in ROWS
        ]

    @pytest.mark.parametrize("row", ROWS, ids=[row[1] for row in ROWS])
    def test_a_tool_takes_the_arguments_of_the_contract(
        self, source: descriptors.Contract, row: list[str]
    ) -> None:
        call = next(c for c in source.calls if c.tool and c.tool.name == row[1])
        found: list[str] = []
        for field in source.messages[call.request].field:
            options = descriptors.options_of(field)
            if not (options.hidden or options.unlisted):
                found.append(field.name + "*" * options.required)
        assert found == row[2:]

    def test_what_works_is_listed_in_the_order_of_the_contract(self) -> None:
        order = [row[1] for row in ROWS]
        assert sorted(NAMES, key=order.index) == NAMES

    def test_a_planned_tool_is_not_listed(self, source: descriptors.Contract) -> None:
        working = {c.tool.name for c in source.calls if c.tool and not c.tool.planned}
        assert set(NAMES) == working


class TestTool:
    def test_its_names_and_texts_fit_every_client(self, entry: Json) -> None:
        """TR-09: names at most 30 characters, descriptions below 1,000."""
        tool = entry["tool"]
        assert re.fullmatch(r"[a-z0-9_]{1,30}", tool["name"])
        assert tool["title"]
        assert 0 < len(tool["description"]) < 1000

    def test_it_has_all_four_annotations(self, entry: Json) -> None:
        """TR-09: annotations."""
        annotations = entry["tool"]["annotations"]
        assert annotations.keys() == HINTS
        assert all(isinstance(value, bool) for value in annotations.values())
        assert not (annotations["readOnlyHint"] and annotations["destructiveHint"])

    def test_a_read_only_tool_neither_executes_nor_writes(
        self, entry: Json, source: descriptors.Contract
    ) -> None:
        call = next(c for c in source.calls if c.path == entry["rpc"])
        rule = call.method.options.Extensions[options_pb2.rule]
        looks = {options_pb2.ACTION_INSPECT, options_pb2.ACTION_READ}
        assert entry["tool"]["annotations"]["readOnlyHint"] == (rule.action in looks)

    def test_its_schemas_are_valid(self, entry: Json) -> None:
        for key in ("inputSchema", "outputSchema"):
            VALIDATOR.check_schema(entry["tool"][key])
            assert entry["tool"][key]["type"] == "object"

    def test_its_schemas_use_nothing_that_a_provider_refuses(self, entry: Json) -> None:
        refused = {"anyOf", "oneOf", "allOf", "not", "$ref", "$defs", "title"}
        for schema in schemas(entry["tool"]["inputSchema"]["properties"]):
            # A property may have any name; what describes one is known by its type.
            if isinstance(schema.get("type"), str):
                assert not schema.keys() & refused
        assert not entry["tool"]["inputSchema"].keys() & refused

    def test_it_takes_no_argument_beyond_the_listed(self, entry: Json) -> None:
        assert entry["tool"]["inputSchema"]["additionalProperties"] is False

    def test_an_unset_enum_value_is_never_offered(self, entry: Json) -> None:
        for schema in schemas(entry["tool"]):
            for label in schema.get("enum", ()):
                assert not label.endswith("UNSPECIFIED")

    def test_its_rpc_exists_with_its_messages(self, entry: Json) -> None:
        service, _, method = entry["rpc"].removeprefix("/").rpartition("/")
        pool = descriptor_pool.Default()
        found = pool.FindServiceByName(service).methods_by_name[method]
        out = found.output_type
        if entry["stream"]:
            result = out.fields_by_name["result"].message_type
            assert result is not None
            out = result
        assert found.server_streaming == entry["stream"]
        assert (found.input_type.full_name, out.full_name) == (
            entry["in"],
            entry["out"],
        )

    def test_what_its_schema_allows_is_taken(self, entry: Json) -> None:
        request = new(entry["in"])
        arguments = sample(entry["tool"]["inputSchema"])
        VALIDATOR(entry["tool"]["inputSchema"]).validate(arguments)
        fill(request, arguments)
        validate(request)

    def test_an_empty_result_fits_its_schema(self, entry: Json) -> None:
        VALIDATOR(entry["tool"]["outputSchema"]).validate(to_json(new(entry["out"])))

    def test_a_full_result_fits_its_schema(self, entry: Json) -> None:
        schema = entry["tool"]["outputSchema"]
        shown = to_json(populate(new(entry["out"])))
        VALIDATOR(schema).validate(shown)
        assert shown.keys() == schema["properties"].keys()


def sample(schema: Json) -> Any:
    """Make a value that a schema allows."""
    texts = ("text", "644", "0" * 64)
    if "default" in schema:
        return schema["default"]
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "object":
        parts = schema.get("properties", {})
        return {name: sample(part) for name, part in parts.items()}
    if schema["type"] == "array":
        return [sample(schema["items"])]
    if schema["type"] == "string":
        return next(t for t in texts if re.search(schema.get("pattern", ""), t))
    return True if schema["type"] == "boolean" else schema.get("minimum", 1)


VALUES = {
    FieldDescriptor.TYPE_STRING: "x",
    FieldDescriptor.TYPE_BOOL: True,
    FieldDescriptor.TYPE_BYTES: b"x",
}


def populate(message: Message) -> Message:
    """Set every field of a message to something."""
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None:
            target = getattr(message, field.name)
            populate(target.add() if field.is_repeated else target)
            continue
        value: Any = VALUES.get(field.type, 1)
        if field.is_repeated:
            getattr(message, field.name).append(value)
        else:
            setattr(message, field.name, value)
    return message


class TestSize:
    def test_the_default_list_is_small(self) -> None:
        """TR-11: the list stays below 4,500 tokens as it is offered by default."""
        assert tokens(ENTRIES, outputs=False) < TOKENS

    def test_the_whole_default_list_will_be_small(
        self, source: descriptors.Contract
    ) -> None:
        """TR-11: also with all that is planned, when output schemas are not sent."""
        tools = derive.Deriver(source, planned=True).tools()
        assert tokens(tools, outputs=False) < TOKENS


class TestTree:
    def test_generated_files_are_those_of_the_proto_files(self) -> None:
        assert check.stale(ROOT) == []

    @pytest.mark.parametrize(
        "name",
        ["holdfast/catalog.json", "holdfast/contract.py", "holdfast/v1/host_pb2.py"],
    )
    def test_a_generated_file_changed_by_hand_is_found(
        self, tmp_path: Path, name: str
    ) -> None:
        copy = tmp_path / "proto"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / name).write_bytes((copy / name).read_bytes() + b"\n# by hand\n")
        (copy / "holdfast/v1/gone_pb2.py").touch()
        assert check.stale(copy) == sorted([name, "holdfast/v1/gone_pb2.py"])

    def test_code_catalogue_and_dump_tell_the_same_contract(
        self, source: descriptors.Contract
    ) -> None:
        text = (ROOT / "holdfast/contract.txt").read_text("utf-8")
        assert dump.dump(source) == text
        assert contract.HASH == dump.digest(text) == catalogue()["contract"]
        assert len(contract.HASH) == 16
        assert 1 <= contract.PROTOCOL_MIN <= contract.PROTOCOL_MAX

    def test_comments_do_not_change_the_contract(
        self, source: descriptors.Contract
    ) -> None:
        told = dump.dump(source)
        for comment in filter(None, source.comments.values()):
            assert f" {comment}" not in told


class TestRules:
    def test_every_rpc_says_what_it_does(self, source: descriptors.Contract) -> None:
        """SC-09: no RPC passes the gate unnamed."""
        for call in source.calls:
            rule = call.method.options.Extensions[options_pb2.rule]
            assert rule.action != options_pb2.ACTION_UNSPECIFIED, call.path
            if rule.action != options_pb2.ACTION_INSPECT:
                assert rule.audit_event, call.path

    def test_every_service_and_message_follows_the_naming(
        self, source: descriptors.Contract
    ) -> None:
        seen: set[str] = set()
        for call in source.calls:
            assert call.service.endswith("Service")
            assert call.request == f"{descriptors.PACKAGE}.{call.method.name}Request"
            assert call.response == f"{descriptors.PACKAGE}.{call.method.name}Response"
            assert not seen & {call.request, call.response}
            seen |= {call.request, call.response}

    def test_every_enum_follows_the_naming(self, source: descriptors.Contract) -> None:
        for name, enum in source.enums.items():
            words = re.findall(r"[A-Z][a-z0-9]*", name.rpartition(".")[2])
            prefix = "_".join(words).upper() + "_"
            assert enum.value[0].name == f"{prefix}UNSPECIFIED"
            assert all(value.name.startswith(prefix) for value in enum.value)

    def test_whatever_runs_or_makes_something_can_be_repeated_safely(
        self, source: descriptors.Contract
    ) -> None:
        """NF-17: a request_id on every tool that runs, writes or makes something."""
        for call in source.calls:
            if call.tool is None or call.tool.read_only or call.tool.name in ENDING:
                continue
            fields = {field.name for field in source.messages[call.request].field}
            assert "request_id" in fields, call.path


# Ending something twice, or reaching a host twice, is harmless by nature.
ENDING = {
    "ssh_job_stop",
    "ssh_connect",
    "ssh_disconnect",
    "ssh_session_close",
    "ssh_forward_close",
}
