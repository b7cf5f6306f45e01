"""JSON of a model ⇄ messages of the contract, by descriptor.

Owns what a model may write and how a result reads; takes what models get nearly right
(numbers as text, objects as JSON text). Knows no tool, no transport and no limit: what
a value may be beyond its type, the daemon checks.
"""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.descriptor import FieldDescriptor

from holdfast.v1 import options_pb2
from holdfast_shim.nearest import meant

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor, EnumDescriptor
    from google.protobuf.message import Message

# Gemini CLI adds it to every call, whatever the schema says.
IGNORED = frozenset({"wait_for_previous"})

_INTEGER = re.compile(r"[+-]?[0-9]{1,20}")
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_NUMBER_CHARS = 400
_RANGES = {
    FieldDescriptor.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.CPPTYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_REALS = {FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT}
_FLOAT_MAX = 3.4028234663852886e38
_SHOWN_CHARS = 60


class ArgumentError(ValueError):
    """An argument that can't be taken.

    Attributes:
        field: Which one, as a path; empty when it is all of them.
        message: What was wrong, in one sentence that names the field.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field
        self.message = message


def fill(message: Message, arguments: Mapping[str, Any]) -> None:
    """Put a tool call's arguments into an empty request.

    Raises:
        ArgumentError: One of them can't be taken; the request is then half filled.
    """
    given = _object(arguments, "arguments")
    _fill(message, {k: v for k, v in given.items() if k not in IGNORED}, "")


def to_json(message: Message, *, hidden: bool = False) -> dict[str, Any]:
    """Return a message as JSON values; `hidden`: with what a model does not see."""
    found: dict[str, Any] = {}
    for slot in _outputs(message.DESCRIPTOR):
        if not (slot.visible or hidden):
            continue
        if slot.presence and not message.HasField(slot.name):
            continue
        value = slot.show(getattr(message, slot.name), hidden)
        if value is not None:
            found[slot.name] = value
    return found


# From JSON


class _Input(NamedTuple):
    """How one field takes a value: `put(message, value, path)`."""

    put: Callable[[Message, Any, str], None]
    known: bool
    planned: bool


def _fill(message: Message, arguments: Mapping[str, Any], prefix: str) -> None:
    inputs = _inputs(message.DESCRIPTOR)
    for name, value in arguments.items():
        slot = inputs.get(name)
        if slot is None:
            raise _unknown(name, prefix, inputs)
        path = prefix + name
        if slot.planned:
            raise ArgumentError(path, f"{path} does not work in this release")
        if value is not None:
            slot.put(message, value, path)


def _unknown(name: object, prefix: str, inputs: Mapping[str, _Input]) -> ArgumentError:
    known = [key for key, slot in inputs.items() if slot.known]
    shown = name if isinstance(name, str) and name.isidentifier() else _shown(name)
    text = f"unknown argument {prefix}{shown}"
    near = meant(str(name)[:_SHOWN_CHARS], known)
    if near:
        text += f"; did you mean {prefix}{near}?"
    known_text = f"known: {', '.join(known)}" if known else "it takes none"
    return ArgumentError(f"{prefix}{shown}", f"{text} ({known_text})")


@cache
def _inputs(descriptor: Descriptor) -> dict[str, _Input]:
    found: dict[str, _Input] = {}
    for field in descriptor.fields:
        options = field.GetOptions().Extensions[options_pb2.field]
        if not options.hidden:
            known = not (options.unlisted or options.planned)
            found[field.name] = _Input(_putter(field), known, options.planned)
    return found


def _putter(field: FieldDescriptor) -> Callable[[Message, Any, str], None]:
    name = field.name
    if _is_map(field):
        return _map_putter(field)
    if field.message_type is not None:
        if field.is_repeated:

            def put_messages(message: Message, value: Any, path: str) -> None:
                target = getattr(message, name)
                for index, item in enumerate(_list(value, path)):
                    place = f"{path}[{index}]"
                    _fill(target.add(), _object(item, place), f"{place}.")

            return put_messages

        def put_message(message: Message, value: Any, path: str) -> None:
            target = getattr(message, name)
            target.SetInParent()
            _fill(target, _object(value, path), f"{path}.")

        return put_message

    read = _reader(field)
    if field.is_repeated:

        def put_values(message: Message, value: Any, path: str) -> None:
            items = _list(value, path)
            getattr(message, name).extend(
                [read(item, f"{path}[{index}]") for index, item in enumerate(items)]
            )

        return put_values

    def put_value(message: Message, value: Any, path: str) -> None:
        setattr(message, name, read(value, path))

    return put_value


def _map_putter(field: FieldDescriptor) -> Callable[[Message, Any, str], None]:
    name = field.name
    key_field, value_field = _entry(field)
    read_key = _reader(key_field)
    read = None if value_field.message_type is not None else _reader(value_field)

    def put_map(message: Message, value: Any, path: str) -> None:
        target = getattr(message, name)
        for key, item in _object(value, path).items():
            place = f"{path}.{key if key.isidentifier() else _shown(key)}"
            if item is None:
                continue
            if read is None:
                _fill(target[read_key(key, place)], _object(item, place), f"{place}.")
            else:
                target[read_key(key, place)] = read(item, place)

    return put_map


def _reader(field: FieldDescriptor) -> Callable[[Any, str], Any]:
    """Return what reads one value of a field: `(value, path) -> value`."""
    if field.enum_type is not None:
        return _enum_reader(field.enum_type)
    if field.cpp_type in _RANGES:
        return _integer_reader(field)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return _bytes
    return _READERS[field.cpp_type]


def _enum_reader(enum: EnumDescriptor) -> Callable[[Any, str], int]:
    numbers = {label: number for number, label in _labels(enum).items()}

    def read_enum(value: Any, path: str) -> int:
        number = numbers.get(value) if isinstance(value, str) else None
        if number is None:
            allowed = ", ".join(numbers)
            raise ArgumentError(
                path, f"{path} must be one of {allowed}, not {_shown(value)}"
            )
        return number

    return read_enum


def _integer_reader(field: FieldDescriptor) -> Callable[[Any, str], int]:
    low, high = _RANGES[field.cpp_type]
    options = field.GetOptions().Extensions[options_pb2.field]
    least = math.ceil(max(low, options.min)) if options.HasField("min") else low
    most = math.floor(min(high, options.max)) if options.HasField("max") else high

    def read_integer(value: Any, path: str) -> int:
        number = value
        if isinstance(value, str) and _INTEGER.fullmatch(value.strip()):
            number = int(value)  # models do send "5"
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        if isinstance(number, bool) or not isinstance(number, int):
            raise ArgumentError(
                path, f"{path} must be a whole number, not {_shown(value)}"
            )
        if not low <= number <= high:
            raise ArgumentError(path, f"{path} must be between {least} and {most}")
        return number

    return read_integer


def _number(value: Any, path: str) -> float:
    number = value
    if isinstance(value, str) and len(value) <= _NUMBER_CHARS:
        number = float(value) if _NUMBER.fullmatch(value.strip()) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ArgumentError(path, f"{path} must be a number, not {_shown(value)}")
    try:
        number = float(number)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ArgumentError(path, f"{path} must be a finite number")
    return number


def _small_number(value: Any, path: str) -> float:
    number = _number(value, path)
    if abs(number) > _FLOAT_MAX:
        raise ArgumentError(path, f"{path} must be at most {_FLOAT_MAX:.4g}")
    return number


def _boolean(value: Any, path: str) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        word = value.strip().lower()
        if word in ("true", "false"):
            return word == "true"
    raise ArgumentError(path, f"{path} must be true or false, not {_shown(value)}")


def _text(value: Any, path: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(path, f"{path} must be text, not {_kind(value)}")
    if "\0" in value:
        raise ArgumentError(path, f"{path} must not contain NUL (\\u0000)")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ArgumentError(
                path, f"{path} has half a surrogate pair at character {error.start}"
            ) from error
    return value


def _bytes(value: Any, path: str) -> bytes:
    try:
        return base64.b64decode(_text(value, path), validate=True)
    except ArgumentError:
        raise
    except ValueError as error:
        raise ArgumentError(path, f"{path} must be base64") from error


_READERS: dict[int, Callable[[Any, str], Any]] = {
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
    FieldDescriptor.CPPTYPE_FLOAT: _small_number,
    FieldDescriptor.CPPTYPE_BOOL: _boolean,
    FieldDescriptor.CPPTYPE_STRING: _text,
}


def _object(value: Any, path: str) -> Mapping[str, Any]:
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, Mapping):
        raise ArgumentError(path, f"{path} must be an object, not {_kind(value)}")
    return found


def _list(value: Any, path: str) -> list[Any]:
    found = _parsed(value) if isinstance(value, str) else value
    if not isinstance(found, list):
        raise ArgumentError(path, f"{path} must be a list, not {_kind(value)}")
    return found


def _parsed(text: str) -> Any:
    """Read an object or list that a model sent as JSON text; else return the text."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _kind(value: object) -> str:
    """Name a JSON value's type, for errors that must not repeat the value."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def _shown(value: object) -> str:
    """Show a short value in an error; escapes what could not be printed."""
    if isinstance(value, str):
        text = repr(value[:_SHOWN_CHARS])
        return text if len(value) <= _SHOWN_CHARS else f"{text}…"
    if isinstance(value, bool | float):
        return repr(value).lower()
    return _kind(value)


# To JSON


class _Output(NamedTuple):
    """How one field is shown: `show(value, hidden)`; None leaves it out."""

    name: str
    show: Callable[[Any, bool], Any]
    presence: bool
    visible: bool


@cache
def _outputs(descriptor: Descriptor) -> tuple[_Output, ...]:
    found: list[_Output] = []
    for field in descriptor.fields:
        options = field.GetOptions().Extensions[options_pb2.field]
        if options.secret:
            continue
        visible = not (options.hidden or options.unlisted or options.planned)
        found.append(_Output(field.name, _shower(field), field.has_presence, visible))
    return tuple(found)


def _shower(field: FieldDescriptor) -> Callable[[Any, bool], Any]:
    if _is_map(field):
        key_field, value_field = _entry(field)
        show_key, show_value = _one(key_field), _one(value_field)

        def show_map(value: Any, hidden: bool) -> dict[str, Any]:
            return {
                _key(show_key(key, hidden)): show_value(item, hidden)
                for key, item in value.items()
            }

        return show_map

    show = _one(field)
    if field.is_repeated:

        def show_list(value: Any, hidden: bool) -> list[Any]:
            return [show(item, hidden) for item in value]

        return show_list
    return show


def _one(field: FieldDescriptor) -> Callable[[Any, bool], Any]:
    if field.message_type is not None:
        return _show_message
    if field.enum_type is not None:
        labels = _labels(field.enum_type)
        # A value of a newer contract has no label here; its number tells at least that.
        return lambda value, _: labels.get(value, str(value) if value else None)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value, _: base64.b64encode(value).decode("ascii")
    if field.cpp_type in _REALS:
        # JSON knows neither NaN nor Infinity.
        return lambda value, _: value if math.isfinite(value) else None
    return lambda value, _: value


def _show_message(value: Message, hidden: bool) -> dict[str, Any]:
    return to_json(value, hidden=hidden)


def _key(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# Both ways


@cache
def _labels(enum: EnumDescriptor) -> dict[int, str]:
    """Return the names of an enum's values in JSON; *_UNSPECIFIED has none."""
    return {
        value.number: value.GetOptions().Extensions[options_pb2.label] or value.name
        for value in enum.values
        if value.number
    }


def _is_map(field: FieldDescriptor) -> bool:
    entry = field.message_type
    return entry is not None and entry.GetOptions().map_entry


def _entry(field: FieldDescriptor) -> tuple[FieldDescriptor, FieldDescriptor]:
    entry = field.message_type
    assert entry is not None  # noqa: S101  (a map field has an entry)
    return entry.fields_by_name["key"], entry.fields_by_name["value"]
