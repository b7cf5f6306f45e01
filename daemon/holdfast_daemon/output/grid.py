"""The cells of a terminal: pyte's screen, mended where real programs need more.

It adds the alternate screen, line graphics, wide characters that are cut in two, a
bound to what one cell and the cursor's memory take; and lets nothing fail that a
program may print.
"""

from __future__ import annotations

import copy
import unicodedata
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import pyte
from pyte import modes
from pyte.charsets import LAT1_MAP, VT100_MAP
from pyte.screens import Char, Margins, Savepoint, wcwidth

if TYPE_CHECKING:
    from pyte.screens import StaticDefaultDict

    Rows = dict[int, StaticDefaultDict[int, Char]]

_COMBINING_CHARS = 8
_TAB = 8
# The line graphics of a VT100; pyte's table has arrows in place of some signs too.
_GRAPHICS = {code: VT100_MAP[code] for code in range(0x5F, 0x7F)}


class _Away(NamedTuple):
    """The screen that is not shown, while the alternate one is."""

    buffer: Rows
    savepoints: list[Savepoint]


@lru_cache(maxsize=4096)
def _cell(attributes: Char, data: str) -> Char:
    return attributes._replace(data=data)


class Grid(pyte.Screen):
    """Cells, cursor, margins and modes."""

    def __init__(self, columns: int, lines: int) -> None:
        self._away: _Away | None = None
        self._last = ""
        super().__init__(columns, lines)

    @property
    def alternate(self) -> bool:
        """Whether the screen of a full-screen program is shown."""
        return self._away is not None

    def rows(self) -> list[str]:
        """Return every line without blanks at its end."""
        return [self._row(y) for y in range(self.lines)]

    def _row(self, y: int) -> str:
        line = self.buffer.get(y)
        if not line:
            return ""
        cells = (line[x].data for x in range(self.columns))
        return "".join(cells).rstrip(" ")

    def reset(self) -> None:
        """Do what RIS says."""
        self._away = None
        self._last = ""
        super().reset()
        # As in xterm: a stray SO, as binaries have it, turns no letters into lines.
        self.g1_charset = LAT1_MAP
        self.savepoints = []

    def soft_reset(self) -> None:
        """Do what DECSTR says."""
        self.mode = {modes.DECAWM, modes.DECTCEM}
        self.cursor.hidden = False
        self.margins = None
        self.savepoints = []
        self.define_charset("B", "(")
        self.define_charset("B", ")")
        self.shift_in()
        self.select_graphic_rendition(0)

    # -- printing

    def draw(self, data: str) -> None:
        """Print characters, none of them a control."""
        if (self.g1_charset if self.charset else self.g0_charset) == VT100_MAP:
            data = data.translate(_GRAPHICS)
        for char in data:
            width = wcwidth(char)
            if width > 0:
                self._put(char, width)
            elif unicodedata.category(char) in {"Mn", "Me", "Mc"}:
                self._combine(char)
        self.dirty.add(self.cursor.y)

    def repeat(self, count: int) -> None:
        """Print the last character again; programs do that within a line."""
        if self._last:
            width = wcwidth(self._last)
            for _ in range(min(count, self.columns)):
                self._put(self._last, width)

    def _put(self, char: str, width: int) -> None:
        if width > self.columns:
            return
        cursor = self.cursor
        if cursor.x + width > self.columns:
            if modes.DECAWM in self.mode:
                cursor.x = 0
                self.index()
            else:
                cursor.x = self.columns - width
        if modes.IRM in self.mode:
            self.insert_characters(width)
        line = self.buffer[cursor.y]
        self._cut(line, cursor.x)
        self._cut(line, cursor.x + width)
        line[cursor.x] = _cell(cursor.attrs, char)
        if width > 1:
            line[cursor.x + 1] = _cell(cursor.attrs, "")
        cursor.x += width
        self._last = char

    def _cut(self, line: StaticDefaultDict[int, Char], x: int) -> None:
        """Blank both halves of a wide character whose second half is at `x`."""
        if 0 < x < self.columns and not line[x].data:
            for half in (x - 1, x):
                line[half] = _cell(line[half], " ")

    def _combine(self, char: str) -> None:
        x = self.cursor.x - 1
        line = self.buffer[self.cursor.y]
        if x > 0 and not line[x].data:
            x -= 1
        if x < 0:
            return
        last = line[x]
        if len(last.data) <= _COMBINING_CHARS:
            joined = unicodedata.normalize("NFC", last.data + char)
            line[x] = last._replace(data=joined)

    def define_charset(self, code: str, mode: str) -> None:
        """Choose line graphics or plain text for G0, which is `(`, or G1."""
        table = VT100_MAP if code == "0" else LAT1_MAP
        if mode == "(":
            self.g0_charset = table
        else:
            self.g1_charset = table

    # -- lines and erasing

    def index(self) -> None:
        """Go down one line; at the lower margin what is above goes up."""
        _, bottom = self._margins
        if self.cursor.y == bottom:
            self.scroll_up(1)
        elif self.cursor.y < self.lines - 1:
            self.cursor.y += 1

    def reverse_index(self) -> None:
        """Go up one line; at the upper margin what is below goes down."""
        top, _ = self._margins
        if self.cursor.y == top:
            self.scroll_down(1)
        elif self.cursor.y > 0:
            self.cursor.y -= 1

    def linefeed(self) -> None:
        """Do what LF says."""
        self.index()
        if modes.LNM in self.mode:
            self.cursor.x = 0

    def scroll_up(self, count: int) -> None:
        """Move what is within the margins up."""
        self._shift(self._margins.top, count)

    def scroll_down(self, count: int) -> None:
        """Move what is within the margins down."""
        self._shift(self._margins.top, -count)

    def insert_lines(self, count: int | None = None) -> None:
        """Do what IL says."""
        if self._margins.top <= self.cursor.y <= self._margins.bottom:
            self._shift(self.cursor.y, -(count or 1))
            self.cursor.x = 0

    def delete_lines(self, count: int | None = None) -> None:
        """Do what DL says."""
        if self._margins.top <= self.cursor.y <= self._margins.bottom:
            self._shift(self.cursor.y, count or 1)
            self.cursor.x = 0

    def _shift(self, top: int, count: int) -> None:
        """Move the lines from `top` to the lower margin up, or down below zero."""
        bottom = self._margins.bottom
        self.dirty.update(range(top, bottom + 1))
        moved = {
            y: self.buffer.pop(y) for y in range(top, bottom + 1) if y in self.buffer
        }
        for y, line in moved.items():
            if top <= y - count <= bottom:
                self.buffer[y - count] = line

    def insert_characters(self, count: int | None = None) -> None:
        """Do what ICH says."""
        line, x = self.buffer[self.cursor.y], self.cursor.x
        self._cut(line, x)
        self._move(line, x, min(count or 1, self.columns))

    def delete_characters(self, count: int | None = None) -> None:
        """Do what DCH says."""
        line, x = self.buffer[self.cursor.y], self.cursor.x
        count = min(count or 1, self.columns)
        self._cut(line, x)
        self._cut(line, x + count)
        self._move(line, x, -count)

    def _move(self, line: StaticDefaultDict[int, Char], start: int, count: int) -> None:
        """Move the cells from `start` on right, or left below zero."""
        self.dirty.add(self.cursor.y)
        moved = {x: line.pop(x) for x in range(start, self.columns) if x in line}
        for x, cell in moved.items():
            if start <= x + count < self.columns:
                line[x + count] = cell
        self._trim(line)

    def _trim(self, line: StaticDefaultDict[int, Char]) -> None:
        """Blank a wide character whose second half fell off the end."""
        edge = self.columns - 1
        if edge in line and line[edge].data and wcwidth(line[edge].data[0]) > 1:
            line[edge] = _cell(line[edge], " ")

    def erase_characters(self, count: int | None = None) -> None:
        """Do what ECH says."""
        self._erase(self.cursor.x, min(self.cursor.x + (count or 1), self.columns))

    def erase_in_line(self, how: int = 0, private: bool = False) -> None:  # noqa: ARG002
        """Do what EL says."""
        if how == 0:
            self._erase(self.cursor.x, self.columns)
        elif how == 1:
            self._erase(0, min(self.cursor.x + 1, self.columns))
        elif how == 2:  # noqa: PLR2004 - as it is printed
            self._erase(0, self.columns)

    def _erase(self, start: int, end: int) -> None:
        line = self.buffer[self.cursor.y]
        self._cut(line, start)
        self._cut(line, end)
        blank = self._blank
        for x in range(start, end):
            if blank is None:
                line.pop(x, None)
            else:
                line[x] = blank
        self.dirty.add(self.cursor.y)

    @property
    def _blank(self) -> Char | None:
        """What is left where something is erased; nothing without a background."""
        background = self.cursor.attrs.bg
        if background == "default":
            return None
        return Char(" ", bg=background)

    def erase_in_display(self, how: int = 0, *_: object, **__: object) -> None:
        """Do what ED says; the lines above the screen are not kept anyway."""
        if how not in (0, 1, 2):
            return
        here = self.cursor.y
        if how == 2:  # noqa: PLR2004 - as it is printed
            rows = range(self.lines)
        else:
            rows = range(here + 1, self.lines) if how == 0 else range(here)
            self.erase_in_line(how)
        self.dirty.update(rows)
        for y in rows:
            self.buffer.pop(y, None)
            if (blank := self._blank) is not None:
                self.buffer[y].update(dict.fromkeys(range(self.columns), blank))

    def alignment_display(self) -> None:
        """Do what DECALN says: an E in every cell, by the row and not by the cell."""
        row = dict.fromkeys(range(self.columns), _cell(self.default_char, "E"))
        for y in range(self.lines):
            self.buffer[y].update(row)
        self.dirty.update(range(self.lines))

    # -- the cursor

    @property
    def _margins(self) -> Margins:
        return self.margins or Margins(0, self.lines - 1)

    def set_margins(self, top: int | None = None, bottom: int | None = None) -> None:
        """Do what DECSTBM says."""
        upper = max((top or 1) - 1, 0)
        lower = min(bottom or self.lines, self.lines) - 1
        if lower <= upper:
            return
        whole = (upper, lower) == (0, self.lines - 1)
        self.margins = None if whole else Margins(upper, lower)
        self.cursor_position()

    def cursor_up(self, count: int | None = None) -> None:
        """Go up, but not over the upper margin."""
        top = self._margins.top if self.cursor.y >= self._margins.top else 0
        self.cursor.y = max(self.cursor.y - (count or 1), top)

    def cursor_down(self, count: int | None = None) -> None:
        """Go down, but not over the lower margin."""
        bottom = self._margins.bottom
        if self.cursor.y > bottom:
            bottom = self.lines - 1
        self.cursor.y = min(self.cursor.y + (count or 1), bottom)

    def cursor_to_line(self, line: int | None = None) -> None:
        """Go to a line and stay in the column."""
        self._go(line or 1, self.cursor.x)

    def cursor_position(
        self, line: int | None = None, column: int | None = None
    ) -> None:
        """Go to a line and a column, counted from 1."""
        self._go(line or 1, (column or 1) - 1)

    def _go(self, line: int, x: int) -> None:
        top, bottom = 0, self.lines - 1
        if modes.DECOM in self.mode:
            top, bottom = self._margins
        self.cursor.y = min(max(top + line - 1, top), bottom)
        self.cursor.x = min(x, self.columns - 1)

    def tab_back(self, count: int) -> None:
        """Go to the tab stop before."""
        for _ in range(min(count, self.columns)):
            stops = [stop for stop in self.tabstops if stop < self.cursor.x]
            self.cursor.x = max(stops, default=0)

    def save_cursor(self) -> None:
        """Remember the cursor; there is one place for it."""
        self.savepoints = []
        super().save_cursor()

    def restore_cursor(self) -> None:
        """Put the cursor back; it stays remembered."""
        if not self.savepoints:
            self.cursor_position()
            return
        saved = self.savepoints[-1]
        self.g0_charset, self.g1_charset = saved.g0_charset, saved.g1_charset
        self.charset = saved.charset
        self._switch(modes.DECOM, on=saved.origin)
        self._switch(modes.DECAWM, on=saved.wrap)
        hidden = self.cursor.hidden
        self.cursor = copy.copy(saved.cursor)
        self.cursor.hidden = hidden
        self.cursor.y = min(self.cursor.y, self.lines - 1)
        self.cursor.x = min(self.cursor.x, self.columns)

    def _switch(self, mode: int, *, on: bool) -> None:
        (self.mode.add if on else self.mode.discard)(mode)

    # -- the whole

    def show_alternate(self, *, on: bool) -> None:
        """Change to the alternate screen, which is empty, or back."""
        if on == self.alternate:
            return
        self.dirty.update(range(self.lines))
        if self._away is None:
            self._away = _Away(self.buffer.copy(), self.savepoints)
            self.savepoints = []
            self.buffer.clear()
        else:
            away, self._away = self._away, None
            self.buffer.clear()
            self.buffer.update(away.buffer)
            self.savepoints = away.savepoints

    def resize(self, lines: int | None = None, columns: int | None = None) -> None:
        """Take another size; with fewer lines the cursor's one stays on the screen."""
        lines, columns = lines or self.lines, columns or self.columns
        if (lines, columns) == (self.lines, self.columns):
            return
        gone = max(0, self.cursor.y - (lines - 1))
        if self._away is not None:
            self._away = self._away._replace(buffer=dict(self._away.buffer))
            self._fit(self._away.buffer, lines, columns, self._gone_away(lines))
        self._fit(self.buffer, lines, columns, gone)
        self.cursor.y -= gone
        self.cursor.x = min(self.cursor.x, columns - 1)
        self.lines, self.columns = lines, columns
        for line in self.buffer.values():
            self._trim(line)
        self.margins = None
        self.tabstops = set(range(_TAB, columns, _TAB))
        self.dirty = set(range(lines))

    def _gone_away(self, lines: int) -> int:
        saved = self._away.savepoints if self._away else []
        return max(0, saved[-1].cursor.y - (lines - 1)) if saved else 0

    def _fit(self, rows: Rows, lines: int, columns: int, gone: int) -> None:
        kept = {y - gone: line for y, line in rows.items() if gone <= y < gone + lines}
        rows.clear()
        rows.update(kept)
        for line in rows.values():
            for x in [x for x in line if x >= columns]:
                del line[x]
