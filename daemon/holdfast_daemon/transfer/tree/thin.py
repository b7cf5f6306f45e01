"""Reads one file out of the tar that GNU tar makes of it with its holes. Sans-I/O.

The form is that of `--format=gnu --sparse`: a map of where there is data, and then the
data alone. What is wrong in it is refused: a host may send anything.
"""

from __future__ import annotations

_BLOCK = 512
# In the header, and in each block behind it that goes on with the map.
_FIRST, _FIRST_COUNT, _MORE = 386, 4, 482
_REAL, _REAL_END = 483, 495
_NEXT_COUNT, _NEXT_MORE = 21, 504
_PAIR = 24
_NUMBER = 12
_MOST = 100_000
_TYPE = 156
_SIZE, _SIZE_END = 124, 136
_BASE256 = 0x80


class BrokenError(ValueError):
    """It is no such tar."""


class Reader:
    """Feed it; it tells pieces with their offsets, which rise.

    Attributes:
        size: How long the file is; None: that is not known yet.
        whole: All of its data has come.
    """

    def __init__(self, wanted: int = 1 << 62) -> None:
        """Read a file that should be `wanted` bytes long."""
        self._wanted = wanted
        self._data = bytearray()
        self._map: list[tuple[int, int]] = []
        self._skip = 0
        self._more = False
        self._turn = 0
        self._done = 0
        self.size: int | None = None
        self.whole = False

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take what came; return what of the file is in it.

        Raises:
            BrokenError: It can't be read.
        """
        self._data += data
        found: list[tuple[int, bytes]] = []
        while not self.whole:
            if self.size is None or self._more:
                if not self._head():
                    break
            elif self._turn == len(self._map):
                self.whole = True
            else:
                piece = self._piece()
                if piece is None:
                    break
                found += piece
        return found

    def _head(self) -> bool:
        """Read one block of what comes before the data; False: more must come."""
        skipped = min(self._skip, len(self._data))
        del self._data[:skipped]
        self._skip -= skipped
        if self._skip or len(self._data) < _BLOCK:
            return False
        block = bytes(self._data[:_BLOCK])
        del self._data[:_BLOCK]
        if self._more:
            self._pairs(block, 0, _NEXT_COUNT)
            self._more = bool(block[_NEXT_MORE] not in (0, ord("0")))
            return True
        kind = block[_TYPE : _TYPE + 1]
        size = _number(block[_SIZE:_SIZE_END])
        if kind == b"S":
            self._pairs(block, _FIRST, _FIRST_COUNT)
            self._more = bool(block[_MORE] not in (0, ord("0")))
            self.size = _number(block[_REAL:_REAL_END])
        elif kind in (b"0", b"\0"):
            self._map = [(0, size)] if size else []
            self.size = size
        elif kind in (b"L", b"K", b"x", b"g"):  # a long name, and the like
            self._skip = -(-size // _BLOCK) * _BLOCK
        else:
            raise BrokenError("it is no regular file")
        return True

    def _pairs(self, block: bytes, at: int, count: int) -> None:
        for _ in range(count):
            pair = block[at : at + _PAIR]
            at += _PAIR
            if not pair.strip(b"\0 "):
                return
            offset, length = _number(pair[:_NUMBER]), _number(pair[_NUMBER:])
            last = sum(self._map[-1]) if self._map else 0
            if offset < last or len(self._map) >= _MOST:
                raise BrokenError("its map is in no order")
            if offset + length > self._wanted:
                raise BrokenError("its map tells of more than there is")
            if length:  # the last may only tell where the file ends
                self._map.append((offset, length))

    def _piece(self) -> list[tuple[int, bytes]] | None:
        """Return what is there of the data whose turn it is."""
        if not self._data:
            return None
        offset, length = self._map[self._turn]
        taken = bytes(self._data[: length - self._done])
        del self._data[: len(taken)]
        at = offset + self._done
        self._done += len(taken)
        if self._done == length:
            self._turn, self._done = self._turn + 1, 0
        return [(at, taken)]


def _number(field: bytes) -> int:
    """Return a number of a header: octal, or large in base 256."""
    if field and field[0] & _BASE256:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.strip(b"\0 ") or b"0", 8)
    except ValueError:
        raise BrokenError("a number in it is none") from None
