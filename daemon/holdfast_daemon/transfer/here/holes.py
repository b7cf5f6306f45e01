"""Files that are mostly holes: what of them is sent, and what is only told. Blocks."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from itertools import pairwise

from holdfast_daemon.transfer.means.apart import heed

# A smaller hole is sent as what it is read as.
LEAST = 4 * 1024 * 1024
# For each a round trip: the smallest holes are sent where there are more.
_MOST = 32
_ZEROS = bytes(1024 * 1024)


def pass_over(running: hashlib._Hash, count: int) -> None:  # pyright: ignore[reportPrivateUsage]  it has no other name
    """Add `count` zeros to a checksum."""
    whole, rest = divmod(count, len(_ZEROS))
    for _ in range(whole):
        heed()
        running.update(_ZEROS)
    running.update(_ZEROS[:rest])


def stretches(file: int, at: int, size: int) -> list[tuple[int, int]]:
    """Return (begin, end) of what is to be sent from `at` on; all else is holes.

    The first begins at `at` where that is 0, and the last ends at `size`: either may
    hold nothing, and says where the file begins or ends.
    """
    found = _data(file, at, size)
    if at == 0 and (not found or found[0][0] > 0):
        found.insert(0, (0, 0))
    if not found or found[-1][1] < size:
        found.append((size, size))
    while len(found) > _MOST:
        gaps = [
            (after[0] - before[1], number)
            for number, (before, after) in enumerate(pairwise(found))
        ]
        number = min(gaps)[1]
        found[number : number + 2] = [(found[number][0], found[number + 1][1])]
    return found


def _data(file: int, at: int, size: int) -> list[tuple[int, int]]:
    """Return what is no large hole, as far as the file system tells."""
    found: list[tuple[int, int]] = []
    about = os.fstat(file)
    if about.st_size - about.st_blocks * 512 < LEAST:
        return [(at, size)] if at < size else []
    while at < size:
        begin, end = size, size
        try:
            begin = os.lseek(file, at, os.SEEK_DATA)
            end = min(size, os.lseek(file, begin, os.SEEK_HOLE))
        except OSError as error:
            if error.errno != errno.ENXIO:
                begin, end = at, size
        if begin >= size:
            break
        if found and begin - found[-1][1] < LEAST:
            found[-1] = (found[-1][0], end)
        elif not found and begin - at < LEAST:
            found.append((at, end))
        else:
            found.append((begin, end))
        at = end
    if found and size - found[-1][1] < LEAST:
        found[-1] = (found[-1][0], size)
    return found


def resize(file: int, size: int) -> None:
    """Give an open file a size; one that has it is left alone.

    A file that was emptied is written to the disk when it is closed (ext4's
    auto_da_alloc), even one that was empty before: of a large one that takes a while.

    Raises:
        OSError: It can't be given.
    """
    if os.fstat(file).st_size != size:
        os.ftruncate(file, size)


class Filler:
    """Writes a file of which only the data comes.

    Attributes:
        at: Up to where it is known.
        taken: Bytes of data that were written.
        running: The checksum of all up to there.
    """

    def __init__(self, file: int) -> None:
        """Write into an open file, which is emptied."""
        resize(file, 0)
        self._file = file
        self.at = self.taken = 0
        self.running = hashlib.sha256()

    def put(self, pieces: list[tuple[int, bytes]]) -> None:
        """Write pieces, each with its offset; the offsets must rise."""
        for offset, data in pieces:
            self.end(offset)
            self.running.update(data)
            self.taken += len(data)
            view = memoryview(data)
            while view:
                done = os.pwrite(self._file, view, self.at)
                self.at += done
                view = view[done:]

    def end(self, size: int) -> None:
        """Leave a hole up to `size`."""
        if size > self.at:
            pass_over(self.running, size - self.at)
            self.at = size
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, size)
