"""Terminal recordings in the asciicast form, versions 2 and 3. Sans-I/O."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_VERSIONS = (2, 3)
_FIELDS = 3
_LONGEST = 31_536_000.0


class CastError(ValueError):
    """It is no recording, or none that can be read."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a recording says of itself.

    Attributes:
        version: 2, where events tell their time, or 3, where they tell the pause.
        cols: Width of the terminal; 0: not told.
        rows: Its height.
    """

    version: int
    cols: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes:
        pause: Seconds since the one before.
        code: o: output, r: a new size, i: input, m: a marker, x: the end.
        data: What was printed, or the size as COLSxROWS.
    """

    pause: float
    code: str
    data: str


def header(line: str) -> Header:
    """Read the first line.

    Raises:
        CastError: It is not that of a recording.
    """
    told = _json(line)
    if not isinstance(told, dict):
        raise CastError("its first line is not a header")
    version = told.get("version")
    if version not in _VERSIONS:
        raise CastError(f"its version is {version!r}; 2 and 3 can be played")
    term = told.get("term") if version == _VERSIONS[1] else None
    place = term if isinstance(term, dict) else told
    cols = place.get("cols", place.get("width", 0))
    rows = place.get("rows", place.get("height", 0))
    if not (isinstance(cols, int) and isinstance(rows, int)):
        raise CastError("its header does not tell the size in numbers")
    return Header(version, cols, rows)


def events(found: Header, lines: Iterable[str]) -> Iterator[Event]:
    """Read the lines behind the first; a last one that is cut off is left out.

    Raises:
        CastError: A line is no event.
    """
    now = 0.0
    trouble = ""
    for number, line in enumerate(lines, 2):
        if trouble:
            raise CastError(trouble)
        if not line.strip() or line.startswith("#"):
            continue
        told = _json(line)
        if not _valid(told):
            # Where it is written still, the last line may not be whole.
            trouble = f"line {number} is no event"
            continue
        time, code, data = float(told[0]), str(told[1]), str(told[2])
        if found.version == _VERSIONS[0]:
            time, now = max(0.0, time - now), time
        yield Event(time, code, data)


def _valid(told: Any) -> bool:
    return (
        isinstance(told, list)
        and len(told) == _FIELDS
        and isinstance(told[0], (int, float))
        and 0 <= told[0] <= _LONGEST
        and isinstance(told[1], str)
        and isinstance(told[2], str)
    )


def _json(line: str) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None
