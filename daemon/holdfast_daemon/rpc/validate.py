"""Checks a request against the options of its fields, for shim, HTTP and CLI alike.

Knows descriptors and nothing of what a request is for. The options are compiled once
for each message type, so that a check costs a few microseconds.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from holdfast.v1 import options_pb2
from holdfast_daemon.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

    # A value is right, or InputError names the path.
    Check = Callable[[Any, str], None]


class _Rules(NamedTuple):
    """What one message type demands."""

    needed: tuple[tuple[str, Callable[[Message, str], bool], str], ...]
    checks: Mapping[int, Check]


def validate(message: Message) -> None:
    """Check a request and all it holds.

    Raises:
        InputError: Names the first field that is wrong and what it may be.
    """
    _validate(message, "")


def _validate(message: Message, prefix: str) -> None:
    rules = _rules(message.DESCRIPTOR)
    for name, given, complaint in rules.needed:
        if not given(message, name):
            raise InputError(prefix + name, f"{prefix}{name} {complaint}")
    checks = rules.checks
    for field, value in message.ListFields():
        check = checks.get(field.number)
        if check is not None:
            check(value, prefix + field.name)


@cache
def _rules(descriptor: Descriptor) -> _Rules:
    needed: list[tuple[str, Callable[[Message, str], bool], str]] = []
    checks: dict[int, Check] = {}
    for field in descriptor.fields:
        options = field.GetOptions().Extensions[options_pb2.field]
        if options.required:
            needed.append((field.name, *_need(field)))
        check = _planned if options.planned else _field_check(field, options)
        if check is not None:
            checks[field.number] = check
    return _Rules(tuple(needed), checks)


# Required


def _need(field: FieldDescriptor) -> tuple[Callable[[Message, str], bool], str]:
    """Return how to see that a field is given, and what to say when it is not."""
    if field.is_repeated:
        return _some, "must have at least one entry"
    if field.has_presence:
        return _present, "is missing"
    if field.enum_type is not None:
        return _set, f"must be one of {_allowed(field.enum_type)}"
    if field.type == FieldDescriptor.TYPE_STRING:
        return _worded, "is missing or blank"
    raise TypeError(f"{field.full_name} is required, so it must be optional")


def _some(message: Message, name: str) -> bool:
    return len(getattr(message, name)) > 0


def _present(message: Message, name: str) -> bool:
    return message.HasField(name)


def _set(message: Message, name: str) -> bool:
    return bool(getattr(message, name))


def _worded(message: Message, name: str) -> bool:
    text: str = getattr(message, name)
    return bool(text) and not text.isspace()


# Values


def _planned(_: Any, path: str) -> None:
    raise InputError(path, f"{path} does not work in this release")


def _field_check(field: FieldDescriptor, options: options_pb2.Field) -> Check | None:
    entry = field.message_type
    if entry is not None and entry.GetOptions().map_entry:
        return _map_check(entry)
    check = _value_check(field, options)
    if check is None or not field.is_repeated:
        return check

    def check_each(values: Any, path: str) -> None:
        for index, value in enumerate(values):
            check(value, f"{path}[{index}]")

    return check_each


def _map_check(entry: Descriptor) -> Check:
    none = options_pb2.Field()
    check_key = _value_check(entry.fields_by_name["key"], none)
    check_value = _value_check(entry.fields_by_name["value"], none)

    def check_map(values: Any, path: str) -> None:
        for key, value in values.items():
            place = f"{path}.{key}" if str(key).isprintable() else f"{path}.{key!a}"
            if check_key is not None:
                check_key(key, place)
            if check_value is not None:
                check_value(value, place)

    return check_map


def _value_check(field: FieldDescriptor, options: options_pb2.Field) -> Check | None:
    if field.message_type is not None:
        return _message_check
    if field.enum_type is not None:
        return _enum_check(field.enum_type)
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_check(options)
    if field.type in (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_BOOL):
        return None
    return _number_check(options)


def _message_check(value: Message, path: str) -> None:
    _validate(value, f"{path}.")


def _enum_check(enum: EnumDescriptor) -> Check:
    known = frozenset(enum.values_by_number)
    allowed = _allowed(enum)

    def check_enum(value: int, path: str) -> None:
        if value not in known:
            raise InputError(path, f"{path} must be one of {allowed}, not {value}")

    return check_enum


def _text_check(options: options_pb2.Field) -> Check:
    pattern = re.compile(options.pattern) if options.pattern else None

    def check_text(value: str, path: str) -> None:
        # Neither a command line, a path nor an environment can hold one.
        if "\0" in value:
            raise InputError(path, f"{path} must not contain NUL")
        if pattern is not None and not pattern.fullmatch(value):
            raise InputError(path, f"{path} must match {pattern.pattern}")

    return check_text


def _number_check(options: options_pb2.Field) -> Check:
    low = options.min if options.HasField("min") else -math.inf
    high = options.max if options.HasField("max") else math.inf
    span = _span(low, high)

    def check_number(value: float, path: str) -> None:
        # Written so that NaN fails too; no infinity is in any range.
        if not (low <= value <= high and abs(value) != math.inf):
            raise InputError(path, f"{path} must be {span}, not {value:.15g}")

    return check_number


def _span(low: float, high: float) -> str:
    if low > -math.inf and high < math.inf:
        return f"between {low:.15g} and {high:.15g}"
    if low > -math.inf:
        return f"at least {low:.15g}"
    return f"at most {high:.15g}" if high < math.inf else "a finite number"


def _allowed(enum: EnumDescriptor) -> str:
    return ", ".join(
        value.GetOptions().Extensions[options_pb2.label] or value.name
        for value in enum.values
        if value.number
    )
