from __future__ import annotations

import itertools
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.escapes import BROKEN, GONE
from fakes.programs import Program
from holdfast_daemon.output.text import Cleaner, clean_terminal

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.output.screen import Picture

COLS = 20


def in_pieces(data: bytes, cuts: list[int], cols: int = COLS) -> str:
    cleaner = Cleaner(sniff=False, cols=cols)
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [cleaner.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    return "".join(parts) + cleaner.finish()


@pytest.mark.parametrize("sequence", [*GONE, *BROKEN], ids=lambda case: repr(case)[:40])
def test_no_sequence_reaches_the_text_of_a_session(sequence: bytes) -> None:
    """SE-22, NF-12: the corpus, whole and cut at every place."""
    data = b"a" + sequence + b"b\n"
    text = clean_terminal(data, COLS)
    assert not any(ord(char) < 32 and char not in "\n\t" for char in text)
    assert "\x7f" not in text
    assert not any("\x80" <= char <= "\x9f" for char in text)
    for cut in range(min(len(data), 300)):
        assert in_pieces(data, [cut]) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"plain\r\ntext\r\n", "plain\ntext\n"),
        (b"x" * 50 + b"\r\nnext", "x" * 50 + "\nnext"),
        # wrapped at a blank: no line of its own
        (b"x" * 19 + b" " + b"y" * 9 + b"\r\n", "x" * 19 + " " + "y" * 9 + "\n"),
        # how zsh puts its prompt on a row of its own, after a line without an end
        (b"a\tb\x1b[7m%\x1b[0m" + b" " * 19 + b"\r \r\r\x1b[J$ ls", "a\tb%\n$ ls"),
        # the same after a line with an end
        (b"a\r\n%" + b" " * 19 + b"\r \r\r\x1b[J$ ls", "a\n$ ls"),
        # how fish draws what is typed
        (b"box# \x1b[K\r\x1b[5Cls\r\x1b[7C\r\n", "box# ls\n"),
        (b"box# ls\x1b[2D\x1b[Klater\r\n", "box# later\n"),
        # a long line edited over two rows
        (b"$ " + b"y" * 18 + b"zz\x1b[A\r$ Y\r\n\r\n", "$ Y" + "y" * 17 + "zz\n"),
        (b"abc\b\b\x1b[PX\r\n", "aX\n"),
        (b"abcd\x1b[2D\x1b[2@--\r\n", "ab--cd\n"),
        (b"a\x1b[3Cb\r\n", "a   b\n"),
        (b"50%\r100%\x1b[K\r\n", "100%\n"),
        (b"\x1b[H\x1b[2Jone\x1b[5;1Htwo", "one\ntwo"),
        ("日本語\x1b[4D\x1b[K!\r\n".encode(), "日!\n"),
        (b"\x1b[99999999C!\r\n", " " * 19 + "!\n"),
    ],
)
def test_the_text_of_a_session_is_what_was_shown(data: bytes, text: str) -> None:
    """SE-22: shells move on the line and rely on where it wraps."""
    assert clean_terminal(data, COLS) == text
    assert in_pieces(data, list(range(len(data) + 1))) == text


MOVES = st.lists(
    st.one_of(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"\b", b"\t", b"text ", b"x" * 30]),
        st.tuples(st.integers(0, 30), st.sampled_from(b"ABCDGHJKPX@fd")).map(
            lambda case: b"\x1b[%d%c" % case
        ),
        st.sampled_from(["日本", "é", "e\u0301"]).map(str.encode),
        st.sampled_from(GONE),
        st.binary(max_size=4),
    ),
    max_size=15,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(MOVES, st.lists(st.integers(0, 1000), max_size=6))
def test_any_pieces_give_the_same_text(data: bytes, cuts: list[int]) -> None:
    """SE-22: never raises, never depends on how the bytes came."""
    text = clean_terminal(data, COLS)
    assert in_pieces(data, cuts) == text
    assert not any(ord(char) < 32 and char not in "\n\t" for char in text)


def test_a_line_without_end_is_given_out_in_time() -> None:
    """NF-12: an endless line takes no memory."""
    cleaner = Cleaner(sniff=False, cols=80)
    given_out = 0
    for count in range(1, 41):
        given_out += len(cleaner.feed(b"x" * 65_536))
        assert count * 65_536 - given_out <= 80 * 100
    assert len(cleaner.unfinished) <= 80 * 100


@pytest.mark.parametrize("line", ["é" * 500_000, "x" * 500_000 + "é"])
def test_a_long_line_takes_time_as_it_is_long(line: str) -> None:
    """NF-12: all that was left of it was copied for each of its letters."""
    cleaner = Cleaner(sniff=False, cols=80)
    begun = time.process_time()
    told = cleaner.feed(line.encode()) + cleaner.finish()
    assert time.process_time() - begun < 3
    assert told == line


def _prompt(picture: Picture) -> bool:
    return picture.text.rstrip()[-1:] in set("#$%>")


@pytest.mark.parametrize(
    "words",
    [("bash", "--norc"), ("zsh", "-f"), ("fish",), ("dash",), ("busybox", "ash")],
    ids=lambda words: words[0],
)
async def test_what_shells_print_is_read_as_it_stands(
    words: tuple[str, ...], tmp_path: Path
) -> None:
    """SE-22: prompt, echo and output without a newline, in every shell."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "TERM": "xterm-256color",
        "LC_ALL": "C.UTF-8",
    }
    with Program(*words, cols=120, rows=30).start(env, tmp_path) as one:
        # What is typed before the prompt is there would be echoed elsewhere.
        await one.shows(_prompt)
        for number in (1, 2):
            one.type(f'printf "no%s" end{number}\r')
            await one.prints(b"noend%d" % number)
            await one.shows(_prompt)
        one.type("echo " + "long" * 40 + "\r")
        await one.prints(b"long" * 40)
        await one.shows(_prompt)
        one.type("exit\r")
        await one.ended()
        text = clean_terminal(one.printed, 120)
    lines = text.split("\n")
    for number in (1, 2):
        assert any(line.startswith(f"noend{number}") for line in lines), text
        assert any(line.endswith(f'printf "no%s" end{number}') for line in lines), text
    assert "long" * 40 in lines
