"""Which keys leave a session, and what of a terminal is set back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_shim.cli.keys import KeysError, LeavingKeys, parse, told
from holdfast_shim.cli.modes import Modes
from holdfast_shim.cli.reports import typed


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("~.", b"~.", "Enter ~."),
        ("ctrl-],d", b"\x1dd", "Ctrl-] d"),
        ("ctrl-p,ctrl-q", b"\x10\x11", "Ctrl-p Ctrl-q"),
        ("Ctrl-B,d", b"\x02d", "Ctrl-b d"),
        ("ctrl-\\", b"\x1c", "Ctrl-\\"),
        ("none", b"", ""),
    ],
)
def test_keys_are_named_as_people_name_them(text: str, keys: bytes, said: str) -> None:
    assert parse(text) == keys
    assert told(keys) == said


@pytest.mark.parametrize(
    "text", ["", "ctrl-", "ctrl-1", "a b", "ctrl-],", "é", "ctrl-ab"]
)
def test_what_names_no_keys_is_refused(text: str) -> None:
    with pytest.raises(KeysError):
        parse(text)


@pytest.mark.parametrize(
    ("keys", "typed", "passed", "left"),
    [
        ("~.", b"~.", b"", True),
        ("~.", b"ls\r~.x", b"ls\r", True),
        ("~.", b"a~.", b"a~.", False),
        ("~.", b"~~.", b"~.", False),
        ("~.", b"\r~x", b"\r~x", False),
        ("~.", b"\r~\r~.", b"\r~\r", True),
        ("~.", b"\x1b[200~\n~.\x1b[201~", b"\x1b[200~\n~.\x1b[201~", False),
        ("~.", b"\x1b[200~x\x1b[201~\r~.", b"\x1b[200~x\x1b[201~\r", True),
        ("ctrl-],d", b"vi\x1dd", b"vi", True),
        ("ctrl-],d", b"\x1d\x1dd", b"\x1dd", False),
        ("a,b,c", b"abxababc", b"abxab", True),
        ("ctrl-],d", b"\x1dx", b"\x1dx", False),
        ("none", b"\r~.", b"\r~.", False),
    ],
)
def test_they_are_found_and_all_else_passes(
    keys: str, typed: bytes, passed: bytes, left: bool
) -> None:
    """NF-05: also when they come one by one."""
    whole = LeavingKeys(parse(keys))
    assert (whole.feed(typed), whole.left) == (passed, left)
    single = LeavingKeys(parse(keys))
    got = b"".join(single.feed(bytes((key,))) for key in typed)
    assert (got, single.left) == (passed, left)


@given(st.lists(st.binary(max_size=8)))
def test_nothing_is_lost_unless_one_leaves(pieces: list[bytes]) -> None:
    keys = LeavingKeys(b"\x1dd")
    got = b"".join(keys.feed(piece) for piece in pieces)
    whole = b"".join(pieces)
    whole = whole.replace(b"\x1d\x1d", b"\x1d")
    assert keys.left or got.replace(b"\x1d", b"") == whole.replace(b"\x1d", b"")


def test_what_a_program_set_is_set_back() -> None:
    modes = Modes()
    for piece in (
        b"x\x1b",
        b"[?104",
        b"9h\x1b[?25l\x1b[?1;2004h\x1b[?1000h",
        b"\x1b[?1l",
    ):
        modes.feed(piece)
    assert modes.alternate
    undone = modes.undo()
    for wanted in (b"\x1b[?1049l", b"\x1b[?25h", b"\x1b[?2004l", b"\x1b[?1000l"):
        assert wanted in undone
    assert b"\x1b[?1l" not in undone
    assert not modes.alternate
    assert b"?" not in modes.undo()


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (b"ls\r", b"ls\r"),
        (b"\x1b[A\x1bOP\x1b[3~\x1b[1;5C", b"\x1b[A\x1bOP\x1b[3~\x1b[1;5C"),
        (b"\x1b", b"\x1b"),
        (b"a\x1b[24;80Rb", b"ab"),
        (b"\x1b[?1;2c\x1b[>0;276;0c\x1b[?2004;1$y", b""),
        (b"\x1b]11;rgb:0/0/0\x07\x1bP1$r0 q\x1b\\", b""),
        (b"\x1b[I\x1b[O", b""),
        (b"\x1b[<0;5;5M", b"\x1b[<0;5;5M"),
    ],
)
def test_what_a_terminal_says_by_itself_is_known(sent: bytes, meant: bytes) -> None:
    """NF-05: of several terminals only that of the keyboard answers a program."""
    assert typed(sent) == meant
