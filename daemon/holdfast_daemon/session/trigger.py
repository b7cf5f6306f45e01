"""The short line that starts a command in a shell, taken out of what is shown. Pure.

The terminal's own bytes stay as they are: who reads them raw, or looks at the terminal
itself, sees the line.
"""

from __future__ import annotations

import re
from functools import lru_cache

# A line editor may break it anywhere.
_GAP = r"\n?"


def _broken(text: str) -> str:
    return _GAP.join(map(re.escape, text))


@lru_cache(maxsize=64)
def _line(ident: str) -> re.Pattern[str]:
    kept = _broken(f"/kept/{ident}/r")
    held = _broken("/holdfast-") + rf"(?:{_GAP}[0-9a-f]){{16}}"
    words = [
        _broken(". '/"),
        rf"[^']{{0,400}}?(?:{kept}|{held})",
        _broken("'/"),
        "[a-z]",
    ]
    return re.compile(" ?" + _GAP.join(words))


def without(text: str, ident: str) -> str:
    """Leave out the lines that start commands in session `ident`, prompts and all."""
    parts: list[str] = []
    place = 0
    for found in _line(ident).finditer(text) if ident else ():
        # by hand: a pattern that begins with the prompt looks at a long line again and
        # again
        begin = text.rfind("\n", place, found.start()) + 1
        parts.append(text[place : max(begin, place)])
        place = found.end() + text.startswith("\n", found.end())
    return "".join((*parts, text[place:]))


def blank(rows: tuple[str, ...], ident: str) -> tuple[str, ...]:
    """Return the rows of a screen with a prompt only where a command was started."""
    joined = "\n".join(rows)
    shown = _line(ident).sub(lambda found: "\n" * found[0].count("\n"), joined)
    return tuple(row.rstrip() for row in shown.split("\n"))
