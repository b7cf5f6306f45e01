"""Where a text almost stands in a file, for who missed it. Sans-I/O."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import NamedTuple

# So much is compared: an error must not take longer than the edit.
_LINES = 20_000
_CANDIDATES = 400
_LINE_CHARS = 400
_GOOD = 0.5
_SHOWN_LINES = 6
_SHOWN_CHARS = 110
_CRLF = "the file's lines end in CRLF (\\r\\n)"


class Near(NamedTuple):
    """The place that is most like a text.

    Attributes:
        line: Where it begins, from 1.
        shown: Those lines of the file, numbered.
        differs: In what it differs, where that can be said in words.
    """

    line: int
    shown: str
    differs: str


def nearest(text: str, old: str) -> Near | None:
    """Return the lines of `text` that are most like `old`; None: nothing is."""
    crlf = old.replace("\r\n", "\n").replace("\n", "\r\n")
    position = text.find(crlf) if crlf != old else -1
    if position >= 0:
        line = text.count("\n", 0, position) + 1
        return Near(line, _shown(crlf.split("\n"), line), _CRLF)
    lines = text.split("\n")[:_LINES]
    wanted = old.strip("\n").split("\n")
    starts = _candidates(lines, wanted)
    best, place = 0.0, -1
    whole = "\n".join(wanted)[: _LINE_CHARS * _SHOWN_LINES]
    for start in starts:
        there = "\n".join(lines[start : start + len(wanted)])
        matcher = SequenceMatcher(None, whole, there[: len(whole) + _LINE_CHARS])
        if matcher.real_quick_ratio() <= best or matcher.quick_ratio() <= best:
            continue
        ratio = matcher.ratio()
        if ratio > best:
            best, place = ratio, start
    if place < 0 or best < _GOOD:
        return None
    found = lines[place : place + len(wanted)]
    return Near(place + 1, _shown(found, place + 1), _differs(wanted, found))


def _candidates(lines: list[str], wanted: list[str]) -> list[int]:
    """Return where to compare: where a line is alike but for white space, or any."""
    index = {" ".join(line.split()): n for n, line in enumerate(wanted) if line.split()}
    found: dict[int, None] = {}
    for number, line in enumerate(lines):
        offset = index.get(" ".join(line.split()))
        if offset is not None and number >= offset:
            found[number - offset] = None
    if found:
        return list(found)[:_CANDIDATES]
    key = max(wanted, key=len)[:_LINE_CHARS]
    offset = wanted.index(max(wanted, key=len))
    matcher = SequenceMatcher(None, "", key, autojunk=False)
    rated: list[tuple[float, int]] = []
    for number, line in enumerate(lines):
        matcher.set_seq1(line[:_LINE_CHARS])
        rated.append((matcher.real_quick_ratio(), number))
    rated.sort(key=lambda row: (-row[0], row[1]))
    return [max(0, n - offset) for _, n in rated[:_CANDIDATES]]


def _shown(lines: list[str], first: int) -> str:
    told = [
        f"{first + n}: {line[:_SHOWN_CHARS]!r}{'…' if len(line) > _SHOWN_CHARS else ''}"
        for n, line in enumerate(lines[:_SHOWN_LINES])
    ]
    if len(lines) > _SHOWN_LINES:
        told.append("…")
    return "\n".join(told)


def _differs(wanted: list[str], there: list[str]) -> str:
    if ["".join(line.split()) for line in wanted] == [
        "".join(line.split()) for line in there
    ]:
        return "only white space differs"
    return ""


def lines_with(text: str, old: str, most: int) -> list[int]:
    """Return the numbers of the lines at which `old` stands, at most `most` of them."""
    found: list[int] = []
    position = text.find(old)
    while position >= 0 and len(found) < most:
        found.append(text.count("\n", 0, position) + 1)
        position = text.find(old, position + 1)
    return found
