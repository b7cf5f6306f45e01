"""What draws a screen, read back by a terminal: it shows the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyte.screens import wcwidth

from holdfast_daemon.output.redraw import redraw

if TYPE_CHECKING:
    from collections.abc import Iterator

COLS, ROWS = 20, 6


def emulated(data: bytes) -> pyte.Screen:
    screen = pyte.Screen(COLS, ROWS)
    pyte.ByteStream(screen).feed(data)
    return screen


def cells(screen: pyte.Screen) -> list[list[object]]:
    """Return what is shown; half of a wide character shows nothing."""
    return [list(whole(screen, y)) for y in range(ROWS)]


def whole(screen: pyte.Screen, y: int) -> Iterator[object]:
    row, second = screen.buffer[y], False
    for x in range(COLS):
        cell = row[x]
        wide = wcwidth(cell.data[:1]) == 2 and not second
        torn = wide and (x + 1 == COLS or row[x + 1].data)
        orphan = not cell.data and not second
        yield cell._replace(data=" ") if torn or orphan else cell
        second = wide and not torn


def check_same(screen: pyte.Screen) -> None:
    again = emulated(redraw(screen))
    assert cells(again) == cells(screen)
    assert again.cursor.y == screen.cursor.y
    assert again.cursor.x == min(screen.cursor.x, COLS - 1)
    assert again.cursor.attrs == screen.cursor.attrs
    assert ((25 << 5) in again.mode) == ((25 << 5) in screen.mode)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"plain\r\ntwo",
        b"\x1b[31;1mred\x1b[0m and \x1b[48;5;200mbg\x1b[0m",
        b"\x1b[38;2;1;2;3mrgb\x1b[7mreverse\x1b[4;3;9mall",
        b"\x1b[95mbright\x1b[105mback",
        "wide 漢字 e\u0301 ü".encode(),
        b"\x1b[?25lhidden",
        b"\x1b[2;4r\x1b[3;3Hin margins",
        b"full line of twenty!x",
        b"\x1b[44m\x1b[2Jblue all over",
    ],
)
def test_a_terminal_shows_what_the_screen_shows(data: bytes) -> None:
    """SE-20, NF-05: the screen as it stands is drawn on attach."""
    check_same(emulated(data))


@given(st.lists(st.sampled_from([
    b"a", b"\r\n", b"\x1b[31m", b"\x1b[0m", b"\x1b[2;2H", b"\x1b[K", b"\x1b[1L",
    b"\x1b[7m", "漢".encode(), b"\t", b"\x1b[46m", b"\x08", b"\x1b[1;97m", b"xyz" * 9,
]), max_size=30))  # fmt: skip
def test_whatever_was_drawn_is_drawn_again(parts: list[bytes]) -> None:
    check_same(emulated(b"".join(parts)))


def test_the_way_keys_are_read_is_told_and_the_alternate_screen() -> None:
    drawn = redraw(emulated(b"\x1b[?2004h\x1b[?1h"), alternate=True)
    assert drawn.startswith(b"\x1b[?1049h")
    assert b"\x1b[?2004h" in drawn
    assert b"\x1b[?1h" in drawn
    assert b"1049" not in redraw(emulated(b"x"))


def test_nothing_but_the_screen_is_drawn() -> None:
    drawn = redraw(emulated(b"\x1b]0;title\x07\x07\x1b]52;c;aGk=\x07x\x9b2J"))
    for bad in (b"\x1b]", b"\x07", b"title", b"aGk"):
        assert bad not in drawn
