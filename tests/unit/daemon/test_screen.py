from __future__ import annotations

import itertools
import time
import tracemalloc
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.escapes import BIDI, BROKEN, GONE, HIDDEN
from holdfast_daemon.output.screen import Picture, Screen

COLS, ROWS = 20, 6


def shown(data: bytes, cols: int = COLS, rows: int = ROWS) -> Picture:
    screen = Screen(cols, rows)
    screen.feed(data)
    return screen.picture()


def answers(data: bytes) -> bytes:
    screen = Screen(COLS, ROWS)
    screen.feed(data)
    return screen.take_answers()


def is_plain(line: str) -> bool:
    return not any(
        unicodedata.category(char) in {"Cc", "Cs"} or char in BIDI or char in HIDDEN
        for char in line
    )


@pytest.mark.parametrize("sequence", GONE, ids=repr)
def test_no_sequence_is_shown_or_lets_the_screen_fail(sequence: bytes) -> None:
    """SE-20, NF-12: the corpus; a cell holds what has a width, and nothing else."""
    whole = shown(b"a" + sequence + b"b")
    assert all(is_plain(line) for line in whole.lines)
    pieces = Screen(COLS, ROWS)
    for byte in b"a" + sequence + b"b":
        pieces.feed(bytes([byte]))
    assert pieces.picture() == whole


@pytest.mark.parametrize("sequence", BROKEN, ids=lambda case: repr(case)[:40])
def test_what_is_broken_ends_with_a_new_screen(sequence: bytes) -> None:
    """SE-20: whatever came before, the next program starts afresh."""
    picture = shown(sequence + b"\x18\x1b\\\x1bcfine")
    assert picture.lines[0] == "fine"
    assert not any(picture.lines[1:])


NASTY = st.lists(
    st.one_of(
        st.sampled_from([*GONE, *BROKEN]).map(lambda case: case[:60]),
        st.sampled_from([b"\x1b", b"\x1b[", b"\x1b]", b"\x9b", b"\x18", b"\x9c"]),
        st.sampled_from([b"\r", b"\n", b"\b", b"\t", b"\x0e", b"x" * 30, b"999999999"]),
        st.tuples(
            st.integers(0, 99_999),
            st.integers(0, 300),
            st.sampled_from(b"ABCDGHJKLMPX"),
        ).map(lambda case: b"\x1b[%d;%d%c" % case),
        st.sampled_from(["é€😀", "日本", "a\u0301\u0302"]).map(str.encode),
        st.binary(max_size=6),
    ),
    max_size=20,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(NASTY, st.lists(st.integers(0, 10_000), max_size=6))
def test_any_bytes_in_any_pieces_make_the_same_screen(
    data: bytes, cuts: list[int]
) -> None:
    """SE-20: never raises, never depends on how the bytes came."""
    whole = Screen(COLS, ROWS)
    whole.feed(data)
    pieces = Screen(COLS, ROWS)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        pieces.feed(data[start:end])
    picture = whole.picture()
    assert pieces.picture() == picture
    assert pieces.take_answers() == whole.take_answers()
    assert all(is_plain(line) for line in picture.lines)
    assert 1 <= picture.row <= ROWS
    assert 1 <= picture.column <= COLS


@settings(max_examples=100, deadline=None)
@given(NASTY, st.integers(1, 40), st.integers(1, 12))
def test_any_size_can_follow_any_bytes(data: bytes, cols: int, rows: int) -> None:
    """SE-20: resize."""
    screen = Screen(COLS, ROWS)
    screen.feed(data)
    screen.resize(cols, rows)
    screen.feed(data)
    picture = screen.picture()
    assert (picture.cols, picture.rows) == (cols, rows)
    assert picture.row <= rows
    assert picture.column <= cols
    screen.redraw()


@settings(max_examples=100, deadline=None)
@given(NASTY)
def test_a_redraw_shows_the_same(data: bytes) -> None:
    """SE-20: what a person sees who attaches in the middle."""
    screen = Screen(COLS, ROWS)
    screen.feed(data)
    drawn = shown(screen.redraw()).lines
    assert [unicodedata.normalize("NFC", line) for line in drawn] == [
        unicodedata.normalize("NFC", line) for line in screen.picture().lines
    ]


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"one\r\ntwo", ["one", "two"]),
        (b"x" * 25, ["x" * 20, "xxxxx"]),
        ("x" * 19 + "日本", ["x" * 19, "日本"]),
        ("日本語\x1b[1;2HX", [" X本語"]),
        ("日本語\x1b[1;3HX", ["日X 語"]),
        ("e\u0301 a\u0308", ["é ä"]),
        (b"\x1b(0lqk\x1b(B\r\nx", ["┌─┐", "x"]),
        (b"\x1b)0\x0eq+0\x0fq \x1b(0\xff\x1b(B", ["─+0q \ufffd"]),
        (b"\x0eq+0 \x1b)0q\x1b[!p\x0eq", ["q+0 ─q"]),
        (b"main\x1b[?1049hother", ["    other"]),
        (b"main\x1b[?1049hother\x1b[?1049l!", ["main!"]),
        (b"main\x1b[?47h\x1b[Hother\x1b[?47l", ["main"]),
        (b"ab\x1b[3b", ["abbbb"]),
        (b"1\r\n2\r\n3\x1b[2;1H\x1b[M", ["1", "3"]),
        (b"1\r\n2\x1b[1;1H\x1b[L", ["", "1", "2"]),
        (b"abcdef\x1b[1;3H\x1b[2P", ["abef"]),
        (b"abcdef\x1b[1;3H\x1b[2@", ["ab  cdef"]),
        (b"abcdef\x1b[1;3H\x1b[2X", ["ab  ef"]),
        (b"a\x1b[2;3r\x1b[3;1Hb\nc", ["a", "b", " c"]),
        (b"\x1b[2;4r\x1b[6;1H\x1b[9Ax", ["", "x"]),
        (b"\x1b#8\x1b[2J", ["", ""]),
        (b"keep\x1b[3J", ["keep"]),
        (b"\x1b#8\x1b[2;2H ", ["E" * 20, "E " + "E" * 18]),
        (b"\x1b]0;title\x07\x1b_app\x1b\\\x1bPq~~\x1b\\text", ["text"]),
    ],
)
def test_a_screen_is_what_a_terminal_shows(data: bytes | str, lines: list[str]) -> None:
    """SE-20: screen snapshot for full-screen programs."""
    picture = shown(data if isinstance(data, bytes) else data.encode())
    assert list(picture.lines[: len(lines)]) == lines


def test_a_picture_tells_where_the_cursor_is_and_what_keys_do() -> None:
    picture = shown(b"one\r\ntw\x1b[?25l\x1b[?1h\x1b[?2004h")
    assert (picture.row, picture.column, picture.cursor) == (2, 3, False)
    assert picture.application_keys
    assert picture.bracketed_paste
    assert picture.text == "one\ntw"
    assert not picture.alternate


def test_lines_below_stay_when_the_screen_gets_lower() -> None:
    screen = Screen(COLS, ROWS)
    screen.feed(b"\r\n".join(b"%d" % number for number in range(6)))
    screen.resize(COLS, 3)
    assert screen.picture().lines == ("3", "4", "5")
    assert screen.picture().row == 3


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (b"\x1b[c", b"\x1b[?1;2c"),
        (b"\x1b[0c", b"\x1b[?1;2c"),
        (b"\x1bZ", b"\x1b[?1;2c"),
        (b"\x1b[>c", b"\x1b[>0;10;1c"),
        (b"\x1b[5n", b"\x1b[0n"),
        (b"ab\r\ncd\x1b[6n", b"\x1b[2;3R"),
        (b"\x1b[?6n", b"\x1b[?1;1R"),
        (b"\x1b[18t", b"\x1b[8;6;20t"),
        (b"\x1b[?1049h\x1b[?1049$p", b"\x1b[?1049;1$y"),
        (b"\x1b[?2026$p", b"\x1b[?2026;0$y"),
        (b"\x1b]11;?\x07", b"\x1b]11;rgb:0000/0000/0000\x07"),
        (b"\x1bP+q544e\x1b\\", b"\x1bP0+r\x1b\\"),
        (b"\x1bP$qm\x1b\\", b"\x1bP0$r\x1b\\"),
        (b"\x1b[>q", b"\x1bP>|holdfast\x1b\\"),
        # Nothing that was printed comes back, and nothing of the person's.
        (b"\x1b]0;rm -rf /\x07\x1b[21t\x1b[20t", b""),
        (b"\x1b]52;c;?\x07", b""),
        (b"\x05", b""),
        (b"\x1b]4;1;?\x07\x1b]50;?\x07", b""),
    ],
)
def test_programs_get_the_answers_they_wait_for(question: bytes, answer: bytes) -> None:
    """SE-20: device queries while nobody's terminal is there to answer."""
    assert answers(question) == answer
    assert answers(b"".join(bytes([byte]) for byte in question)) == answer


def test_answers_are_given_once_and_have_an_end() -> None:
    screen = Screen(COLS, ROWS)
    screen.feed(b"\x1b[6n" * 100_000)
    assert len(screen.take_answers()) <= 4096
    assert screen.take_answers() == b""


@pytest.mark.parametrize("sequence", [b"\x1b#8", b"\x1b[9999b", b"\x1b[41m\x1b[2J"])
def test_a_piece_that_is_drawn_at_once_takes_no_time(sequence: bytes) -> None:
    """NF-12: one host's kilobyte held up all others for seconds, on a wide screen."""
    screen = Screen(200, 60)
    screen.feed(b"x")
    begun = time.process_time()
    screen.feed((sequence * 400)[:1024])
    assert time.process_time() - begun < 0.6


HOSTILE = [
    b"\x1b[" + b"9" * 100_000 + b"A",
    b"\x1b[" + b"1;" * 100_000 + b"m",
    b"\x1b[99999999b" * 20,
    b"x\x1b[9999b\x1b[9999@\x1b[9999L\x1b[9999P\x1b[9999X\x1b[9999M" * 300,
    b"\x1b]0;" + b"A" * 1_500_000,
    b"\x1bP" + b"A" * 1_500_000,
    b"\x1b7" * 50_000,
    b"\x1b[?%dh" % 7 * 25_000,
    b"a" + "\u0301".encode() * 200_000,
    b"\x1b[?1049h\x1b[?1049l" * 10_000,
    b"\x1bH" * 50_000,
    b"\x1b[9999I\x1b[9999Z" * 2000,
    b"".join(b"\x1b[?%dh\x1b[%dh" % (number, number) for number in range(9999)),
    b"\x1b[1;2r\x1b[9999S\x1b[9999T" * 3000,
]


@pytest.mark.parametrize("data", HOSTILE, ids=lambda case: repr(case[:20]))
def test_hostile_output_costs_no_more_than_its_length(data: bytes) -> None:
    """NF-12: huge numbers, endless strings, towers of accents."""
    screen = Screen(80, 24)
    screen.feed(b"x" * 80 * 24)
    tracemalloc.start()
    begun = time.process_time()
    for start in range(0, len(data), 65_536):
        screen.feed(data[start : start + 65_536])
    spent = time.process_time() - begun
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Ten times what it takes; quadratic work would take minutes.
    assert spent < 15
    # Less than any of the long ones, if it were kept.
    assert most < 1024 * 1024
    screen.feed(b"\x18\x1b\\\x1bcfine")
    assert screen.picture().text == "fine"
