"""Copies files of a host to this machine."""

from __future__ import annotations

import asyncio
import os
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_daemon.errors import Ran, Reason, StateError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.script import shown
from holdfast_daemon.transfer.here.aim import make, target_of
from holdfast_daemon.transfer.here.holes import resize
from holdfast_daemon.transfer.here.place import Place, set_about
from holdfast_daemon.transfer.here.placing import check, place, prepare
from holdfast_daemon.transfer.here.settling import present
from holdfast_daemon.transfer.here.source import digest
from holdfast_daemon.transfer.means.apart import apart, taken
from holdfast_daemon.transfer.means.errand import (
    BATCH_BYTES,
    BATCH_FILES,
    SMALL_BYTES,
    CopyRequest,
    Means,
    check_names,
    check_one,
    local,
    refused,
)
from holdfast_daemon.transfer.means.placing import Placing
from holdfast_daemon.transfer.means.reach import Reach
from holdfast_daemon.transfer.means.stream import Refused, Troubled
from holdfast_daemon.transfer.shell import words
from holdfast_daemon.transfer.shell.heap import UNVERIFIED, Heap
from holdfast_daemon.transfer.shell.landing import put
from holdfast_daemon.transfer.shell.origin import Found, look
from holdfast_daemon.transfer.shell.thinly import take_thin
from holdfast_daemon.transfer.tree.plan import batches, mode_of, plan, stale

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.transfer.means.errand import Unit
    from holdfast_daemon.transfer.means.stream import Wire
    from holdfast_daemon.transfer.tree.compare import Entry, Tree
    from holdfast_daemon.transfer.tree.plan import Plan

# What a new file may be for others here: as nearly everywhere.
_MASK = 0o022
_TRIES = 3


class Download:
    """One copy from a host."""

    def __init__(self, request: CopyRequest, means: Means) -> None:
        """Copy as `request` says."""
        self._request = request
        self._means = means
        self._reach = Reach(means.site, means.tally)
        self._found: list[Found] = []
        self._place = Place(b"/")
        self._stage = Place(b"/")
        self._key = b""
        self._there: Tree = {}

    async def run(self) -> None:
        """Copy it.

        Raises:
            DaemonError: Nothing was put in its place.
        """
        try:
            await self._run()
        finally:
            self._reach.release()

    async def _run(self) -> None:
        means, request = self._means, self._request
        target, is_folder = await apart(target_of, request, means.roots)
        for given in request.there:
            self._found.append(await self._look(given))
        await apart(self._aim, target, is_folder=is_folder)
        wanted, guarded = await apart(self._wanted)
        for path, why in guarded.items():
            means.leave(path, why)
        names = [one.name for one in self._found]
        if is_folder:
            await apart(make, target)
        self._there = there = await apart(present, self._place, names)
        todo = await apart(plan, wanted, there, overwrite=request.overwrite)
        self._check(todo, wanted)
        means.begun()
        key = means.key
        try:
            self._stage = await apart(self._place.own, key)
        except OSError as error:
            raise local(error, shown(self._place.root), write=True) from None
        self._key = key
        staged = await apart(self._sweep, todo, wanted)
        means.tally.skipped += len(todo.skipped)
        for path, why in todo.left.items():
            means.leave(path, why)
        means.tally.wanted = len(todo.send) + len(todo.links)
        means.tally.total = sum(entry.size for entry in todo.send.values())
        await means.all(await apart(self._units, todo, staged))
        # what has not come whole must not be put with what has
        await apart(self._remove, [p for p in todo.send if p in means.troubles])
        await self._finish(todo)

    # what there is

    async def _look(self, given: str) -> Found:
        return await look(given, self._request, self._means, self._reach)

    def _aim(self, target: Path, *, is_folder: bool) -> None:
        """Settle which names everything gets."""
        path = os.fsencode(target)
        if is_folder:
            self._place = Place(path)
        else:
            self._place = Place(posixpath.dirname(path))
            (one,) = self._found
            name = posixpath.basename(path)
            tree = {name + p[len(one.name) :]: e for p, e in one.tree.items()}
            self._found = [Found(name, one.folder, one.base, tree)]
        check_names([one.name for one in self._found])

    def _wanted(self) -> tuple[Tree, dict[bytes, str]]:
        """Return what may be copied, and what may not, with why."""
        wanted: Tree = {}
        guarded: dict[bytes, str] = {}
        roots, below = self._means.roots, self._place.root.rstrip(b"/") + b"/"
        for one in self._found:
            above = one.folder.rstrip(b"/") + b"/"
            for path, entry in one.tree.items():
                there = above + one.inner(path)
                if sensitive.holds_secrets(there.decode("utf-8", "replace")):
                    guarded[path] = "it holds secrets"
                elif roots.guarded(below + path, write=True):
                    guarded[path] = "it would let people in here"
                else:
                    wanted[path] = entry
        return wanted, guarded

    def _check(self, todo: Plan, wanted: Tree) -> None:
        """Refuse where one file was meant and can't be put."""
        if len(wanted) != 1 or (self._request.recursive and not todo.skipped):
            for path, why in todo.blocked.items():
                self._means.trouble(path, why)
            return
        (name,) = wanted
        full = shown(self._place.root.rstrip(b"/") + b"/" + name)
        check_one(todo, full, " on this machine")

    # what is sent

    def _mode(self, path: bytes, entry: Entry) -> int:
        if self._request.preserve:
            return entry.mode & 0o777  # set-user-id bits of a host mean nothing here
        return mode_of(entry, self._there.get(path), _MASK)

    def _units(self, todo: Plan, staged: Tree) -> list[Unit]:
        means = self._means
        small: Tree = {}
        units: list[Unit] = []
        for path, entry in todo.send.items():
            before = staged.get(path)
            if before is not None and before.same(entry):
                means.tally.find(entry.size)
                means.tally.files += 1
            elif entry.size <= SMALL_BYTES and len(todo.send) > 1:
                small[path] = entry
            else:
                units.append(self._one(path, entry))
        for one in self._found:
            mine = {p: e for p, e in small.items() if p.partition(b"/")[0] == one.name}
            at_once = means.site.limits.copy_parallel
            heaps = batches(mine, BATCH_BYTES, BATCH_FILES, at_once)
            units += [self._many(one, heap, small) for heap in heaps]
        return units

    def _sweep(self, todo: Plan, wanted: Tree) -> Tree:
        """Return what an earlier attempt brought, without what nobody wants by now."""
        staged = present(self._stage, [one.name for one in self._found])
        gone = stale(staged, todo, wanted)
        self._remove(gone)
        return {path: staged[path] for path in staged.keys() - set(gone)}

    def _remove(self, paths: list[bytes]) -> None:
        for path in sorted(paths):
            self._stage.remove(path)

    def _source(self, path: bytes) -> Found:
        top = path.partition(b"/")[0]
        return next(one for one in self._found if one.name == top)

    def _one(self, path: bytes, entry: Entry) -> Unit:
        async def work(reach: Reach) -> None:
            try:
                await self._fetch(reach, path, entry)
            except (Refused, Troubled) as error:
                self._means.trouble(path, _why(error))
            except OSError as error:
                if error.errno in _FATAL:
                    raise local(error, shown(path), write=True) from None
                self._means.trouble(path, error.strerror or str(error))

        return work

    async def _fetch(self, reach: Reach, path: bytes, entry: Entry) -> None:
        """Fetch one file, from where it was cut off on."""
        self._means.tally.now = shown(path)
        for _ in range(_TRIES):
            file, at = await taken(close, self._open, path, entry)
            try:
                if await self._bring(reach, path, entry, file, at):
                    return
                # It was changed meanwhile: once more, from the start.
                await apart(resize, file, 0)
            except _Shorter as shorter:  # once more, and no more than there is
                self._means.tally.total += shorter.size - entry.size
                entry = replace(entry, size=shorter.size)
                await apart(resize, file, 0)
            finally:
                await apart(os.close, file)
        self._changed(path)

    def _changed(self, path: bytes) -> None:
        """Note that a file could not be had; the others of a tree don't suffer.

        Raises:
            StateError: It was the only one.
        """
        if self._means.tally.wanted > 1:
            self._means.trouble(path, "it was changed each time it was copied")
            return
        raise StateError(
            Reason.FILE_CHANGED,
            f"{shown(path)} was changed on the host each time it was copied",
            hint="Copy it when nobody writes to it.",
            ran=Ran.YES,
        )

    async def _bring(
        self, reach: Reach, path: bytes, entry: Entry, file: int, at: int
    ) -> bool:
        """Bring a file from `at` on; return whether it adds up to what the host has.

        Raises:
            _Shorter: It has less than is told of it.
        """
        one, tally = self._source(path), self._means.tally
        full = one.folder.rstrip(b"/") + b"/" + one.inner(path)
        folder, name = posixpath.split(full)
        running, before = await apart(digest, file, at), at
        tally.find(at)

        async def attempt(wire: Wire) -> None:
            nonlocal at, running
            if not at:
                where = folder, name
                thin = await take_thin(wire, where, entry.size, file, self._means)
                if thin is not None:
                    running, at = thin.running, entry.size
                    return
            async for pieces in wire.take(words.send(folder, name, at)):
                count = sum(map(len, pieces))
                await put(file, pieces, at, running)
                at += count
                tally.move(count)
                await self._means.rate.take(count)
            if at < entry.size:
                raise _Shorter(at)

        # The host adds it up while it sends it.
        adding = asyncio.create_task(self._sum(folder, name, entry.size))
        try:
            await reach.steadily(attempt)
            await apart(resize, file, at)
            theirs = await adding
        except _Shorter:
            tally.take_back(at)
            raise
        finally:
            adding.cancel()
            await asyncio.gather(adding, return_exceptions=True)
        if theirs and theirs != running.hexdigest():
            # What was only added to since then counts as having stayed.
            theirs = await self._sum(folder, name, at, upto=at) or theirs
        # without a checksum nothing says whose the beginning is
        if theirs != running.hexdigest() and (theirs or before):
            tally.take_back(at)
            return False
        if not theirs:
            self._means.note(UNVERIFIED)
        await apart(set_about, file, self._mode(path, entry), entry.modified)
        self._means.sha256 = running.hexdigest()
        tally.files += 1
        return True

    def _open(self, path: bytes, entry: Entry) -> tuple[int, int]:
        """Open the file that is written, and return how much of it is there."""
        file = self._stage.go_on(path)
        if file is not None:
            have = os.fstat(file).st_size
            if 0 < have <= entry.size:
                return file, have
            os.close(file)
        file = self._stage.create(path)
        os.close(file)
        again = self._stage.go_on(path)
        if again is None:
            raise OSError(2, "it went away")
        return again, 0

    async def _sum(
        self, folder: bytes, name: bytes, size: int, *, upto: int = 0
    ) -> str:
        """Return the checksum of a file, or of so much of it; empty: none is told."""
        reach = Reach(self._means.site, self._means.tally)
        script = words.checksum(folder, name)
        if upto:
            script = words.prefix(folder, name, upto)
        try:
            reply, _ = await reach.steadily(lambda wire: wire.ask(script, summed=size))
        finally:
            reach.release()
        if not reply.ok:
            raise Refused(reply)
        return reply.texts[-1]

    def _many(self, one: Found, heap: list[bytes], tree: Tree) -> Unit:
        many = Heap(self._means, self._stage, one, tree, self._mode)

        async def work(reach: Reach) -> None:
            await many.fetch(reach, heap)

        return work

    # what is put in its place

    async def _finish(self, todo: Plan) -> None:
        await apart(prepare, self._stage, todo)
        self._means.tally.files += len(todo.links)
        keeps = self._request.preserve
        placing = Placing(
            folder=self._place.root,
            key=self._key,
            names=tuple(one.name for one in self._found),
            folders=tuple(
                (path, self._mode(path, entry), entry.modified if keeps else None)
                for path, entry in sorted(todo.folders.items(), reverse=True)
            ),
        )
        await self._means.placing(placing)
        await apart(place, placing, self._request, self._means)

    async def place(self, placing: Placing) -> None:
        """Put what has come in its place, where an earlier daemon may have begun to.

        Raises:
            DaemonError: It can't be put there.
        """
        await apart(check, placing, self._request, self._means)
        self._place, self._key = Place(placing.folder), placing.key
        await apart(place, placing, self._request, self._means)

    async def drop(self) -> None:
        """Delete what has come and has no place."""
        if self._key:
            await apart(self._place.remove, self._key)


class _Shorter(Exception):  # noqa: N818  a state first, an error second
    """A file came to its end before it had as much as was told of it.

    Attributes:
        size: So much came.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


_FATAL = (28, 30, 122)  # no space, read-only, quota


def close(opened: tuple[int, int]) -> None:
    """Close a file that was opened for nobody."""
    os.close(opened[0])


def _why(error: Refused | Troubled) -> str:
    if isinstance(error, Refused):
        return str(refused(error.reply, write=False).message)
    return str(error) or "the host could not read it"
