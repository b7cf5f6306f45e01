"""Many small files of a host, fetched as one stream and checked as they come."""

from __future__ import annotations

import asyncio
import contextlib
import os
import posixpath
import re
from itertools import groupby
from typing import TYPE_CHECKING

from holdfast_daemon.file.script import shown
from holdfast_daemon.transfer.here.place import read, set_about
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.errand import local
from holdfast_daemon.transfer.means.reach import Reach
from holdfast_daemon.transfer.means.stream import Cut, Troubled
from holdfast_daemon.transfer.shell import words
from holdfast_daemon.transfer.shell.landing import Taking

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.transfer.here.place import Place
    from holdfast_daemon.transfer.means.errand import Means
    from holdfast_daemon.transfer.means.stream import Wire
    from holdfast_daemon.transfer.shell.origin import Found
    from holdfast_daemon.transfer.tree.compare import Entry, Tree

_SUM = re.compile(rb"(\\?)([0-9a-f]{64}) [ *](?s:(.*))\Z")
_TRIES = 3
# What comes waits so long for its checksums; a host that opens one channel at a time
# tells them once all has come.
_WAIT_SECONDS = 2.0
UNVERIFIED = "not every checksum could be had from the host: sizes were compared"


class Heap:
    """Fetches files of one source into the staging directory.

    A file gets its time there when it was found to be as the host has it, and is known
    by that again.
    """

    def __init__(
        self,
        means: Means,
        stage: Place,
        one: Found,
        tree: Tree,
        mode: Callable[[bytes, Entry], int],
    ) -> None:
        """Fetch files of `one` that are as `tree` says; `mode`: what they become."""
        self._means = means
        self._stage = stage
        self._one = one
        self._tree = tree
        self._mode = mode

    async def fetch(self, reach: Reach, heap: list[bytes]) -> None:
        """Fetch them; what could not be had is told as trouble.

        Raises:
            DaemonError: This machine can't take them, or the way was lost for too long.
        """
        self._means.tally.now = shown(heap[0])
        try:
            for once in range(_TRIES):
                heap = await self._round(reach, heap, alone=once > 0)
                if not heap:
                    return
        except OSError as error:
            raise local(error, shown(self._stage.root), write=True) from None
        for path in heap:
            self._means.trouble(path, "it was changed each time it was copied")

    async def _round(
        self, reach: Reach, heap: list[bytes], *, alone: bool
    ) -> list[bytes]:
        """Fetch files once, each `alone` by itself; return what did not come right."""
        # The host adds them up while it sends them.
        adding = asyncio.create_task(self._sums(heap))
        try:
            sums, right, linked = await self._take(reach, heap, adding, alone=alone)
            told = await adding
        finally:
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)
        for path in set(heap) - set(sums) - right - linked:
            self._means.trouble(path, "the host could not read it")
        if told and (rest := [path for path in sums if path not in told]):
            told |= await self._sums(rest)
        if not sums.keys() <= told.keys():
            self._means.note(UNVERIFIED)
        wrong = {path for path, ours in sums.items() if told.get(path, ours) != ours}
        late = [path for path in sums if path not in wrong]
        await apart(self._set_all, late)
        self._means.tally.files += len(late)
        return [path for path in heap if path in wrong | linked]

    async def _take(
        self,
        reach: Reach,
        heap: list[bytes],
        adding: asyncio.Task[dict[bytes, bytes]],
        *,
        alone: bool,
    ) -> tuple[dict[bytes, bytes], set[bytes], set[bytes]]:
        """Return what came and is not known to be right, what is, and what is a link.

        Of the names of one file each but the first is told as a link to that.
        """
        tally, one = self._means.tally, self._one
        script = words.send_many(one.folder, alone=alone)
        right: set[bytes] = set()
        linked: set[bytes] = set()
        sums: dict[bytes, bytes] = {}
        unsure = 0

        async def attempt(wire: Wire) -> None:
            nonlocal unsure, sums, linked
            tally.take_back(unsure)
            unsure, sums, linked = 0, {}, set()
            rest = [path for path in heap if path not in right]
            if not rest:
                return
            names = b"".join(b"./" + one.inner(path) + b"\0" for path in rest)
            taking = Taking(self._stage, one, rest, self._whole)
            seconds = _WAIT_SECONDS
            try:
                with contextlib.suppress(Troubled):  # what did not come is told below
                    async for pieces in wire.take(script, names):
                        taking.told = await _soon(adding, seconds)
                        seconds = 0.0
                        before, sure = taking.count, len(taking.right)
                        await apart(taking.feed, pieces)
                        tally.move(taking.count - before)
                        tally.files += len(taking.right) - sure
                        await self._means.rate.take(taking.count - before)
            finally:
                taking.close()
                right.update(taking.right)
                unsure, sums = taking.count - taking.sure, taking.sums
                linked = taking.linked
            if not taking.reader.whole:
                raise Cut("it ended early")

        await reach.steadily(attempt)
        return sums, right, linked - sums.keys() - right

    def _whole(self, file: int, path: bytes) -> None:
        entry = self._tree[path]
        set_about(file, self._mode(path, entry), entry.modified)

    async def _sums(self, paths: list[bytes]) -> dict[bytes, bytes]:
        """Return the checksums that the host tells."""
        one = self._one
        names = [b"./" + one.inner(path) for path in paths]
        data = b"".join(name + b"\0" for name in names)
        script = words.sums(one.folder)
        reach = Reach(self._means.site, self._means.tally)
        try:
            _, rest = await reach.steadily(lambda wire: wire.ask(script, data))
        finally:
            reach.release()
        lines = [m for m in map(_SUM.match, rest.split(b"\n")) if m]
        if len(lines) == len(paths):
            return {path: m[2] for path, m in zip(paths, lines, strict=True)}
        # Some could not be read; a name that had to be quoted is asked for later.
        by_name = dict(zip(names, paths, strict=True))
        return {by_name[m[3]]: m[2] for m in lines if not m[1] and m[3] in by_name}

    def _set_all(self, paths: list[bytes]) -> None:
        for over, together in groupby(paths, posixpath.dirname):
            with self._stage.folder(over) as folder:
                for path in together:
                    file = read(folder, posixpath.basename(path))
                    try:
                        self._whole(file, path)
                    finally:
                        os.close(file)


async def _soon(
    adding: asyncio.Task[dict[bytes, bytes]], seconds: float
) -> dict[bytes, bytes]:
    """Return what is told within so long; nothing where it is not."""
    await asyncio.wait({adding}, timeout=seconds)
    failed = not adding.done() or adding.cancelled() or adding.exception() is not None
    return {} if failed else adding.result()
