"""Text in UTF-16, as Windows programs print it, told from bytes that only look so."""

from __future__ import annotations

import pytest

from holdfast_daemon.output.charset import guess
from holdfast_daemon.output.text import clean, is_binary

TEXT = "Windows Subsystem for Linux\r\nläuft … größer\r\n"


@pytest.mark.parametrize("name", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_utf_16_is_read(name: str, mark: str) -> None:
    """Issue 3, non-POSIX: with and without its mark."""
    data = (mark + TEXT).encode(name)
    assert guess(data) == name
    assert not is_binary(data)
    assert clean(data) == TEXT.replace("\r\n", "\n")


def test_a_piece_that_starts_within_a_character_is_read() -> None:
    """Issue 3, non-POSIX: the tail of a long output."""
    assert clean(TEXT.encode("utf-16-le")[1:]).startswith("indows Subsystem")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a\0",
        b"plain text\n",
        b"".join(b"%d\0" % digit for digit in range(10)),
        b"/a b\0/c\0/longer name\0",
        b"\0" * 64,
        bytes(range(256)),
        "größer\n".encode(),
        b"\x7fELF\x02\x01\x01" + b"\0" * 9 + b"\x03\0>\0\x01\0\0\0",
    ],
)
def test_anything_else_is_not(data: bytes) -> None:
    """EX-07: words that end with a NUL, and binary data, stay what they are."""
    assert guess(data) == "utf-8"
