"""The line being written on a terminal of a known width; sans I/O.

What `output/line.py` does for output of commands, for what shells do while somebody
types: they go back and forth on the line, over the rows it takes, and rely on where it
wraps. Lines that are done are given out and never change.
"""

from __future__ import annotations

import re
from itertools import pairwise

from pyte.screens import wcwidth

_TAB = 8
# The unfinished line: more of it is given out, oldest first.
_MOST_ROWS = 100
_PARTS = re.compile(r"(\x1b\[[0-9;]*[@-~]|[\r\n\b\t])")
_SPECIAL = re.compile(r"[\r\b\t\x1b]")
_LARGEST = 9999


class _Row:
    """Cells of one row; the second half of a wide one is empty."""

    __slots__ = ("cells", "wrapped")

    def __init__(self, *, wrapped: bool = False) -> None:
        self.cells: list[str] = []
        # It goes on with the line of the row before.
        self.wrapped = wrapped

    def put(self, x: int, char: str, width: int) -> None:
        """Write at column `x`."""
        cells = self.cells
        cells += [" "] * (x - len(cells))
        # A half of a wide character does not stay alone.
        for edge in (x, x + width):
            if edge < len(cells) and not cells[edge]:
                cells[edge - 1 : edge + 1] = " ", " "
        cells[x : x + width] = [char, *[""] * (width - 1)]

    @property
    def text(self) -> str:
        return "".join(self.cells)


class Rows:
    """Turns text with moves into lines, whatever pieces it comes in.

    A move is `CSI numbers letter`; no other control may be in the text.
    """

    def __init__(self, cols: int) -> None:
        self.cols = max(cols, 2)
        self._rows = [_Row()]
        self._x = self._y = 0
        self._returned = False

    @property
    def unfinished(self) -> str:
        """The line without an end, as a terminal shows it now."""
        return self._joined(self._rows)

    def feed(self, text: str) -> str:
        """Return all that can't change any more."""
        plain = text.replace("\r\n", "\n")
        last = self._rows[-1]
        at_end = self._y == len(self._rows) - 1 and self._x == len(last.cells)
        if at_end and not self._returned and not _SPECIAL.search(plain):
            # Lines that are there whole read the same, wherever they wrap.
            lines, newline, text = plain.rpartition("\n")
            done = ""
            if newline:
                done = self.unfinished + lines + newline
                self._begin()
            return done + self._print(text)
        parts = _PARTS.split(text)
        return "".join(self._take(part) for part in parts if part)

    def _take(self, part: str) -> str:
        if part == "\n":
            return self._line_feed()
        if part == "\r":
            self._x, self._returned = 0, True
            return ""
        if self._returned:
            self._break()
        if part == "\b":
            self._x = max(0, min(self._x, self.cols - 1) - 1)
        elif part == "\t":
            self._tab()
        elif part[0] == "\x1b":
            return self._move(part[2:-1], part[-1])
        else:
            return self._print(part)
        return ""

    def finish(self) -> str:
        """Return the unfinished line."""
        text = self.unfinished
        self._begin()
        return text

    def _begin(self) -> None:
        self._rows = [_Row()]
        self._x = self._y = 0
        self._returned = False

    @staticmethod
    def _joined(rows: list[_Row]) -> str:
        parts = [rows[0].text]
        for before, row in pairwise(rows):
            if row.wrapped:
                # A wide character may have left the last column empty.
                parts.append(row.text)
            else:
                parts[-1] = parts[-1].rstrip(" ") if not before.wrapped else parts[-1]
                parts.append("\n" + row.text)
        return "".join(parts)

    def _print(self, text: str) -> str:
        done: list[str] = []
        place = 0
        while place < len(text):
            row = self._rows[self._y]
            # by its place: what is left of a long line is not copied for each row
            part = text[place : place + max(self.cols - self._x, 0)]
            if part and part.isascii() and self._x == len(row.cells):
                row.cells += part
                self._x += len(part)
                place += len(part)
            else:
                done.append(self._put(text[place]))
                place += 1
        return "".join(done)

    def _put(self, char: str) -> str:
        width = wcwidth(char)
        if width <= 0:
            self._combine(char)
            return ""
        done = self._down() if self._x + width > self.cols else ""
        self._rows[self._y].put(self._x, char, width)
        self._x += width
        return done

    def _combine(self, char: str) -> None:
        """Add a character without a width to the one before."""
        cells = self._rows[self._y].cells
        x = min(self._x, len(cells)) - 1
        while x > 0 and not cells[x]:
            x -= 1
        if x >= 0 and len(cells[x]) <= _TAB:
            cells[x] += char

    def _down(self) -> str:
        """Go on with the line on the next row."""
        self._x = 0
        self._y += 1
        if self._y == len(self._rows):
            self._rows.append(_Row(wrapped=True))
        if len(self._rows) <= _MOST_ROWS:
            return ""
        first = self._rows.pop(0)
        self._y -= 1
        end = "" if self._rows[0].wrapped else "\n"
        self._rows[0].wrapped = False
        return first.text + end

    def _line_feed(self) -> str:
        if self._y < len(self._rows) - 1:
            self._y += 1
            self._returned = False
            return ""
        text = self.unfinished
        self._begin()
        return text + "\n"

    def _break(self) -> None:
        """Do what a CR means that no LF follows."""
        self._returned = False
        row = self._rows[self._y]
        if row.wrapped and self._rows[self._y - 1].text.endswith(" "):
            # Blanks up to the edge, and back: that is how shells make sure that the
            # prompt begins on a row of its own.
            row.wrapped = False

    def _tab(self) -> None:
        row = self._rows[self._y]
        end = min(self._x - self._x % _TAB + _TAB, self.cols - 1)
        if self._x == len(row.cells) and end > self._x:
            row.cells += ["\t", *[""] * (end - self._x - 1)]
        self._x = max(self._x, end)

    def _move(self, params: str, final: str) -> str:
        first = params.partition(";")[0]
        count = min(int(first[:8]), _LARGEST) if first else 0
        steps = max(count, 1)
        if final == "C":
            self._x = min(self._x + steps, self.cols - 1)
        elif final == "D":
            self._x = max(min(self._x, self.cols - 1) - steps, 0)
        elif final in "G`":
            self._x = min(steps, self.cols) - 1
        elif final == "A":
            self._y = max(self._y - steps, 0)
        elif final == "B":
            self._y = min(self._y + steps, len(self._rows) - 1)
        elif final in "Hfd" or (final, count) == ("J", 2):
            # Somewhere else on the screen: another line, as far as text goes.
            return self._line_feed_if_any()
        else:
            self._edit(final, count, steps)
        return ""

    def _line_feed_if_any(self) -> str:
        text = self.unfinished
        self._begin()
        return text + "\n" if text.strip() else ""

    def _edit(self, final: str, count: int, steps: int) -> None:
        cells = self._rows[self._y].cells
        x = self._x
        if final in "JK" and count == 0:
            del cells[x:]
            if final == "J":
                del self._rows[self._y + 1 :]
        elif final == "K":
            end = len(cells) if count > 1 else min(x + 1, len(cells))
            cells[:end] = " " * end
            if count > 1:
                cells.clear()
        elif final == "P":
            del cells[x : x + steps]
        elif final == "X":
            end = min(x + steps, len(cells))
            cells[x:end] = " " * max(end - x, 0)
        elif final == "@" and x < len(cells):
            cells[x:x] = " " * min(steps, self.cols)
            del cells[self.cols :]
