"""What a terminal answers to the questions of programs; sans I/O.

Fixed words and numbers only. Nothing that was printed ever comes back: no title, no
clipboard, no name; else a file that is shown could type commands.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyte import modes

if TYPE_CHECKING:
    from holdfast_daemon.output.grid import Grid

# pyte keeps private modes shifted, so that they differ from the public ones.
PRIVATE = 5
ALTERNATE = (47, 1047, 1049)
# Modes that change what keys must be sent, or what a redraw must set again.
KEPT_MODES = frozenset(
    (1, 6, 7, 9, 25, 66, 1000, 1002, 1003, 1004, 1005, 1006, 1015, 2004)
)
# A VT100 with advanced video: everything here can do that.
_FIXED = {
    ("", "c", 0): "\x1b[?1;2c",
    (">", "c", 0): "\x1b[>0;10;1c",
    (">", "q", 0): "\x1bP>|holdfast\x1b\\",
    ("", "n", 5): "\x1b[0n",
    ("", "t", 11): "\x1b[1t",
}
_CELL_HEIGHT, _CELL_WIDTH = 16, 8
_COLOURS = {"10": "rgb:ffff/ffff/ffff", "11": "rgb:0000/0000/0000"}
_COLOUR_QUERY = re.compile(r"(1[01]);\?")
_SET, _NOT_SET, _UNKNOWN = 1, 2, 0


def answer_to_sequence(grid: Grid, kind: str, final: str, first: int) -> str:
    """Return the answer to CSI `kind first final`; empty where there is none."""
    if fixed := _FIXED.get((kind, final, first)):
        return fixed
    rows, cols = grid.lines, grid.columns
    sizes = {
        14: f"4;{rows * _CELL_HEIGHT};{cols * _CELL_WIDTH}",
        16: f"6;{_CELL_HEIGHT};{_CELL_WIDTH}",
        18: f"8;{rows};{cols}",
        19: f"9;{rows};{cols}",
    }
    if (kind, final) == ("", "t") and first in sizes:
        return f"\x1b[{sizes[first]}t"
    if kind in ("", "?") and (final, first) == ("n", 6):
        return f"\x1b[{kind}{_place(grid)}R"
    if (kind, final) == ("?$", "p"):
        return f"\x1b[?{first};{_mode(grid, first)}$y"
    return ""


def answer_to_string(kind: str, body: str, end: str) -> str:
    """Return the answer to a control string; empty where there is none."""
    if kind == "]" and (match := _COLOUR_QUERY.fullmatch(body)):
        return f"\x1b]{match[1]};{_COLOURS[match[1]]}{end}"
    if kind == "P" and body.startswith(("+q", "$q")):
        # "there is no such thing", so that nobody waits
        return f"\x1bP0{'+' if body[0] == '+' else '$'}r\x1b\\"
    return ""


def _place(grid: Grid) -> str:
    row = grid.cursor.y + 1
    if modes.DECOM in grid.mode and grid.margins is not None:
        row -= grid.margins.top
    return f"{row};{min(grid.cursor.x, grid.columns - 1) + 1}"


def _mode(grid: Grid, mode: int) -> int:
    if mode in ALTERNATE:
        return _SET if grid.alternate else _NOT_SET
    if mode in KEPT_MODES:
        return _SET if mode << PRIVATE in grid.mode else _NOT_SET
    return _UNKNOWN
