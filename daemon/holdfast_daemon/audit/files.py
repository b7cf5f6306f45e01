"""The audit log's file names, and lines at either end of a file. Knows no chain."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CURRENT = "audit.jsonl"
HEAD = "audit.head"

_CHUNK = 256 * 1024
# As we write them: a copy that somebody gave a date to is none of ours.
_NUMBER = re.compile(r"[1-9][0-9]{0,3}")


def rotated(directory: Path, number: int) -> Path:
    """Return the path of a file: 0 is the current one, 1 the newest rotated."""
    return directory / (f"{CURRENT}.{number}" if number else CURRENT)


def numbers(directory: Path) -> list[int]:
    """Return the numbers of the rotated files that exist, newest first."""
    found: list[int] = []
    for name in os.listdir(directory):  # noqa: PTH208 - names are wanted, not paths
        stem, _, number = name.rpartition(".")
        if stem == CURRENT and _NUMBER.fullmatch(number):
            found.append(int(number))
    return sorted(found)


def size(path: Path) -> int:
    """Return how long the file at `path` is; 0: there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def lines(fd: int, size: int) -> Iterator[bytes]:
    """Yield the whole lines of the first `size` bytes, without newlines.

    What comes after the last newline is left out; `torn` tells how much that is.
    """
    rest = b""
    position = 0
    while position < size:
        data = os.pread(fd, min(_CHUNK, size - position), position)
        if not data:
            break
        position += len(data)
        *whole, rest = (rest + data).split(b"\n")
        yield from whole


def torn(fd: int, size: int) -> int:
    """Return how many bytes after the last newline the first `size` bytes end with."""
    return size - _line_end(fd, size)


def last_line(fd: int, size: int) -> bytes | None:
    """Return the last whole line within `size` bytes, without its newline."""
    end = _line_end(fd, size)
    if end == 0:
        return None
    start = _line_end(fd, end - 1)
    return os.pread(fd, end - 1 - start, start)


def first_line(path: Path) -> bytes | None:
    """Return the first whole line of the file at `path`."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return next(lines(fd, os.fstat(fd).st_size), None)
    finally:
        os.close(fd)


def _line_end(fd: int, size: int) -> int:
    """Return the position after the last newline within the first `size` bytes."""
    position = size
    while position > 0:
        start = max(0, position - _CHUNK)
        found = os.pread(fd, position - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        position = start
    return 0


def write_all(fd: int, data: bytes) -> None:
    """Write `data` at the end of `fd`, or raise OSError with part of it written."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def sync_directory(directory: Path) -> None:
    """Make renames in `directory` last."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
