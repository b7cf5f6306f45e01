"""A place in the audit log that moves on from file to file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from holdfast_daemon.audit import files
from holdfast_daemon.audit.snapshot import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.audit.snapshot import File

# What one step reads: small enough to leave memory flat.
_STEP = 256 * 1024


class Cursor:
    """Reads forward; synchronous, for one thread at a time."""

    def __init__(self, directory: Path, last: int = 0) -> None:
        """Stand before the newest `last` records; 0: before the oldest kept one."""
        self._directory = directory
        self._fd = -1
        self._offset = 0
        with snapshot(directory) as now:
            kept = now.files
            skip = 0
            if last:
                kept, skip = newest(kept, last)
            if kept:
                self._fd = os.dup(kept[0].fd)
        for _ in range(skip):
            self._skip_line()

    def step(self) -> list[str]:
        """Return some of the records that come next; nothing: there are none yet."""
        while True:
            lines = self._more()
            if lines or not self._move_on():
                return lines

    def close(self) -> None:
        """Give the file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _skip_line(self) -> None:
        while True:
            data = os.pread(self._fd, _STEP, self._offset)
            end = data.find(b"\n") + 1
            self._offset += end or len(data)
            if end or not data:
                return

    def _more(self) -> list[str]:
        if self._fd < 0:
            return []
        data = b""
        end = 0
        while not end:
            piece = os.pread(self._fd, _STEP, self._offset + len(data))
            if not piece:
                break
            data += piece
            end = data.rfind(b"\n") + 1
        self._offset += end
        return data[:end].decode("utf-8", "replace").split("\n")[:-1]

    def _move_on(self) -> bool:
        """Go to the next file when ours is a rotated one and read to its end."""
        with snapshot(self._directory) as now:
            if not now.files:
                return False
            if self._fd < 0:
                self._go_to(now.files[0])
                return True
            mine = os.fstat(self._fd)
            place = next(
                (
                    at
                    for at, file in enumerate(now.files)
                    if os.path.samestat(os.fstat(file.fd), mine)
                ),
                -1,  # ours is gone: on with the oldest that is left
            )
            if place == len(now.files) - 1:
                return False
            rest = os.pread(self._fd, mine.st_size - self._offset, self._offset)
            if b"\n" in rest:
                return True  # it grew just before it was rotated
            self._go_to(now.files[place + 1])
            return True

    def _go_to(self, file: File) -> None:
        self.close()
        self._fd = os.dup(file.fd)
        self._offset = 0


def newest(kept: tuple[File, ...], last: int) -> tuple[tuple[File, ...], int]:
    """Return the files with the newest `last` records, and how many to pass over."""
    for start in range(len(kept) - 1, -1, -1):
        count = sum(1 for _ in files.lines(kept[start].fd, kept[start].size))
        if count >= last:
            return kept[start:], count - last
        last -= count
    return kept, 0
