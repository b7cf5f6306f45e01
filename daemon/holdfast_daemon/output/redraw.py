"""From an emulated screen to the bytes that draw it on a person's terminal.

Sans-I/O. Only what a screen shows and how it takes keys: no title, no bell, nothing
that a program could have smuggled past the emulator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyte import graphics
from pyte.screens import wcwidth

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyte.screens import Char, Screen

_RESET = "\x1b[0m"
# Private modes are kept shifted, so that they differ from the public ones.
_SHIFT = 5
_CURSOR_SHOWN = 25 << _SHIFT
# Modes that decide what keys send or what a paste looks like; a terminal must agree on
# them with the program that set them.
_KEY_MODES = (1, 2004, 1000, 1002, 1003, 1004, 1006)
_FLAGS = (
    ("bold", 1),
    ("italics", 3),
    ("underscore", 4),
    ("blink", 5),
    ("reverse", 7),
    ("strikethrough", 9),
)
_RGB_DIGITS = 6
_WIDE = 2


def _codes(
    plain: Mapping[int, str], bright: Mapping[int, str], first_bright: int
) -> dict[str, str]:
    """Return the code of each colour by its name."""
    found = {name: str(code) for code, name in plain.items()}
    # By place, not by name: one of the names is misspelt in some releases.
    names = [name for _, name in sorted(bright.items())]
    return found | {name: str(first_bright + i) for i, name in enumerate(names)}


_FOREGROUND = _codes(graphics.FG_ANSI, graphics.FG_AIXTERM, 90)
_BACKGROUND = _codes(graphics.BG_ANSI, graphics.BG_AIXTERM, 100)


def redraw(screen: Screen, *, alternate: bool = False) -> bytes:
    """Return what makes a terminal show `screen`.

    A shell's lines are written below what the terminal shows already, as a shell would
    write them. What a full-screen program shows is put where that program put it.

    Args:
        screen: The emulated screen; it is not changed.
        alternate: A full-screen program has the screen: it is drawn on the terminal's
            alternate one, so that its end brings the person's own lines back.
    """
    placed = alternate or screen.margins is not None
    parts = [*(_placed(screen, alternate=alternate) if placed else _written(screen))]
    parts += [
        _RESET,
        _style(screen.cursor.attrs),
        "\x1b[?25h" if _CURSOR_SHOWN in screen.mode else "\x1b[?25l",
    ]
    parts += [f"\x1b[?{m}h" for m in _KEY_MODES if (m << _SHIFT) in screen.mode]
    return "".join(parts).encode(errors="replace")


def _placed(screen: Screen, *, alternate: bool) -> Iterator[str]:
    """Draw every row at its place."""
    if alternate:
        yield "\x1b[?1049h"
    yield _RESET + "\x1b[r\x1b[H\x1b[2J"
    for row in range(screen.lines):
        if line := "".join(_line(screen, row)):
            yield f"\x1b[{row + 1};1H{line}"
    if screen.margins is not None:
        yield f"\x1b[{screen.margins.top + 1};{screen.margins.bottom + 1}r"
    yield f"\x1b[{screen.cursor.y + 1};{_column(screen) + 1}H"


def _written(screen: Screen) -> Iterator[str]:
    """Write the rows one below the other, from where the terminal's cursor is."""
    rows = ["".join(_line(screen, row)) for row in range(screen.lines)]
    last = max((n for n, row in enumerate(rows) if row), default=0)
    last = max(last, screen.cursor.y)
    yield _RESET + "\r"
    yield "\r\n".join(rows[: last + 1])
    if up := last - screen.cursor.y:
        yield f"\x1b[{up}A"
    yield "\r"
    if right := _column(screen):
        yield f"\x1b[{right}C"


def _column(screen: Screen) -> int:
    return min(screen.cursor.x, screen.columns - 1)


def _line(screen: Screen, row: int) -> Iterator[str]:
    """Yield one row, without the blanks at its end."""
    cells: Mapping[int, Char] = screen.buffer.get(row, {})
    blank = screen.default_char
    width = max(
        (x for x, cell in cells.items() if x < screen.columns and cell != blank),
        default=-1,
    )
    style = ""
    taken = False  # by the second half of a wide character
    for x in range(width + 1):
        cell = cells.get(x, blank)
        if taken:
            taken = False
            continue
        wanted = _style(cell)
        if wanted != style:
            yield _RESET + wanted
            style = wanted
        taken = wcwidth(cell.data[:1]) == _WIDE
        if taken and cells.get(x + 1, blank).data:
            # Its second half was written over.
            yield " "
            taken = False
        else:
            yield cell.data or " "
    if style:
        yield _RESET


def _style(cell: Char) -> str:
    codes = [str(code) for name, code in _FLAGS if getattr(cell, name)]
    codes += _colour(cell.fg, _FOREGROUND, "38")
    codes += _colour(cell.bg, _BACKGROUND, "48")
    return f"\x1b[{';'.join(codes)}m" if codes else ""


def _colour(name: str, known: Mapping[str, str], extended: str) -> list[str]:
    if name == "default":
        return []
    if name in known:
        return [known[name]]
    if len(name) != _RGB_DIGITS:
        return []
    try:
        red, green, blue = bytes.fromhex(name)
    except ValueError:
        return []
    return [f"{extended};2;{red};{green};{blue}"]
