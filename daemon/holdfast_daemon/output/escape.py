r"""What is not text in a terminal's output: escapes, invisible characters; sans I/O.

A control string (OSC, DCS, APC, PM, SOS, a screen title) is removed whole only when it
ends properly: within 4096 characters, and on its line unless it is a DCS. Otherwise
only its introducer goes and the rest stays as text: nothing can hide what follows, and
text without an escape is harmless. No pattern runs over an escape, so the work grows
with the length only.
"""

from __future__ import annotations

import re

_STRING_CHARS = 4096
_PARAMETER_CHARS = 128
_INTERMEDIATE_CHARS = 8

_ST = r"(?:\x1b\\|\x9c)"
# Controls other than tab and CR break off a string of one line.
_LINE_BODY = rf"[^\x00-\x08\x0a-\x0c\x0e-\x1f\x7f-\x9f]{{0,{_STRING_CHARS}}}+"
_DCS_BODY = rf"[^\x18\x1a\x1b\x80-\x9f]{{0,{_STRING_CHARS}}}+"
_PARAMETERS = rf"[0-?]{{0,{_PARAMETER_CHARS}}}+[ -/]{{0,{_INTERMEDIATE_CHARS}}}+"
# Marks, overrides and isolates of direction, zero width, byte order, tags, variations:
# they hide or reorder what a reader sees. The joiners of scripts and emoji stay.
_INVISIBLE = (
    r"\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e0fff"
)
_CONTROL = r"\x01-\x07\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f-\x8f\x91-\x97\x99\x9a\x9c"
_INTRODUCER = r"\x1b\x90\x98\x9b\x9d-\x9f"

_START = re.compile(f"[{_CONTROL}{_INTRODUCER}{_INVISIBLE}]")
_SEQUENCE = re.compile(
    rf"""
    # OSC: ends with BEL as well; the Linux console's palette ends with nothing
      (?:\x1b\]|\x9d)(?:R|P[0-9A-Fa-f]{{7}}|{_LINE_BODY}(?:\x07|{_ST}))
    # what tmux passes on is told by its own escapes
    | (?:\x1bP|\x90)tmux;
    | (?:\x1bP|\x90){_DCS_BODY}{_ST}
    # SOS, PM, APC and the title of screen and tmux
    | (?:\x1b[X^_k]|[\x98\x9e\x9f]){_LINE_BODY}{_ST}
    # all that may be finished by what comes next
    | (?P<open>
        (?:\x1b[]X^_k]|[\x98\x9d-\x9f]){_LINE_BODY}\x1b?+\Z
      | (?:\x1bP|\x90){_DCS_BODY}\x1b?+\Z
      | (?:\x1b\[|\x9b){_PARAMETERS}\Z
      | \x1b[ -/]{{0,{_INTERMEDIATE_CHARS}}}+\Z
      )
    # CSI, or as much as there is of it
    | (?:\x1b\[|\x9b){_PARAMETERS}[@-~]?
    # the introducer alone of a string that has no end
    | \x1b[]PX^_k] | [{_INTRODUCER[4:]}]
    | \x1b[ -/]{{0,{_INTERMEDIATE_CHARS}}}+[0-~]?
    | [{_CONTROL}]+
    | [{_INVISIBLE}]+
    """,
    re.VERBOSE,
)
_TWO_CHARACTERS = re.compile(r"\x1b[]PX^_k]")


# Moves and edits of a line: what `output/rows.py` reads.
_MOVE = re.compile(r"(?:\x1b\[|\x9b)([0-9;]*[@A-DGHJKPXdf`])")


def strip(text: str, *, final: bool, moves: bool = False) -> tuple[str, str]:
    """Return `text` without sequences, and its end that may be the start of one.

    CR and BS stay: they matter to lines; with `moves` also what else moves the cursor
    or edits the line, as `ESC [`. With `final` nothing is kept back.
    """
    parts: list[str] = []
    place = 0
    while start := _START.search(text, place):
        parts.append(text[place : start.start()])
        match = _SEQUENCE.match(text, start.start())
        if match is None:
            place = start.end()
        elif match["open"] is None:
            if moves and (move := _MOVE.fullmatch(match[0])):
                parts.append(f"\x1b[{move[1]}")
            place = match.end()
        elif final:
            place = match.start() + _dead_length(match[0])
        else:
            return "".join(parts), match[0]
    parts.append(text[place:])
    return "".join(parts), ""


def _dead_length(sequence: str) -> int:
    """Return how much of an unfinished sequence goes at the very end."""
    if _TWO_CHARACTERS.match(sequence):
        return 2
    return 1 if sequence[0] in "\x90\x98\x9d\x9e\x9f" else len(sequence)
