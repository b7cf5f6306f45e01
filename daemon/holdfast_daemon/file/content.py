"""Bytes of a file as a model may see them: text, Latin-1, or neither. Sans-I/O."""

from __future__ import annotations

import base64
import codecs
from dataclasses import dataclass

UTF8, LATIN1, BASE64 = "utf-8", "latin-1", "base64"
# Control characters that texts do hold: bell to carriage return, and escape.
_TEXT_CONTROLS = frozenset(b"\a\b\t\n\v\f\r\x1b")
_BINARY = bytes(set(range(32)) - _TEXT_CONTROLS) + b"\x7f"
_MAGIC = (
    (b"\x7fELF", "ELF program"),
    (b"\x89PNG", "PNG image"),
    (b"\xff\xd8\xff", "JPEG image"),
    (b"GIF8", "GIF image"),
    (b"%PDF", "PDF document"),
    (b"PK\x03\x04", "ZIP archive"),
    (b"\x1f\x8b", "gzip data"),
    (b"BZh", "bzip2 data"),
    (b"\xfd7zXZ", "xz data"),
    (b"\x28\xb5\x2f\xfd", "zstd data"),
    (b"SQLite format 3", "SQLite database"),
    (codecs.BOM_UTF16_LE, "UTF-16 text"),
    (codecs.BOM_UTF16_BE, "UTF-16 text"),
)


def encoding_of(data: bytes, *, cut: bool = False) -> str:
    """Return how `data` is written; empty: it is no text.

    `cut`: it may end, or begin, in the middle of a character.
    """
    if b"\0" in data:
        return ""
    try:
        if cut:
            data = _whole(data)
        data.decode()
    except UnicodeDecodeError:
        return "" if data.translate(None, _BINARY) != data else LATIN1
    return UTF8


def kind_of(data: bytes) -> str:
    """Name what is no text."""
    return next((name for magic, name in _MAGIC if data.startswith(magic)), "binary")


def _whole(data: bytes) -> bytes:
    """Return `data` without a character that only begins at its end."""
    for length in range(1, min(4, len(data) + 1)):
        lead = data[-length]
        if lead & 0xC0 == 0x80:  # noqa: PLR2004 - a byte within a character
            continue
        size = 2 if lead >> 5 == 6 else 3 if lead >> 4 == 14 else 4  # noqa: PLR2004
        return data[:-length] if lead >= 0xC0 and size > length else data  # noqa: PLR2004
    return data


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a file, as it is shown.

    Attributes:
        text: What to show.
        encoding: How the file is written.
        first: Number of its first line, from 1; 0 of what is no text.
        last: Number of its last line.
        truncated: It was cut, and more of what was asked for follows.
        midline: It ends within its last line, which goes on.
    """

    text: str
    encoding: str
    first: int
    last: int
    truncated: bool
    midline: bool = False


def line_count(data: bytes) -> int:
    """Count lines; the last may lack its end."""
    return data.count(b"\n") + (bool(data) and not data.endswith(b"\n"))


def lines_of(data: bytes, first: int, last: int | None) -> bytes:
    """Return lines `first` to `last`, from 1, both included, with their ends."""
    start = 0
    for _ in range(first - 1):
        start = data.find(b"\n", start) + 1
        if not start:
            return b""
    if last is None:
        return data[start:]
    stop = start
    for _ in range(last - first + 1):
        stop = data.find(b"\n", stop) + 1
        if not stop:
            return data[start:]
    return data[start:stop]


def piece(data: bytes, first: int, size: int, *, more: bool = False) -> Piece | None:
    """Return what to show of the lines in `data`, of which the first is line `first`.

    It is cut after the last line that fits `size`, or else within the first one.
    `more`: `data` is itself cut off, by who sent it. None: it is no text.
    """
    truncated = more or len(data) > size
    encoding = encoding_of(data, cut=truncated)
    if not encoding:
        return None
    midline = False
    if truncated:
        data = data[:size]
        end = data.rfind(b"\n") + 1
        midline = not end
        data = data[:end] if end else data
        if midline and encoding == UTF8:
            data = _whole(data)
    last = first + line_count(data) - 1
    return Piece(
        data.decode(encoding), encoding, first, max(last, first - 1), truncated, midline
    )


def as_base64(data: bytes, size: int, *, more: bool = False) -> Piece:
    """Return what is no text, for who asked for it all the same."""
    told = base64.b64encode(data[:size]).decode("ascii")
    return Piece(told, BASE64, 0, 0, more or len(data) > size)
