"""On which line of a TOML source a key stands; `tomllib` does not tell.

Knows TOML's lexical form and no key of ours. The source must already have been parsed
without an error: this reads only as much as it takes to find keys.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any

_PART = r"""(?:"(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[A-Za-z0-9_-]+)"""
_DOTTED = re.compile(rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
# One string of any of the four kinds, a comment, or any other character of a value. The
# closing quotes of a long string may be preceded by one or two that belong to it.
_PIECE = re.compile(
    r'"""(?:[^\\]|\\.)*?"""(?:"{0,2})'
    r"|'''.*?'''(?:'{0,2})"
    r'|"(?:[^"\\\n]|\\.)*"'
    r"|'[^'\n]*'"
    r"|#[^\n]*"
    r"|[\[\]{}\n]"
    r"|[^\[\]{}\n\"'#]+",
    re.DOTALL,
)

Path = tuple[str, ...]


class Lines:
    """Lines, counted from 1, of the keys and tables of one source."""

    def __init__(self, source: str) -> None:
        self._source = source.replace("\r\n", "\n")
        self._lines: dict[Path, int] = {}
        self._read()

    def of(self, path: Path) -> int:
        """Return the line of `path`, or of the nearest table or key it lies in."""
        while path and path not in self._lines:
            path = path[:-1]
        return self._lines.get(path, 1)

    def _read(self) -> None:
        source, table, at, line = self._source, Path(), 0, 1
        while True:
            line, at = _pass(source, line, at, _SPACE)
            if at >= len(source):
                return
            header = source[at] == "["
            if header:
                at += 2 if source.startswith("[[", at) else 1
                line, at = _pass(source, line, at, _SPACE)
            found = _DOTTED.match(source, at)
            if not found:  # not TOML: the parser has said so, or will
                return
            key = _path(found[0])
            if header:
                table = key
                self._note(table, line)
            else:
                self._note(table + key, line)
            line, at = self._skip(found.end(), line)

    def _note(self, path: Path, line: int) -> None:
        """The first mention counts, for the tables above it as well."""
        for length in range(1, len(path) + 1):
            self._lines.setdefault(path[:length], line)

    def _skip(self, at: int, line: int) -> tuple[int, int]:
        """Pass the rest of a header, or a value: to a line's end outside brackets."""
        depth = 0
        while found := _PIECE.match(self._source, at):
            piece = found[0]
            line += piece.count("\n")
            at = found.end()
            if piece in "[{":
                depth += 1
            elif piece in "]}":
                depth -= 1
            elif piece == "\n" and depth <= 0:
                break
        return line, at


def _pass(source: str, line: int, at: int, what: re.Pattern[str]) -> tuple[int, int]:
    found = what.match(source, at)
    end = found.end() if found else at
    return line + source.count("\n", at, end), end


def _path(dotted: str) -> Path:
    """Let the parser itself say what a dotted key with quotes and escapes means."""
    value: Any = tomllib.loads(f"{dotted} = 0")
    path: list[str] = []
    while isinstance(value, dict):
        ((key, value),) = value.items()
        path.append(key)
    return tuple(path)
