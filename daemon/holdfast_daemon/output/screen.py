"""What a person would see now: a terminal's screen from its bytes; sans I/O.

Also what the terminal would answer to the questions that programs put to it, for when
nobody's terminal is there. Nothing that the program printed ever comes back in an
answer: no title, no clipboard.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyte import modes

from holdfast_daemon.output.answers import (
    ALTERNATE,
    KEPT_MODES,
    PRIVATE,
    answer_to_sequence,
    answer_to_string,
)
from holdfast_daemon.output.grid import Grid
from holdfast_daemon.output.redraw import redraw
from holdfast_daemon.output.sequence import Parser

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST_COLS = 1000
LARGEST_ROWS = 500

# Nobody asks for so much at once in earnest.
_ANSWER_BYTES = 4096
_WHOLE = 2
_KEYS_MODE = 1 << PRIVATE
_PASTE_MODE = 2004 << PRIVATE


@dataclass(frozen=True, slots=True)
class Picture:
    """The screen at one moment.

    Attributes:
        lines: One for each row, without blanks at their ends.
        row: The cursor's, from 1.
        column: The cursor's, from 1.
        cursor: The cursor is shown.
        alternate: A full-screen program has the screen.
        application_keys: Arrows are `ESC O A`, not `ESC [ A`.
        bracketed_paste: What is pasted is told by `ESC [ 200 ~` and `ESC [ 201 ~`.
        partial: Output came faster than it could be drawn; older parts may be missing.
    """

    lines: tuple[str, ...]
    cols: int
    row: int
    column: int
    cursor: bool
    alternate: bool
    application_keys: bool
    bracketed_paste: bool
    partial: bool

    @property
    def rows(self) -> int:
        """How many lines the screen has."""
        return len(self.lines)

    @property
    def text(self) -> str:
        """The lines down to the last one that is not blank or has the cursor."""
        used = max(
            (number for number, line in enumerate(self.lines, 1) if line), default=0
        )
        return "\n".join(self.lines[: max(used, self.row)])


class Screen:
    """A terminal without a person; takes bytes in any pieces."""

    def __init__(self, cols: int, rows: int) -> None:
        self._grid = Grid(_fit(cols, LARGEST_COLS), _fit(rows, LARGEST_ROWS))
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._parser = Parser(self)
        self._answers = b""
        self._partial = False
        grid = self._grid
        self._escapes: dict[str, Callable[[], None]] = {
            "7": grid.save_cursor,
            "8": grid.restore_cursor,
            "D": grid.index,
            "E": self._next_line,
            "H": grid.set_tab_stop,
            "M": grid.reverse_index,
            "Z": self._identify,
            "c": self._reset,
        }
        self._counted: dict[str, Callable[[int], None]] = {
            "@": grid.insert_characters,
            "A": grid.cursor_up,
            "B": grid.cursor_down,
            "C": grid.cursor_forward,
            "D": grid.cursor_back,
            "E": grid.cursor_down1,
            "F": grid.cursor_up1,
            "G": grid.cursor_to_column,
            "I": self._tabs,
            "L": grid.insert_lines,
            "M": grid.delete_lines,
            "P": grid.delete_characters,
            "S": grid.scroll_up,
            "T": grid.scroll_down,
            "X": grid.erase_characters,
            "Z": grid.tab_back,
            "`": grid.cursor_to_column,
            "a": grid.cursor_forward,
            "b": grid.repeat,
            "d": grid.cursor_to_line,
            "e": grid.cursor_down,
        }

    @property
    def cols(self) -> int:
        """Columns."""
        return self._grid.columns

    @property
    def rows(self) -> int:
        """Lines."""
        return self._grid.lines

    def feed(self, data: bytes) -> None:
        """Show what a program printed; costs time, about a second for a megabyte."""
        self._parser.feed(self._decoder.decode(data))

    def skip(self, lasting: bytes, *, exact: bool) -> None:
        """Go on after output that is not drawn: see `output/flood.py`."""
        self._decoder.reset()
        self._parser = Parser(self)
        grid = self._grid
        whole = grid.margins is None and modes.DECAWM in grid.mode
        self.feed(lasting)
        self._partial = self._partial or not (exact and whole)

    def resize(self, cols: int, rows: int) -> None:
        """Take another size."""
        self._grid.resize(_fit(rows, LARGEST_ROWS), _fit(cols, LARGEST_COLS))

    def picture(self) -> Picture:
        """Return what is shown now."""
        grid = self._grid
        return Picture(
            lines=tuple(grid.rows()),
            cols=grid.columns,
            row=grid.cursor.y + 1,
            column=min(grid.cursor.x, grid.columns - 1) + 1,
            cursor=not grid.cursor.hidden,
            alternate=grid.alternate,
            application_keys=_KEYS_MODE in grid.mode,
            bracketed_paste=_PASTE_MODE in grid.mode,
            partial=self._partial,
        )

    def redraw(self) -> bytes:
        """Return bytes that make a cleared terminal show the same."""
        return redraw(self._grid, alternate=self._grid.alternate)

    def take_answers(self) -> bytes:
        """Return what the terminal answers to what was fed, once."""
        answers, self._answers = self._answers, b""
        return answers

    def _answer(self, text: str) -> None:
        data = text.encode("ascii")
        if len(self._answers) + len(data) <= _ANSWER_BYTES:
            self._answers += data

    # -- what the parser hands on

    def text(self, text: str) -> None:
        """Print characters."""
        self._grid.draw(text)

    def control(self, char: str) -> None:
        """Do what a control says."""
        grid = self._grid
        match char:
            case "\n" | "\v" | "\f":
                grid.linefeed()
            case "\r":
                grid.carriage_return()
            case "\b":
                grid.backspace()
            case "\t":
                grid.tab()
            case "\x0e":
                grid.shift_out()
            case "\x0f":
                grid.shift_in()
            case _:
                # A bell, or nothing that shows; ENQ must not be answered.
                return

    def escape(self, intermediates: str, final: str) -> None:
        """Do what a short escape says."""
        if not intermediates and final in self._escapes:
            self._escapes[final]()
        elif (intermediates, final) == ("#", "8"):
            self._grid.alignment_display()
        elif intermediates in ("(", ")"):
            self._grid.define_charset(final, intermediates)

    def _next_line(self) -> None:
        self._grid.carriage_return()
        self._grid.index()

    def _reset(self) -> None:
        self._grid.reset()
        self._partial = False

    def csi(
        self, prefix: str, params: list[int], intermediates: str, final: str
    ) -> None:
        """Do what a control sequence says."""
        match prefix + intermediates, final:
            case "", _:
                self._plain(final, params)
            case "?", "h" | "l":
                self._private(params, on=final == "h")
            case "?", "J" | "K":
                self._plain(final, params)
            case "!", "p":
                self._grid.soft_reset()
            case _:
                self._ask(prefix + intermediates, final, max(params[0], 0))

    def _plain(self, final: str, params: list[int]) -> None:
        grid = self._grid
        first = max(params[0], 0)
        second = max(params[1], 0) if len(params) > 1 else 0
        if final in self._counted:
            self._counted[final](max(first, 1))
        elif final in "Hf":
            grid.cursor_position(first, second)
        elif final == "J":
            grid.erase_in_display(first)
            self._partial = self._partial and first != _WHOLE
        elif final == "K":
            grid.erase_in_line(first)
        elif final == "m":
            grid.select_graphic_rendition(*(min(max(p, 0), 255) for p in params))
        elif final == "r":
            grid.set_margins(first, second)
        elif final in "hl":
            self._public(params, on=final == "h")
        elif final == "g":
            grid.clear_tab_stop(first)
        elif final in "su":
            (grid.save_cursor if final == "s" else grid.restore_cursor)()
        else:
            self._ask("", final, first)

    def _public(self, params: list[int], *, on: bool) -> None:
        for mode in {modes.IRM, modes.LNM}.intersection(params):
            (self._grid.mode.add if on else self._grid.mode.discard)(mode)

    def _private(self, params: list[int], *, on: bool) -> None:
        grid = self._grid
        for mode in params:
            if mode in ALTERNATE:
                self._change_screen(mode, on=on)
            elif mode == 1048:  # noqa: PLR2004 - xterm's number
                (grid.save_cursor if on else grid.restore_cursor)()
            elif mode in KEPT_MODES:
                (grid.set_mode if on else grid.reset_mode)(mode, private=True)

    def _change_screen(self, mode: int, *, on: bool) -> None:
        grid = self._grid
        if on == grid.alternate:
            return
        keeps_cursor = mode == 1049  # noqa: PLR2004 - xterm's number
        if on and keeps_cursor:
            grid.save_cursor()
        grid.show_alternate(on=on)
        if on:
            self._partial = False
        elif keeps_cursor:
            grid.restore_cursor()

    def string(self, kind: str, body: str, end: str) -> None:
        """Answer what is asked in a control string; nothing else is done."""
        self._answer(answer_to_string(kind, body, end))

    def _ask(self, kind: str, final: str, first: int) -> None:
        self._answer(answer_to_sequence(self._grid, kind, final, first))

    def _identify(self) -> None:
        self._ask("", "c", 0)

    def _tabs(self, count: int) -> None:
        for _ in range(min(count, self._grid.columns)):
            self._grid.tab()


def _fit(size: int, largest: int) -> int:
    return min(max(size, 1), largest)
