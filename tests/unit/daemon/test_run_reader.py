"""The trailers of commands in kept shells: found at whatever bytes they are cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.wrapper import RunReader, StreamReader, Trailer

NONCE = "0123456789abcdef"
HEADER = b"motd\n\x1efrom:ab:7\n"


def trailer(told: str, nonce: str = NONCE) -> bytes:
    return f"\x1e{nonce}:{told}:{nonce}\x1e\n".encode()


@given(
    st.binary(max_size=60),
    st.lists(st.integers(0, 200), max_size=8),
    st.sampled_from(["/", "/a b", "/new\nline", "/colon:s", "/\x1e0123456789abcde"]),
)
def test_cut_anywhere(printed: bytes, cuts: list[int], cwd: str) -> None:
    """Every byte before the trailer is handed on once, and none of it."""
    whole = HEADER + printed + trailer(f"run 3:{cwd}") + b"a background job"
    reader = StreamReader("ab", NONCE)
    out = b""
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    for begin, end in pairwise(places):
        out += reader.feed(whole[begin:end])
    assert out == printed
    assert reader.trailer == Trailer(exit_code=3, cwd=cwd)
    assert reader.offset == 7 + len(printed)


def test_what_only_looks_like_one() -> None:
    """Another's trailer, and half of this one, are output."""
    reader = StreamReader("ab", NONCE)
    said = trailer("run 0:/", "f" * 16) + trailer("run 0:/")[:12] + b"x\x1e"
    assert reader.feed(b"\x1efrom:ab:0\n" + said) == said[:-1]
    assert reader.trailer is None
    assert reader.feed(b"y") == b"\x1ey"


def test_both_streams_end_it() -> None:
    """It is over when all of both streams has come."""
    reader = RunReader("ab", NONCE)
    reader.out.feed(HEADER + trailer("run 1:/tmp"))
    assert reader.begun
    assert reader.done is None
    reader.err.feed(HEADER + b"err" + trailer("run 1:"))
    assert reader.done == Trailer(exit_code=1, cwd="/tmp")


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("run ²:/", Trailer(cwd="/")),
        ("run 99999999999:/", Trailer(cwd="/")),
        ("run " + 5000 * "9" + ":/", Trailer(cwd="/")),
        ("exit 3:", Trailer(exit_code=3, shell_ended=True)),
        ("signal KILL:", Trailer(signal="KILL", shell_ended=True)),
        ("run x:/", Trailer(cwd="/")),
    ],
)
def test_ends_are_not_made_up(told: str, expected: Trailer) -> None:
    """A shell's end is told apart, and what is no number is no code."""
    reader = StreamReader("ab", NONCE)
    reader.feed(HEADER + trailer(told))
    assert reader.trailer == expected


@pytest.mark.parametrize(
    ("program", "family"),
    [
        ("/bin/bash", "bash"), ("-zsh", "zsh"), ("/usr/bin/fish", "fish"),
        ("/bin/dash", "sh"), ("ash", "sh"), ("/bin/sh", "sh"),
        ("/bin/tcsh", ""), ("/bin/rbash", ""), ("", ""),
    ],
)  # fmt: skip
def test_families(program: str, family: wrapper.Family) -> None:
    """Shells by their program; what can't frame a command has no words."""
    assert wrapper.family(program) == family
    assert (wrapper.words(family) is None) == (family == "")
