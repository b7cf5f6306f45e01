"""Writes what comes from a host into files of this machine."""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.place import Last, create
from holdfast_daemon.transfer.means.apart import apart, both
from holdfast_daemon.transfer.means.stream import Cut
from holdfast_daemon.transfer.tree import tar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from holdfast_daemon.transfer.here.place import Place
    from holdfast_daemon.transfer.shell.origin import Found

_LOOK = 64
_VECTORS = 512


class Taking:
    """Writes the files of one stream as they come. Blocks.

    Attributes:
        told: The checksums that the host tells.
        right: Those of which that is the checksum.
        sums: The checksum of each other that came whole.
        linked: What only came as another name of a file before it.
        count: Bytes of content.
        sure: How many of them are of `right`.
    """

    def __init__(
        self,
        stage: Place,
        one: Found,
        heap: list[bytes],
        settle: Callable[[int, bytes], None],
    ) -> None:
        """Write into `stage`; `settle` is called with each open file that is right."""
        self._stage = stage
        self._settle = settle
        self._wanted = {b"./" + one.inner(path): path for path in heap}
        self._file = -1
        self._last = Last(make=True)
        self._path = b""
        self._left = self._size = 0
        self._running = hashlib.sha256()
        self.reader = tar.Reader()
        self.told: Mapping[bytes, bytes] = {}
        self.right: set[bytes] = set()
        self.sums: dict[bytes, bytes] = {}
        self.linked: set[bytes] = set()
        self.count = self.sure = 0

    def feed(self, pieces: list[bytes]) -> None:
        """Write what has come; a name that was not asked for is not written."""
        try:
            for data in pieces:
                for item in self.reader.feed(data):
                    if isinstance(item, bytes):
                        self._content(item)
                    else:
                        self._begin(item)
        except tar.BrokenTar as error:
            raise Cut(f"the host's tar can't be read: {error}") from None

    def _begin(self, member: tar.Member) -> None:
        self._close()
        path = self._wanted.get(member.name)
        if path is not None and member.linked:
            self.linked.add(path)
        if path is None or not member.regular:
            return
        if path in self.sums or path in self.right:
            return
        self._path, self._left, self._size = path, member.size, member.size
        self._running = hashlib.sha256()
        self._file = create(*self._last.above(self._stage, path))
        if not self._left:
            self._end()

    def _content(self, data: bytes) -> None:
        if self._file < 0:
            return
        self._running.update(data)
        _write(self._file, data)
        self.count += len(data)
        self._left -= len(data)
        if not self._left:
            self._end()

    def _end(self) -> None:
        path, found = self._path, self._running.hexdigest().encode()
        if self.told.get(path) == found:
            self._settle(self._file, path)
            self.right.add(path)
            self.sure += self._size
        else:
            self.sums[path] = found
        self._close()

    def close(self) -> None:
        """Let go of the file that is being written, and of its directory."""
        self._close()
        self._last.close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


async def put(file: int, pieces: list[bytes], at: int, running: hashlib._Hash) -> None:  # pyright: ignore[reportPrivateUsage]  it has no other name
    """Write pieces at an offset, and add them up in `running` meanwhile.

    What is nothing but zeros stays a hole.

    Raises:
        OSError: It can't be written.
    """
    await both(apart(_put, file, pieces, at), apart(_add, running, pieces))


def _add(running: hashlib._Hash, pieces: list[bytes]) -> None:  # pyright: ignore[reportPrivateUsage]  as above
    for piece in pieces:
        running.update(piece)


def _put(file: int, pieces: list[bytes], at: int) -> None:
    heap: list[bytes] = []
    for piece in pieces:
        hole = piece[:_LOOK] == bytes(len(piece[:_LOOK])) and not piece.strip(b"\0")
        if hole or len(heap) == _VECTORS:
            at += _put_all(file, heap, at)
            heap = []
        if hole:
            at += len(piece)
        else:
            heap.append(piece)
    _put_all(file, heap, at)


def _put_all(file: int, heap: list[bytes], at: int) -> int:
    total = sum(map(len, heap))
    if heap and (done := os.pwritev(file, heap, at)) < total:
        rest = memoryview(b"".join(heap))[done:]
        while rest:
            done += (step := os.pwrite(file, rest, at + done))
            rest = rest[step:]
    return total


def _write(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
