"""What starts an agent's command is not shown to people; what others type is."""

from __future__ import annotations

import pytest

from holdfast_shim.cli.veil import Veil, drawn, without

KEPT = b" . '/home/me/.cache/holdfast/kept/sc5hk24mc/r'/c"
HELD = b" . '/tmp/holdfast-0123456789abcdef'/c"
OTHERS = [
    b"$ . '/etc/profile'\r\n",
    b"$ . '/home/me/kept/r'/cd\r\n",
    b"$ ls '/tmp/holdfast-0123456789abcdef'/c\r\n",
    b"a. b. '/c'/d\r\n",
]


class Clock:
    """Seconds as a test wants them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return them."""
        return self.now


@pytest.mark.parametrize("line", [KEPT, HELD])
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_its_line_is_taken_out_however_it_comes(line: bytes, size: int) -> None:
    """NF-05: in pieces of any size, in the midst of what others see."""
    clock = Clock()
    veil = Veil(clock)
    veil.began()
    data = b"\x1b[?2004h$ " + line + b"\r\n\x1b[?2004l\rout. . '\r\n$ "
    shown = b"".join(
        veil.feed(data[at : at + size]) for at in range(0, len(data), size)
    )
    veil.ended()
    shown += veil.rest()
    assert (
        shown.replace(b"$  ", b"$ ") == b"\x1b[?2004h$ \r\n\x1b[?2004l\rout. . '\r\n$ "
    )


@pytest.mark.parametrize("other", OTHERS)
def test_what_others_type_stays(other: bytes) -> None:
    """NF-05: also where it looks alike, and while a command runs."""
    assert without(other) == other
    veil = Veil(Clock())
    veil.began()
    assert veil.feed(other) + veil.rest() == other


def test_nothing_is_held_back_when_nothing_runs() -> None:
    """NF-05: the echo of what a person types comes at once."""
    clock = Clock()
    veil = Veil(clock)
    clock.now = 1.0
    veil.began()
    assert veil.feed(b"$ .") == b"$ "
    veil.ended()
    clock.now = 3.5
    assert veil.feed(b"") == b"."
    for letter in (b".", b" ", b"'", b"/"):
        assert veil.feed(letter) == letter


def test_a_line_editor_may_colour_and_repaint_it() -> None:
    """NF-05: as fish does: no letter of it is left."""
    place = b"'/tmp/holdfast-0123456789abcdef'"
    data = (
        b"\r\x1b[15C \r\x1b[16C. \r\x1b[18C" + place + b"/c\r\x1b[52C\x1b[36D\x1b[34m."
        b"\x1b[30m\x1b(B\x1b[m \x1b[33m" + place + b"\x1b[36m/c\r\x1b[52C\r\n"
    )
    assert b"holdfast" not in without(data)
    assert b"/c" not in without(data)


def test_a_drawing_keeps_its_rows() -> None:
    """NF-05: where the line went on from one row to the next."""
    rows = b"$  . '/tmp/hold\r\nfast-0123456789abcdef\r\n'/c\r\nout\r\n$ "
    assert drawn(rows) == b"$ \r\n\r\n\r\nout\r\n$ "
    assert drawn(rows.replace(b"hold", b"gold")) == rows.replace(b"hold", b"gold")
