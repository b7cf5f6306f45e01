"""Small files of this machine, packed into one stream with their checksums."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.place import Last, read
from holdfast_daemon.transfer.here.source import as_it_is, stayed
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.errand import SMALL_BYTES
from holdfast_daemon.transfer.tree import tar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast_daemon.transfer.here.source import Source
    from holdfast_daemon.transfer.means.errand import Means
    from holdfast_daemon.transfer.tree.compare import Entry, Tree

# What the list of checksums is called in the stream; several parcels come at once.
_SUMS = b".holdfast-sums-%d"
# Names that this list would have to quote.
_QUOTED = (b"\n", b"\\", b"\r")
_AT_ONCE = 200
_TRIES = 3
# One that grew beyond that meanwhile does not go with the others.
_MOST_BYTES = 4 * SMALL_BYTES


def quoted(path: bytes) -> bool:
    """Say whether a file has to go by itself, for what it is called."""
    return any(one in path for one in _QUOTED)


class _Grown(Exception):  # noqa: N818  a state first, an error second
    """A small file is none any more."""


class Sent:
    """What one attempt has sent."""

    def __init__(self) -> None:
        self.count = 0
        self.files = 0


class Parcel:
    """Packs files of one tree.

    Attributes:
        sums: What its list of checksums is called, where all of them are unpacked.
        grown: Files that are too large for it by now.
    """

    def __init__(
        self,
        tree: Tree,
        means: Means,
        source: Callable[[bytes], tuple[Source, bytes]],
        mode: Callable[[bytes, Entry], int],
        number: int,
    ) -> None:
        """Pack files of `tree`; `source` finds them, `mode` says what they become.

        `number` tells it from the other parcels for the same directory.
        """
        self.sums = _SUMS % number
        self.grown: Tree = {}
        self._tree = tree
        self._means = means
        self._source = source
        self._mode = mode

    async def packed(self, heap: list[bytes], sent: Sent) -> AsyncIterator[bytes]:
        """Yield a tar of small files, and behind them what they must add up to."""
        sums: list[bytes] = []
        sent.files = 0
        for at in range(0, len(heap), _AT_ONCE):
            data, content, files = await apart(
                self._pack, heap[at : at + _AT_ONCE], sums
            )
            await self._means.rate.take(len(data))
            yield data
            sent.count += content
            sent.files += files
            self._means.tally.move(content)
        listed = b"".join(sums)
        yield (
            tar.header(self.sums, len(listed), 0o600, 0)
            + listed
            + tar.fill(len(listed))
            + tar.END
        )

    def _pack(self, paths: list[bytes], sums: list[bytes]) -> tuple[bytes, int, int]:
        parts: list[bytes] = []
        total = files = 0
        with contextlib.closing(Last()) as last:
            for path in paths:
                entry = self._tree[path]
                one, inner = self._source(path)
                try:
                    file = read(*last.above(one.place, inner))
                    try:
                        data, entry, told = _read(file, entry)
                    finally:
                        os.close(file)
                except _Grown:
                    self.grown[path] = entry
                    continue
                except OSError as error:
                    self._means.trouble(path, error.strerror or str(error))
                    continue
                total += len(data)
                files += 1
                sums.append(b"%s  ./%s\n" % (told.encode(), path))
                mode = self._mode(path, entry)
                parts += [
                    tar.header(b"./" + path, len(data), mode, entry.modified),
                    data,
                    tar.fill(len(data)),
                ]
        return b"".join(parts), total, files


def _read(file: int, entry: Entry) -> tuple[bytes, Entry, str]:
    """Return what a small file holds, what is told of it then, and its checksum.

    Raises:
        _Grown: It is none any more.
        OSError: It can't be read, or is written to all the time.
    """
    for _ in range(_TRIES):
        about = os.fstat(file)
        if about.st_size > _MOST_BYTES:
            raise _Grown
        data = os.pread(file, about.st_size, 0)
        now = as_it_is(entry, about)
        told = hashlib.sha256(data).hexdigest()
        if len(data) == about.st_size and stayed(file, about, told):
            return data, now, told
    raise OSError(errno.EBUSY, "it was changed each time it was copied")
