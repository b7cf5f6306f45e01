"""The audit log on disk: appends, rotates, and finds out at opening what became of it.

Synchronous and for one thread. Every failure is an OSError (or a refusal of the place);
after one the store is closed, nothing of the failed batch is kept, and `open` starts
afresh.
"""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast_daemon import paths
from holdfast_daemon.audit import files, record
from holdfast_daemon.audit.record import EMPTY, Damaged, Head, Link

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW


class Displaced(OSError):  # noqa: N818 - it says what happened to the file
    """The file was removed, replaced or changed by somebody else."""


@dataclass(frozen=True, slots=True)
class Findings:
    """What `open` came upon.

    Attributes:
        torn_bytes: Length of an unfinished last line that was cut off; it never
        counted. lost: What can't be explained by a crash, one sentence each.
    """

    torn_bytes: int = 0
    lost: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.torn_bytes or self.lost)


class Store:
    """The files of one audit log. What it knows of the chain outlives a close."""

    def __init__(self, directory: Path, *, file_bytes: int, keep: int) -> None:
        self._directory = directory
        self._file_bytes = file_bytes
        self._keep = keep
        self._path = files.rotated(directory, 0)
        self._head_path = directory / files.HEAD
        self._fd = self._head_fd = -1
        self._size = 0
        self._head: Head | None = None
        # A batch failed half-way and could not be taken back: what is beyond _size is
        # ours.
        self._unclean: tuple[int, int] | None = None

    @property
    def ready(self) -> bool:
        """Open for writing."""
        return self._fd >= 0

    @property
    def seq(self) -> int:
        """Number of the last record."""
        return self._head.last_seq if self._head else 0

    def open(self) -> Findings:
        """Open the log, cut off what was never finished, and tell what is amiss."""
        self.close()
        try:
            return self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> Findings:
        paths.private_dir(self._directory)
        self._fd = self._open_file(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT)
        self._take_back()
        self._size = os.fstat(self._fd).st_size
        torn = files.torn(self._fd, self._size)
        if torn:
            self._size -= torn
            os.ftruncate(self._fd, self._size)
        on_disk, amiss = self._read_head()
        head, lost = self._reconcile(on_disk, amiss)
        self._head_fd = self._open_file(self._head_path, os.O_RDWR | os.O_CREAT)
        self._write_head(head)
        self._unclean = None
        return Findings(torn, tuple(lost))

    def _open_file(self, path: Path, flags: int) -> int:
        fd = os.open(path, flags | _FLAGS, 0o600)
        try:
            paths.private_file(path)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _take_back(self) -> None:
        if self._unclean is not None:
            found = os.fstat(self._fd)
            if (found.st_dev, found.st_ino) == self._unclean:
                os.ftruncate(self._fd, min(found.st_size, self._size))

    def _read_head(self) -> tuple[Head | None, str]:
        try:
            data = self._head_path.read_bytes()
        except FileNotFoundError:
            return None, f"{files.HEAD} was missing"
        try:
            return record.decode_head(data), ""
        except Damaged as error:
            return None, f"{files.HEAD} {error}"

    def _reconcile(self, on_disk: Head | None, amiss: str) -> tuple[Head, list[str]]:
        """Return where to go on, and what is lost: memory wins over head over lines."""
        lost: list[str] = []
        known = self._head or on_disk
        line, damage = self._last_record()
        if self._unclean is None and self._head and on_disk != self._head:
            lost.append(amiss or f"{files.HEAD} was changed by somebody else")
        if known is None:
            if line is None and not damage and not files.size(self._head_path):
                return EMPTY, []  # a disk that was full made it, and no more
            lost.append(amiss)
            known = self._rebuilt()
        if damage:
            lost.append(f"the last record {damage}")
        elif (line.seq if line else 0) < known.last_seq:
            first = line.seq + 1 if line else known.first_seq
            lost.append(f"records {first} to {known.last_seq} are missing")
        elif line and line.seq == known.last_seq and line.hash != known.last_hash:
            lost.append(f"record {line.seq} is not the one that was written")
        if line and line.seq > known.last_seq:
            if self._head and self._unclean is None:
                lost.append(f"records up to {line.seq} came from somebody else")
            known = known._replace(last_seq=line.seq, last_hash=line.hash)
        return known, lost

    def _last_record(self) -> tuple[Link | None, str]:
        """Return the newest whole record, or what is wrong with it."""
        line = files.last_line(self._fd, self._size)
        if line is None:
            older = files.numbers(self._directory)
            if not older:
                return None, ""
            path = files.rotated(self._directory, older[0])
            fd = os.open(path, os.O_RDONLY | _FLAGS)
            try:
                line = files.last_line(fd, os.fstat(fd).st_size)
            finally:
                os.close(fd)
        try:
            return (record.unseal(line), "") if line is not None else (None, "")
        except Damaged as error:
            return None, str(error)

    def _rebuilt(self) -> Head:
        """Return a head made of the records alone, as far as they can be read."""
        first: Link | None = None
        last: Link | None = None
        for number in (*reversed(files.numbers(self._directory)), 0):
            fd = os.open(files.rotated(self._directory, number), os.O_RDONLY | _FLAGS)
            try:
                for line in files.lines(fd, os.fstat(fd).st_size):
                    with contextlib.suppress(Damaged):
                        last = record.unseal(line)
                        first = first or last
            finally:
                os.close(fd)
        if first is None or last is None:
            return EMPTY
        return Head(first.seq, first.prev, last.seq, last.hash)

    def write(self, batch: Sequence[Mapping[str, Any]]) -> int:
        """Append as many of `batch` as fit one file; all of these are written, or none.

        Returns:
            How many were written; at least one.

        Raises:
            OSError: Nothing was written, and the store is closed.
        """
        try:
            self._check_in_place()
            count = self._write(batch)
            if not count:
                self._rotate()
                count = self._write(batch)
        except BaseException:
            self.close()
            raise
        return count

    def _write(self, batch: Sequence[Mapping[str, Any]]) -> int:
        head = self._head or EMPTY
        seq, prev, size = head.last_seq, head.last_hash, self._size
        chunk: list[bytes] = []
        for members in batch:
            line, digest = record.seal(members, seq + 1, prev)
            if size and size + len(line) > self._file_bytes:
                break
            chunk.append(line)
            seq, prev, size = seq + 1, digest, size + len(line)
        if not chunk:
            return 0
        try:
            files.write_all(self._fd, b"".join(chunk))
            self._write_head(head._replace(last_seq=seq, last_hash=prev))
        except OSError:
            found = os.fstat(self._fd)
            self._unclean = (found.st_dev, found.st_ino)
            with contextlib.suppress(OSError):  # else the next open takes it back
                os.ftruncate(self._fd, self._size)
            raise
        self._size = size
        return len(chunk)

    def _write_head(self, head: Head) -> None:
        """Overwrite in place: one sector, so old or new, and it needs no space."""
        data = record.encode_head(head)
        if os.pwrite(self._head_fd, data, 0) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._head = head

    def _check_in_place(self) -> None:
        """Notice at once that somebody took the files away."""
        for fd, path in ((self._fd, self._path), (self._head_fd, self._head_path)):
            mine = os.fstat(fd)
            try:
                found = os.stat(path, follow_symlinks=False)  # noqa: PTH116 - hot path
            except (FileNotFoundError, NotADirectoryError) as error:
                raise Displaced(error.errno, f"{path} was removed") from error
            if (found.st_dev, found.st_ino) != (mine.st_dev, mine.st_ino):
                raise Displaced(errno.ESTALE, f"{path} was replaced")
            if fd == self._fd and found.st_size != self._size:
                raise Displaced(errno.ESTALE, f"{path} was changed by somebody else")

    def _rotate(self) -> None:
        """Make room: every file moves up by one; the oldest goes when all are there.

        The head names the new first record before the old one goes, so that a crash in
        between leaves a record too many and never one too few.
        """
        os.fsync(self._fd)
        there = files.numbers(self._directory)
        gap = next(n for n in range(1, len(there) + 2) if n not in there)
        doomed = [n for n in there if n >= self._keep]
        if gap >= self._keep and self._keep - 1 in there:
            doomed.append(self._keep - 1)
        if doomed:
            kept = [n for n in there if n not in doomed]
            self._anchor(max(kept, default=0))
            for number in sorted(doomed, reverse=True):
                files.rotated(self._directory, number).unlink()
        for number in range(min(gap, self._keep - 1) - 1, -1, -1):
            source = files.rotated(self._directory, number)
            source.rename(files.rotated(self._directory, number + 1))
        os.close(self._fd)
        self._fd, self._size = -1, 0
        self._fd = self._open_file(
            self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        )
        files.sync_directory(self._directory)

    def _anchor(self, number: int) -> None:
        line = files.first_line(files.rotated(self._directory, number))
        head = self._head or EMPTY
        # An unreadable first record keeps the old anchor, so verify goes on
        # complaining.
        with contextlib.suppress(Damaged):
            if line is not None:
                first = record.unseal(line)
                self._write_head(
                    head._replace(first_seq=first.seq, first_prev=first.prev)
                )

    def duplicates(self) -> tuple[int, ...]:
        """Return descriptors of the open files for `sync`, which closes them."""
        return tuple(os.dup(fd) for fd in (self._fd, self._head_fd) if fd >= 0)

    def close(self) -> None:
        """Close the files; what is known of the chain stays."""
        for fd in (self._fd, self._head_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._head_fd = -1


def sync(descriptors: Sequence[int]) -> None:
    """Bring what was written to the disk; any thread may do it."""
    try:
        for fd in descriptors:
            os.fsync(fd)
    finally:
        for fd in descriptors:
            os.close(fd)
