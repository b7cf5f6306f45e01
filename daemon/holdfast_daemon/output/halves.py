"""A growing file in two halves: when the newer one is full, the older one goes.

Plain functions that block, for threads. Nothing stays torn: what could not be written
whole is taken away again.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_TAIL_BYTES = 64 * 1024
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Halves:
    """`NAME` is the newer half, `NAME` with `.1` before its suffix the older one."""

    def __init__(self, path: Path, *, limit_bytes: int) -> None:
        self.path = path
        self.older = path.with_suffix(f".1{path.suffix}")
        self._limit = limit_bytes // 2

    @property
    def size(self) -> int:
        """Bytes of both halves."""
        return _size(self.path) + _size(self.older)

    @property
    def empty(self) -> bool:
        """Whether the newer half is still to begin."""
        return _size(self.path) == 0

    def tail(self) -> str:
        """Return the last lines, after what was torn is taken away.

        Raises:
            OSError: It can't be read or mended.
        """
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return ""
        try:
            size = os.fstat(file).st_size
            start = max(0, size - _TAIL_BYTES)
            data = os.pread(file, _TAIL_BYTES, start)
            whole = data.rfind(b"\n") + 1
            if whole < len(data) and (whole or not start):
                os.ftruncate(file, start + whole)
            return data[:whole].decode(errors="replace")
        finally:
            os.close(file)

    def fits(self, size: int) -> bool:
        """Whether `size` more bytes fit in the newer half."""
        return _size(self.path) + size <= self._limit

    def turn(self) -> None:
        """Make the newer half the older one."""
        if self.path.exists():
            self.path.replace(self.older)

    def append(self, data: bytes) -> None:
        """Write `data` whole or not at all.

        Raises:
            OSError: It could not be written.
        """
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = os.open(self.path, _FLAGS, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise OSError(0, "not a regular file", str(self.path))
            before = os.fstat(file).st_size
            try:
                _write(file, data)
            except OSError:
                os.ftruncate(file, before)
                raise
        finally:
            os.close(file)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
