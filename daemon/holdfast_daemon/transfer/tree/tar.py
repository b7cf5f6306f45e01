"""Many files as one stream: tar, as every system reads and writes it. Sans-I/O.

Names are bytes, of any length and content. Only what a copy needs is written and
understood: files, directories, and the extensions of GNU and POSIX for long names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
_NAME = 100
_OCTAL_SIZE = 8**11
_LONG = b"././@LongLink"
_FILE, _LINK, _DIRECTORY, _LONG_NAME, _LONG_LINK = b"0", b"1", b"5", b"L", b"K"
_PAX = (b"x", b"g")
_HEAD_BYTES = 1024 * 1024
END = bytes(2 * BLOCK)


class BrokenTar(Exception):  # noqa: N818  a state first, an error second
    """The stream is no tar that we understand."""


def header(name: bytes, size: int, mode: int, modified: int) -> bytes:
    """Return what stands before a file's content; a name that ends in / has none."""
    before = b""
    if len(name) > _NAME:
        long = name + b"\0"
        before = _block(_LONG, len(long), 0o644, 0, _LONG_NAME) + long + fill(len(long))
    kind = _DIRECTORY if name.endswith(b"/") else _FILE
    return before + _block(name[:_NAME], size, mode, modified, kind)


def fill(size: int) -> bytes:
    """Return what stands behind so much content."""
    return bytes(-size % BLOCK)


def _block(name: bytes, size: int, mode: int, modified: int, kind: bytes) -> bytes:
    told = b"%011o\0" % size
    if size >= _OCTAL_SIZE:
        told = b"\x80" + size.to_bytes(11, "big")
    fields = (
        name.ljust(_NAME, b"\0"),
        b"%07o\0" % (mode & 0o7777),
        b"0000000\0",
        b"0000000\0",
        told,
        b"%011o\0" % min(max(modified, 0), _OCTAL_SIZE - 1),
        b" " * 8,
        kind,
        bytes(100),
        b"ustar\x0000",
    )
    data = b"".join(fields).ljust(BLOCK, b"\0")
    return data[:148] + b"%06o\0 " % sum(data) + data[156:]


@dataclass(frozen=True, slots=True)
class Member:
    """One file of the stream.

    Attributes:
        linked: It is another name of a file before it, and its content is there.
    """

    name: bytes
    size: int
    mode: int
    modified: int
    regular: bool
    linked: bool = False


class Reader:
    """Takes a stream apart; several archives may follow each other in it."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._left = 0
        self._pad = 0
        self._extra: bytes = b""
        self._kept = bytearray()
        self._name: bytes | None = None
        self._size: int | None = None

    def feed(self, data: bytes) -> Iterator[Member | bytes]:
        """Yield members, each before its content.

        Raises:
            BrokenTar: That is no tar.
        """
        self._data += data
        at = 0
        have = len(self._data)
        while at < have:
            if self._left:
                piece = bytes(self._data[at : at + self._left])
                at += len(piece)
                self._left -= len(piece)
                if self._extra:
                    self._kept += piece
                    if not self._left:
                        self._understand()
                else:
                    yield piece
                continue
            if self._pad:
                step = min(self._pad, have - at)
                at += step
                self._pad -= step
                continue
            if have - at < BLOCK:
                break
            block = bytes(self._data[at : at + BLOCK])
            at += BLOCK
            member = self._head(block)
            if member is not None:
                yield member
        del self._data[:at]

    @property
    def whole(self) -> bool:
        """Nothing is missing from what was begun."""
        return not (self._left or self._pad or self._data or self._extra)

    def _head(self, block: bytes) -> Member | None:
        if not any(block):
            return None
        _check(block)
        size = _number(block[124:136])
        kind = block[156:157]
        if kind in (_LONG_NAME, _LONG_LINK, *_PAX):
            if size > _HEAD_BYTES:
                raise BrokenTar("a name is too long")
            self._extra, self._left, self._pad = kind, size, -size % BLOCK
            self._kept.clear()
            if not size:
                self._extra = b""
            return None
        name, told = self._name, self._size
        self._name = self._size = None
        if name is None:
            name = block[:_NAME].partition(b"\0")[0]
            prefix = block[345:500].partition(b"\0")[0]
            if prefix and block[257:263] == b"ustar\0":
                name = prefix + b"/" + name
        size = size if told is None else told
        regular = kind in (_FILE, b"\0", b"7")
        self._left = size if regular else 0
        self._pad = -self._left % BLOCK
        mode, modified = _number(block[100:108]), _number(block[136:148])
        return Member(name, self._left, mode, modified, regular, kind == _LINK)

    def _understand(self) -> None:
        kind, self._extra = self._extra, b""
        data = bytes(self._kept)
        if kind == _LONG_NAME:
            self._name = data.partition(b"\0")[0]
        elif kind == b"x":
            self._records(data)

    def _records(self, data: bytes) -> None:
        while data:
            told, blank, _ = data.partition(b" ")
            length = int(told) if told.isdigit() and len(told) < 8 else 0  # noqa: PLR2004
            record = data[len(told) + 1 : length - 1]
            if not blank or length <= len(told) + 1 or length > len(data):
                raise BrokenTar("an extended header can't be read")
            key, _, value = record.partition(b"=")
            if key == b"path":
                self._name = value
            elif key == b"size" and value.isdigit():
                self._size = int(value)
            data = data[length:]


def _check(block: bytes) -> None:
    told = block[148:156].strip(b" \0")
    try:
        wanted = int(told, 8)
    except ValueError:
        raise BrokenTar("a header has no sum") from None
    if sum(block) - sum(block[148:156]) + 8 * 32 != wanted:
        raise BrokenTar("a header's sum is wrong")


def _number(field: bytes) -> int:
    if field[:1] and field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError:
        raise BrokenTar("a number can't be read") from None
