from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from google.protobuf import descriptor_pool

from holdfast import v1
from holdfast.v1 import common_pb2, options_pb2
from holdfast_daemon import limits
from holdfast_daemon.file.reading import DEFAULT_BYTES
from holdfast_daemon.rpc import file as rpc_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.descriptor import Descriptor, FieldDescriptor

# Fields whose default is a limit of the daemon, by field name.
IN_LIMITS = {
    "timeout_seconds": "command_timeout_seconds",
    "idle_timeout_seconds": "session_idle_seconds",
    "wait_seconds": "wait_seconds",
    "connect_timeout_seconds": "connect_timeout_seconds",
}
LIMITS = limits.Limits()
# Those of the file tools, where they are applied.
FILES = {
    "FindFilesRequest.limit": rpc_file.DEFAULT_LIMIT,
    "FindFilesRequest.path": ".",
    "ListDirectoryRequest.depth": 1,
    "ListDirectoryRequest.path": ".",
    "ReadFileRequest.max_bytes": DEFAULT_BYTES,
    "SearchFilesRequest.limit": rpc_file.DEFAULT_LIMIT,
    "SearchFilesRequest.path": ".",
}


class Default(NamedTuple):
    """A default that a field tells a model."""

    field: FieldDescriptor
    value: Any

    @property
    def name(self) -> str:
        return ".".join(self.field.full_name.split(".")[-2:])

    @property
    def neutral(self) -> bool:
        """Tell whether it is what the field's type gives anyway."""
        if self.field.enum_type is not None:
            # *_UNSPECIFIED means the first that has a name.
            first = self.field.enum_type.values[1]
            label: str = first.GetOptions().Extensions[options_pb2.label]
            return bool(self.value == label)
        return self.value in (0, False, "")


def reach(message: Descriptor, seen: dict[str, Descriptor]) -> None:
    if message.full_name in seen:
        return
    seen[message.full_name] = message
    for field in message.fields:
        if field.message_type is not None:
            reach(field.message_type, seen)


def requests() -> Iterator[tuple[Descriptor, bool]]:
    """Yield every request with whether its RPC is planned only."""
    for path in sorted(Path(v1.__path__[0]).glob("*_pb2.py")):
        name = f"holdfast/v1/{path.stem.removesuffix('_pb2')}.proto"
        importlib.import_module(f"holdfast.v1.{path.stem}")
        file = descriptor_pool.Default().FindFileByName(name)
        for service in file.services_by_name.values():
            for method in service.methods:
                tool = method.GetOptions().Extensions[options_pb2.tool]
                yield method.input_type, tool.planned


def defaults() -> Iterator[Default]:
    """Yield what requests that work tell as their defaults."""
    seen: dict[str, Descriptor] = {}
    for request, planned in requests():
        if not planned:
            reach(request, seen)
    for message in seen.values():
        for field in message.fields:
            options = field.GetOptions().Extensions[options_pb2.field]
            if options.default_json and not options.planned:
                yield Default(field, json.loads(options.default_json))


ALL = sorted(defaults(), key=lambda default: default.name)
NAMES = [default.name for default in ALL]


@pytest.mark.parametrize("default", ALL, ids=NAMES)
def test_a_default_told_to_models_is_the_one_that_applies(default: Default) -> None:
    """EX-18: what the catalogue says applies when an argument is left out."""
    limit = IN_LIMITS.get(default.field.name)
    if default.name in FILES:
        assert default.value == FILES[default.name]
    elif limit is not None and not default.neutral:
        assert default.value == getattr(LIMITS, limit)
    else:
        assert default.neutral, f"{default.name}: map it to a limit in IN_LIMITS"


@pytest.mark.parametrize("default", ALL, ids=NAMES)
def test_a_default_is_within_its_own_bounds(default: Default) -> None:
    options = default.field.GetOptions().Extensions[options_pb2.field]
    if options.HasField("min"):
        assert default.value >= options.min
    if options.HasField("max"):
        assert default.value <= options.max


@pytest.mark.parametrize(
    ("message", "field", "limit"),
    [
        ("RunRequest", "timeout_seconds", "command_timeout_seconds"),
        ("RunRequest", "wait_seconds", "wait_seconds"),
        ("RunRequest", "max_output_chars", "answer_chars"),
        ("ConnectOptions", "connect_timeout_seconds", "connect_timeout_seconds"),
    ],
)
def test_what_a_call_may_ask_is_what_the_configuration_may(
    message: str, field: str, limit: str
) -> None:
    found = common_pb2.DESCRIPTOR.pool.FindMessageTypeByName(f"holdfast.v1.{message}")
    options = found.fields_by_name[field].GetOptions().Extensions[options_pb2.field]
    bounds = limits.bounds(limit)
    assert bounds is not None
    assert (options.min, options.max) == (bounds.low, bounds.high)


def test_the_defaults_of_a_command_are_told() -> None:
    told = {"RunRequest.timeout_seconds", "RunRequest.wait_seconds"}
    assert told <= set(NAMES)
