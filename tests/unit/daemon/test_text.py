from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakes.escapes import (
    BIDI,
    BROKEN,
    GONE,
    HIDDEN,
)
from holdfast_daemon.output.text import Cleaner, clean, is_binary, last_line


def is_safe(text: str) -> bool:
    """Whether no control but newline and tab is in it, and nothing that hides."""
    return not any(
        (unicodedata.category(character) in {"Cc", "Cs"} and character not in "\n\t")
        or character in BIDI
        or character in HIDDEN
        for character in text
    )


def in_pieces(data: bytes, cuts: list[int]) -> str:
    cleaner = Cleaner()
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    parts = [cleaner.feed(data[start:end]) for start, end in itertools.pairwise(edges)]
    return "".join(parts) + cleaner.finish()


def test_a_character_broken_off_at_a_border_is_no_half_of_one() -> None:
    """NF-12: what a piece begins, the next one may break."""
    cleaner = Cleaner(sniff=False)
    assert cleaner.feed(b"a\xc2") == ""
    assert cleaner.feed(b"b\n") == "a\ufffdb\n"


def test_the_corpus_is_large_enough() -> None:
    assert len({*GONE, *BROKEN}) >= 300


@pytest.mark.parametrize("sequence", GONE, ids=repr)
def test_a_sequence_vanishes_and_its_neighbours_stay(sequence: bytes) -> None:
    """NF-12, A5-27: no escape, control or hiding character reaches an answer."""
    assert clean(b"a" + sequence + b"b\n") == "ab\n"
    assert clean(sequence) == ""
    every = list(range(len(sequence) + 2))
    assert in_pieces(b"a" + sequence + b"b", every) == "ab"


@pytest.mark.parametrize("sequence", BROKEN, ids=lambda case: repr(case)[:40])
def test_a_broken_sequence_swallows_nothing_after_its_line(sequence: bytes) -> None:
    """NF-12: what is never ended can't hide the rest of the output."""
    text = clean(sequence + b"\nnext line\n" + b"x" * 9000 + b"\nlast line")
    assert is_safe(text)
    assert text.endswith("\nlast line")
    assert "x" * 9000 in text
    assert is_safe(clean(sequence))
    assert in_pieces(sequence + b"\nz", list(range(100))) == clean(sequence + b"\nz")


def test_a_string_that_is_never_ended_shows_what_it_would_have_hidden() -> None:
    assert clean(b"\x1b]0;rm -rf /\nok") == "0;rm -rf /\nok"
    assert clean(b"\x1b]0;" + b"a" * 4095 + b"\x07") == "0;" + "a" * 4095
    assert clean(b"\x1b]0;" + b"a" * 4094 + b"\x07") == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"one\r\ntwo\r\n", "one\ntwo\n"),
        (b"one\r\r\ntwo", "one\ntwo"),
        (b" 10%\r 50%\r100%\n", "100%\n"),
        (b" 10%\r 50%\r100%", "100%"),
        (b" 10%\r 50%\r", " 50%"),
        (b"\r\r\n", "\n"),
        (b"working |\b/\b-\bdone\n", "working done\n"),
        (b"abc\b \b\b \b\n", "a\n"),
        (b"\b\b\bx\n\by", "x\ny"),
        (b"N\bNA\bAM\bME\bE\n", "NAME\n"),
        (b"_\bu_\bn", "un"),
        (b"a\tb\n", "a\tb\n"),
        (b"caf\xc3\xa9 \xf0\x9f\x98\x80", "café 😀"),
        (b"bad \xff\xc3 end", "bad \ufffd\ufffd end"),
        (b"a\0b", "a␀b"),
        ("👩\u200d💻 क\u200cष".encode(), "👩\u200d💻 क\u200cष"),
        (b"", ""),
    ],
)
def test_lines_read_as_a_terminal_would_show_them(data: bytes, text: str) -> None:
    """NF-12: progress bars in their last state, backspaces applied, CR LF as LF."""
    assert clean(data) == text
    assert in_pieces(data, list(range(len(data) + 1))) == text


def test_binary_data_is_only_told() -> None:
    """NF-12: a stream that is mostly not text is not shown."""
    data = bytes(range(256)) * 100
    assert is_binary(data)
    assert clean(data) == "[binary data, 25600 bytes]"
    assert in_pieces(data, list(range(0, 5000, 7))) == "[binary data, 25600 bytes]"
    assert clean(b"\x7fELF\2\1\1" + bytes(57)) == "[binary data, 64 bytes]"
    assert not is_binary("日本語のテキスト\n".encode() * 100)
    assert not is_binary("日本語の".encode()[:-1])
    assert not is_binary(b"\x1b[31m\x1b[0m\r\n\a\b\f" * 50)
    assert not is_binary("Grüße aus Köln\n".encode("latin-1") * 50)


def test_a_line_without_end_is_given_out_in_blocks() -> None:
    """EX-12: cleaning 10 MiB without a newline holds no more than a block of it."""
    cleaner = Cleaner()
    shown = 0
    for count in range(1, 161):
        shown += len(cleaner.feed(b"x" * 65_536))
        assert count * 65_536 - shown <= 8192
    assert shown + len(cleaner.finish()) == 160 * 65_536


def test_the_last_line_is_short_and_never_blank() -> None:
    """EX-15: what progress notifications carry."""
    assert last_line(b"one\n  two \n\n \n") == "two"
    assert last_line(b"\x1b]0;title\x07") == ""
    assert last_line(bytes(512)) == ""
    assert len(last_line("é".encode() * 256)) == 200


# Bytes that meet in escapes far more often than by chance.
NASTY = st.lists(
    st.one_of(
        st.sampled_from([*GONE, *BROKEN]).map(lambda case: case[:60]),
        st.sampled_from(
            [b"\x1b", b"\x1b]", b"\x1bP", b"\x1b[", b"\\", b"\x07", b"\x9c", b"\n"]
        ),
        st.sampled_from([b"\r", b"\b", b"\r\n", b"\0", b"a" * 4095, b"b" * 8190]),
        st.sampled_from([b"1;2", b"text", b" ", "é€😀".encode(), b"\xff", b"tmux;"]),
        st.binary(max_size=8),
        st.text(max_size=8).map(lambda text: text.encode("utf-8", "replace")),
    ),
    max_size=30,
).map(b"".join)


@settings(max_examples=500, deadline=None)
@given(NASTY, st.lists(st.integers(min_value=0), max_size=12))
def test_pieces_give_what_the_whole_gives(data: bytes, cuts: list[int]) -> None:
    """NF-12: a chunk's edge in UTF-8, an escape or a line changes nothing."""
    assert in_pieces(data, cuts) == clean(data)


@settings(max_examples=500, deadline=None)
@given(NASTY)
def test_cleaned_text_is_safe_and_clean(data: bytes) -> None:
    """NF-12, A5-27: nothing forbidden in it, and cleaning again changes nothing."""
    text = clean(data)
    assert is_safe(text)
    assert clean(text.encode()) == text


@settings(max_examples=100, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Cf"])))
def test_plain_text_stays_as_it_is(text: str) -> None:
    kept = "".join(c for c in text if not 0xE0000 <= ord(c) <= 0xE0FFF)
    assert clean(kept.encode()) == kept
