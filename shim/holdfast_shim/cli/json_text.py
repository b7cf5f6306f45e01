"""JSON texts of other programs: one value is set, every other byte stays as it was.

Comments and trailing commas are read where the file's owner reads them too. Knows no
client and no file.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

_STRING = r'"(?:[^"\\\r\n]|\\.)*"'
_COMMENT = re.compile(rf"{_STRING}|(//[^\r\n]*|/\*.*?\*/)", re.DOTALL)
_TRAILING = re.compile(rf"{_STRING}|(,)(?=[ \t\r\n]*[}}\]])")
_SPACE = re.compile(r"[ \t\r\n]*")
# What may follow a member on its line: a comment belongs to that member, not to ours.
_REST_OF_LINE = re.compile(r"(?:[ \t]|/\*[^\r\n]*?\*/|//[^\r\n]*)*")
_Other = TypeVar("_Other", str, None)
_DECODER = json.JSONDecoder(strict=False)


class _Member(NamedTuple):
    key: str
    start: int
    value: int
    end: int


class _Object(NamedTuple):
    """Where an object's braces are, and what lies between them."""

    start: int
    close: int
    members: list[_Member]

    def last(self, key: str) -> _Member | None:
        """Return the member that counts: of twins the last."""
        found = [member for member in self.members if member.key == key]
        return found[-1] if found else None


class JsonText:
    """One file's text.

    Raises:
        ValueError: It is no JSON object; the message says where it goes wrong.

    Attributes:
        text: The whole, as it is now.
    """

    def __init__(self, text: str, *, comments: bool = False) -> None:
        """Read `text`; `comments`: comments and trailing commas are part of it."""
        self._comments = comments
        self.text = text if text.strip() else "{}\n"
        self._plain = ""
        self._read()

    def get(self, *path: str) -> Any:
        """Return the value at `path`, None where there is none.

        Raises:
            ValueError: Something on the way is no object.
        """
        value: Any = self._value
        for depth, key in enumerate(path):
            if not isinstance(value, dict):
                raise _no_object(path[:depth])
            value = cast("dict[str, Any]", value).get(key)
            if value is None:
                return None
        return value

    def put(self, path: Sequence[str], value: Any) -> None:
        """Set the value at `path`; objects on the way are made."""
        there: _Object = self._object(0)
        for depth, key in enumerate(path):
            member = there.last(key)
            rest = path[depth + 1 :]
            if member is None:
                self._add(there, key, _nested(rest, value), depth)
                break
            null = self._plain.startswith("null", member.value)
            if not rest or null:
                self._replace(member, _nested(rest, value))
                break
            if self._plain[member.value] != "{":
                raise _no_object(path[: depth + 1])
            there = self._object(member.value)
        self._read()

    def _read(self) -> None:
        plain = self.text
        if self._comments:
            plain = _COMMENT.sub(_blank, plain)
            plain = _TRAILING.sub(_blank, plain)
        self._plain = plain
        try:
            self._value: Any = json.loads(plain, strict=False)
        except RecursionError as error:
            message = "it is nested too deeply"
            raise ValueError(message) from error
        if not isinstance(self._value, dict):
            raise _no_object(())

    def _object(self, at: int) -> _Object:
        """Return the object at `at` or, past white space, after it."""
        plain = self._plain
        start = at = _after_space(plain, at)
        members: list[_Member] = []
        at = _after_space(plain, at + 1)
        while plain[at] != "}":
            key, end = _DECODER.raw_decode(plain, at)
            value = _after_space(plain, _after_space(plain, end) + 1)
            _, end = _DECODER.raw_decode(plain, value)
            members.append(_Member(key, at, value, end))
            at = _after_space(plain, end)
            if plain[at] == ",":
                at = _after_space(plain, at + 1)
        return _Object(start, at, members)

    def _add(self, there: _Object, key: str, value: Any, depth: int) -> None:
        name = json.dumps(key, ensure_ascii=False)
        text = self.text
        end = there.members[-1].end if there.members else there.start + 1
        if there.members and not _has_line(text[there.start : there.close]):
            told = json.dumps(value, ensure_ascii=False)
            self.text = f"{text[:end]}, {name}: {told}{text[end:]}"
            return
        comma = "," if there.members else ""
        begin = end
        if trailing := self._trailing_comma(end, there.close):
            comma, begin = "", trailing + 1
        rest = _REST_OF_LINE.match(text, begin)
        until = min(rest.end() if rest else begin, there.close)
        unit = self._unit()
        indent = unit * (depth + 1)
        if there.members:
            indent = self._indent(there.members[0].start, indent)
        line = self._line_end()
        told = f"{line}{indent}{name}: {_dumped(value, unit, indent, line)}"
        if not _has_line(text[until : there.close]):
            told += line + self._indent(there.start, unit * depth)
        self.text = text[:end] + comma + text[end:until] + told + text[until:]

    def _replace(self, member: _Member, value: Any) -> None:
        unit = self._unit()
        indent = self._indent(member.start, None)
        if indent is None:
            told = json.dumps(value, ensure_ascii=False)
        else:
            told = _dumped(value, unit, indent, self._line_end())
        self.text = self.text[: member.value] + told + self.text[member.end :]

    def _trailing_comma(self, begin: int, close: int) -> int | None:
        if not self._comments:
            return None
        bare = _COMMENT.sub(_blank, self.text)
        found = bare.find(",", begin, close)
        return None if found < 0 else found

    def _indent(self, at: int, otherwise: _Other) -> str | _Other:
        """Return what precedes `at` on its line where that is only white space."""
        begin = self.text.rfind("\n", 0, at) + 1
        before = self.text[begin:at]
        return before if begin and not before.strip(" \t") else otherwise

    def _unit(self) -> str:
        members = self._object(0).members
        return (self._indent(members[0].start, None) if members else None) or "  "

    def _line_end(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"


def _dumped(value: Any, unit: str, indent: str, line: str) -> str:
    told = json.dumps(value, ensure_ascii=False, indent=unit)
    return told.replace("\n", line + indent)


def _nested(keys: Sequence[str], value: Any) -> Any:
    for key in reversed(keys):
        value = {key: value}
    return value


def _no_object(path: Sequence[str]) -> ValueError:
    return ValueError(f"{'.'.join(path) or 'it'} is not an object")


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _has_line(text: str) -> bool:
    return "\n" in text


def _blank(found: re.Match[str]) -> str:
    if found[1] is None:
        return found[0]
    return re.sub(r"[^\r\n]", " ", found[0])
