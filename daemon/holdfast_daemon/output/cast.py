"""Lines of an asciicast, version 3: a header, then one for each event; sans I/O."""

from __future__ import annotations

import json
from enum import StrEnum

from holdfast_daemon.output.text import clean

_TITLE_CHARS = 200
_DIGITS = 6
_OFFSET = "# offset "


class Code(StrEnum):
    """What an event is."""

    OUTPUT = "o"
    INPUT = "i"
    RESIZE = "r"
    MARKER = "m"
    EXIT = "x"


class Timeline:
    """Turns moments into the pauses between events, without errors that add up."""

    def __init__(self, begun: float) -> None:
        self._at = begun

    def event(self, at: float, code: Code, data: str) -> str:
        """Return the line of what happened at `at`; never before the last one."""
        pause = round(max(0.0, at - self._at), _DIGITS)
        self._at += pause
        text = json.dumps(data, ensure_ascii=False)
        return f'[{pause:.{_DIGITS}f}, "{code}", {text}]\n'


def header(cols: int, rows: int, *, timestamp: float, title: str) -> str:
    """Return the first line."""
    record = {
        "version": 3,
        "term": {"cols": cols, "rows": rows, "type": "xterm-256color"},
        "timestamp": int(timestamp),
        "title": label(title),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def label(text: str) -> str:
    """Return `text` as one short line without controls."""
    line = " ".join(clean(text.encode(errors="replace")).split())
    return line if len(line) <= _TITLE_CHARS else line[: _TITLE_CHARS - 1] + "…"


def offset_line(offset: int) -> str:
    """Return a comment that says how much of the output is in the lines before."""
    return f"{_OFFSET}{offset}\n"


def last_offset(text: str) -> int:
    """Return what the last such comment in `text` says; 0 when there is none."""
    for line in reversed(text.split("\n")):
        number = line.removeprefix(_OFFSET)
        if number != line and number.isascii() and number.isdigit():
            return int(number)
    return 0


def unfinished(text: str) -> str:
    """Return the line without an end that the output in these lines leaves."""
    held: list[str] = []
    for line in reversed(text.split("\n")):
        _, newline, rest = _output(line).rpartition("\n")
        held.append(rest)
        if newline:
            break
    return "".join(reversed(held))


def _output(line: str) -> str:
    """Return what the event of a line shows; nothing where there is none."""
    try:
        event = json.loads(line)
    except ValueError:
        return ""
    match event:
        case [_, Code.OUTPUT, str() as data]:
            return data
        case _:
            return ""
