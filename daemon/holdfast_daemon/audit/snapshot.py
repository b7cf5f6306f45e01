"""The audit log's files, opened for reading while the writer may rotate them.

Nothing is locked and the writer never waits. A rotation moves files only towards higher
numbers, so whoever opens them upwards misses none, except those that are dropped. They
may meet one twice, or one that is newer than the first: both are passed over.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.audit import files, record
from holdfast_daemon.audit.record import Damaged, Head

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
_MISSED = 3
_SEQ_BYTES = 40
_SEQ = re.compile(rb'\{"seq":(\d{1,20}),')


class File(NamedTuple):
    """One open file; what comes after `size` was written later."""

    name: str
    fd: int
    size: int


class Snapshot(NamedTuple):
    """All files, oldest first, and the head they must reach."""

    files: tuple[File, ...]
    head: Head | None
    trouble: str


def read_head(directory: Path) -> tuple[Head | None, str]:
    """Return the head, or what is wrong with it."""
    try:
        data = (directory / files.HEAD).read_bytes()
    except FileNotFoundError:
        return None, f"{files.HEAD} is missing"
    try:
        return record.decode_head(data), ""
    except Damaged as error:
        return None, f"{files.HEAD} {error}"


@contextmanager
def snapshot(directory: Path) -> Generator[Snapshot, None, None]:
    """Open the log; the files are closed with the context.

    Raises:
        OSError: It can't be read.
    """
    with ExitStack() as stack:
        # What was written by now must be found, and what is kept by then.
        before, trouble = read_head(directory)
        opened = _open_all(directory, stack)
        after, later_trouble = read_head(directory)
        head = None
        if before is not None and after is not None:
            head = before._replace(
                first_seq=after.first_seq, first_prev=after.first_prev
            )
        yield Snapshot(tuple(reversed(opened)), head, trouble or later_trouble)


def _open_all(directory: Path, stack: ExitStack) -> list[File]:
    """Open every file there was at the beginning, the newest first."""
    opened: list[tuple[str, int, int]] = []
    known: set[tuple[int, int]] = set()
    number = missed = 0
    # A listing may overlook a file that is renamed meanwhile: look a little further.
    while missed < _MISSED or number <= max(files.numbers(directory), default=0):
        path = files.rotated(directory, number)
        number += 1
        try:
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            missed += 1
            continue
        stack.callback(os.close, fd)
        missed = 0
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) not in known:
            known.add((found.st_dev, found.st_ino))
            opened.append((path.name, fd, found.st_size))
    # Now, for one that was empty when it was opened has its records if it was rotated.
    newest = _first_seq(opened[0][1]) if opened else None
    return [
        File(*file)
        for at, file in enumerate(opened)
        if at == 0 or not _after(_first_seq(file[1]), newest)
    ]


def _first_seq(fd: int) -> int | None:
    """Return the number of a file's first record, without judging the record."""
    match = _SEQ.match(os.pread(fd, _SEQ_BYTES, 0))
    return int(match[1]) if match else None


def _after(seq: int | None, newest: int | None) -> bool:
    return seq is not None and newest is not None and seq > newest
