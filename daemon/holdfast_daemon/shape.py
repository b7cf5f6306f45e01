"""Whether what was read from disk has the shape that is written there. Sans-I/O.

One record that another release wrote, or a disk spoiled, must not keep a daemon from
its start, nor from telling of all the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

# Raises TypeError, and names what is odd.
Shape: TypeAlias = Callable[[str, object], None]


def _of(what: str, right: Callable[[Any], bool]) -> Shape:
    def check(name: str, value: object) -> None:
        if not right(value):
            raise TypeError(f"{name} is no {what}")

    return check


def _sendable(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


text = _of("text", _sendable)
# absolute, or none
path = _of("path", lambda value: _sendable(value) and value[:1] in ("", "/"))
# as a file's name may be, whose bytes need be of no characters
name_text = _of("text", lambda value: isinstance(value, str))
flag = _of("flag", lambda value: isinstance(value, bool))
number = _of("number", lambda value: type(value) is int)
count = _of("count", lambda value: type(value) is int and value >= 0)
amount = _of(
    "amount",
    lambda value: type(value) in (int, float) and math.isfinite(value) and value >= 0,
)
mapping = _of("mapping", lambda value: isinstance(value, Mapping))


def maybe(shape: Shape) -> Shape:
    """Return the shape of what may be None."""

    def check(name: str, value: object) -> None:
        if value is not None:
            shape(name, value)

    return check


def several(shape: Shape) -> Shape:
    """Return the shape of a list of such."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, list):
            raise TypeError(f"{name} is no list")
        for at, one in enumerate(value):
            shape(f"{name}[{at}]", one)

    return check


def each(*shapes: Shape) -> Shape:
    """Return the shape of a list whose members have these, in their order."""

    def check(name: str, value: object) -> None:
        if not isinstance(value, list) or len(value) != len(shapes):
            raise TypeError(f"{name} is no list of {len(shapes)}")
        for at, shape in enumerate(shapes):
            shape(f"{name}[{at}]", value[at])

    return check


def table(shape: Shape) -> Shape:
    """Return the shape of a mapping from text to such."""

    def check(name: str, value: object) -> None:
        mapping(name, value)
        assert isinstance(value, Mapping)  # noqa: S101  as the line above says
        for key, one in value.items():
            shape(f"{name}.{key}", one)

    return check


def fields(known: Mapping[str, Shape], later: Mapping[str, Shape]) -> Shape:
    """Return the shape of a record; what came `later` older releases did not write."""

    def check(name: str, value: object) -> None:
        mapping(name, value)
        assert isinstance(value, Mapping)  # noqa: S101  as the line above says
        for key, shape in known.items():
            if key not in value:
                raise TypeError(f"{name} has no {key}")
            shape(f"{name}.{key}", value[key])
        for key, shape in later.items():
            if key in value:
                shape(f"{name}.{key}", value[key])

    return check
