"""Takes what an attached channel sends apart: a header, bytes, a trailer. Sans-I/O."""

from __future__ import annotations

from typing import NamedTuple

from holdfast_daemon.kept.standing import exit_code

_MARK = b"\x1e"
# a start-up file may say so much before the script begins
_NOISE = 64 * 1024
_LONGEST = 64


class Trailer(NamedTuple):
    """How the shell ended: one of both is set, or neither where nobody knows."""

    exit_code: int | None = None
    signal: str | None = None


class AttachReader:
    """Reads one attachment, byte exactly, however it is cut into chunks.

    Attributes:
        offset: The absolute offset behind what was handed on; None before the header.
        earliest: The first byte the host still has.
        trailer: The shell's end, once it was read; nothing behind it counts.
    """

    def __init__(self, header: str, nonce: str) -> None:
        self._header = _MARK + f"holdfast-from:{header}:".encode()
        self._trailer = _MARK + f"holdfast-end:{nonce}:".encode()
        self._held = b""
        self.offset: int | None = None
        self.earliest = 0
        self.trailer: Trailer | None = None

    def feed(self, data: bytes) -> bytes:
        """Take `data`; return what of the shell's output is known by it."""
        if self.trailer is not None:
            return b""
        data = self._held + data
        self._held = b""
        if self.offset is None:
            return self._begin(data)
        return self._cut(data, self.offset)

    def _begin(self, data: bytes) -> bytes:
        start = data.find(self._header)
        end = data.find(b"\n", start + len(self._header)) if start >= 0 else -1
        if end < 0:
            self._held = data[max(start, 0) :] if start >= 0 else data[-_NOISE:]
            return b""
        at, _, low = data[start + len(self._header) : end].partition(b":")
        self.earliest = int(low)
        return self._cut(data[end + 1 :], int(at))

    def _cut(self, data: bytes, offset: int) -> bytes:
        """Return `data`, which stands at `offset`, up to the trailer."""
        out = self._up_to_trailer(data)
        self.offset = offset + len(out)
        return out

    def _up_to_trailer(self, data: bytes) -> bytes:
        start = data.find(self._trailer)
        if start < 0:
            start = self._partial(data)
            self._held = data[start:]
            return data[:start]
        begin = start + len(self._trailer)
        end = data.find(b"\n", begin)
        if end < 0 and len(data) - begin < _LONGEST:
            self._held = data[start:]
            return data[:start]
        how, _, value = data[begin:end].decode("ascii", "replace").partition(" ")
        if how == "exit" and (code := exit_code(value)) is not None:
            self.trailer = Trailer(exit_code=code)
        elif how == "signal" and value:
            self.trailer = Trailer(signal=value)
        else:
            self.trailer = Trailer()
        return data[:start]

    def _partial(self, data: bytes) -> int:
        """Return where the beginning of a trailer stands at the end of `data`."""
        at = data.find(_MARK, max(0, len(data) - len(self._trailer)))
        while at >= 0:
            if self._trailer.startswith(data[at:]):
                return at
            at = data.find(_MARK, at + 1)
        return len(data)
