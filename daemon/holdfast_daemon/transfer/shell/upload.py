"""Copies files of this machine to a host."""

from __future__ import annotations

import hashlib
import os
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_daemon.errors import Ran, Reason, StateError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.fault import fault
from holdfast_daemon.file.script import quote_path, shown
from holdfast_daemon.transfer.here.outward import Outward
from holdfast_daemon.transfer.here.parcel import Parcel, Sent, quoted
from holdfast_daemon.transfer.here.source import (
    Source,
    as_it_is,
    digest,
    source,
    stayed,
)
from holdfast_daemon.transfer.means.apart import apart, taken
from holdfast_daemon.transfer.means.errand import (
    BATCH_BYTES,
    BATCH_FILES,
    SMALL_BYTES,
    CopyRequest,
    Means,
    check_names,
    check_one,
    refused,
    secret,
)
from holdfast_daemon.transfer.means.placing import Placing
from holdfast_daemon.transfer.means.reach import Reach
from holdfast_daemon.transfer.means.stream import Cut
from holdfast_daemon.transfer.shell import words
from holdfast_daemon.transfer.shell.early import Early
from holdfast_daemon.transfer.shell.folders import made, missed, settled
from holdfast_daemon.transfer.shell.placing import put
from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree
from holdfast_daemon.transfer.tree.plan import batches, mode_of, plan, stale

if TYPE_CHECKING:
    from holdfast_daemon.file.script import Script
    from holdfast_daemon.transfer.means.errand import Unit
    from holdfast_daemon.transfer.means.stream import Reply, Wire
    from holdfast_daemon.transfer.tree.plan import Plan

_TRIES = 3
_UNVERIFIED = "the host has no program for checksums: sizes were compared"


class Upload:
    """One copy to a host."""

    def __init__(self, request: CopyRequest, means: Means) -> None:
        """Copy as `request` says."""
        self._request = request
        self._means = means
        self._reach = Reach(means.site, means.tally)
        self._sources: list[Source] = []
        self._folder = b""
        self._key = b""
        self._stage = b""
        self._mask = 0o022
        self._ours = False
        self._there: Tree = {}
        self._sums: dict[bytes, str] = {}

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
        self._sources = await apart(self._look)
        await apart(self._guard_given)
        await self._find()
        wanted: Tree = {}
        for one in self._sources:
            wanted |= one.tree
            for path, why in one.troubles.items():
                means.trouble(path, why)
            for path, why in one.left.items():
                means.leave(path, why)
        await apart(self._guard, wanted)
        means.begun()
        staged, there, tars = await self._begin()
        todo = await apart(plan, wanted, there, overwrite=request.overwrite)
        self._check(todo, wanted)
        if gone := stale(staged, todo, wanted):
            await self._sweep({path: staged.pop(path) for path in gone})
        self._there = there
        means.tally.skipped += len(todo.skipped)
        for path, why in todo.left.items():
            means.leave(path, why)
        means.tally.wanted = len(todo.send) + len(todo.links)
        means.tally.total = sum(entry.size for entry in todo.send.values())
        await means.all(self._units(todo, staged, tars=tars))
        # what has not come whole must not be put with what has
        if half := {p: e for p, e in todo.send.items() if p in means.troubles}:
            await self._sweep(half)
        await self._finish(todo)

    def _look(self) -> list[Source]:
        request, limits = self._request, self._means.site.limits
        return [
            source(
                one,
                self._means.roots,
                recursive=request.recursive,
                most=limits.copy_names,
            )
            for one in request.here
        ]

    @property
    def _wants_folder(self) -> bool:
        """The destination is to be a directory, and is made."""
        (there,) = self._request.there
        return self._request.into or len(self._sources) > 1 or there.endswith("/")

    async def _find(self) -> None:
        """Find out where it goes."""
        (there,) = self._request.there
        real, kind = await self._where(there, want=self._wants_folder)
        path = shown(real)
        if kind == "other":
            raise StateError(
                Reason.FILE_FAILED,
                f"{path} is neither a file nor a directory",
                hint="Give another destination.",
                metadata={"path": path},
            )
        if kind == "dir":
            self._folder = real
        else:
            self._folder = posixpath.dirname(real)
            (one,) = self._sources
            name = posixpath.basename(real)
            if kind == "file" and one.tree[one.name].kind is Kind.DIRECTORY:
                raise fault(("nodir", path, "file"), write=True)
            tree = {name + p[len(one.name) :]: e for p, e in one.tree.items()}
            self._sources = [replace(one, name=name, tree=tree)]
        self._key = self._means.key
        self._stage = self._folder.rstrip(b"/") + b"/" + self._key

    async def _where(self, there: str, *, want: bool) -> tuple[bytes, str]:
        """Return where the destination is, and what is there.

        `want`: it is to be a directory.
        """
        script = words.where(quote_path(there, "destination"), want=want)
        reply = await self._ask(script)
        self._mask = int(reply.fields[2], 8) & 0o777
        return reply.fields[0], reply.texts[1]

    def _guard_given(self) -> None:
        """Refuse what can be known before a directory is made there."""
        check_names([one.name for one in self._sources])
        if self._wants_folder:
            (there,) = self._request.there
            self._folder = there.encode()
            for one in self._sources:
                self._guard(one.tree)

    def _guard(self, wanted: Tree) -> None:
        for path in wanted:
            full = (self._folder.rstrip(b"/") + b"/" + path).decode("utf-8", "replace")
            if sensitive.lets_in(full):
                raise secret(full, write=True)

    async def _begin(self) -> tuple[Tree, Tree, bool]:
        """Make the staging directory; return what is in it, and where it will go."""
        tops = [one.name for one in self._sources]
        script = words.stage(self._folder, self._key, tops)
        reply, rest = await self._reach.steadily(lambda wire: wire.ask(script))
        if not reply.ok:
            raise refused(reply, write=True)
        self._ours = True
        records, links, *more = rest.split(script.mark)
        staged = (await apart(words.listing, records, links, script.mark)).tree
        there: Tree = {}
        while len(more) >= 2:  # noqa: PLR2004  records and links
            there |= (await apart(words.listing, more[0], more[1], script.mark)).tree
            more = more[2:]
        return staged, there, reply.fields[0] == b"tar"

    async def _sweep(self, gone: Tree) -> None:
        """Delete what an earlier attempt left in the staging directory."""
        names = b"".join(b"./" + path + b"\0" for path in sorted(gone))
        script = words.sweep(self._stage)
        reply, _ = await self._reach.steadily(lambda wire: wire.ask(script, names))
        if not reply.ok:
            raise refused(reply, write=True)

    def _check(self, todo: Plan, wanted: Tree) -> None:
        """Refuse where one file was meant and can't be put."""
        if len(wanted) > 1:
            for path, why in todo.blocked.items():
                self._means.trouble(path, why)
            return
        (name,) = wanted
        check_one(todo, shown(self._folder.rstrip(b"/") + b"/" + name), "")

    def _mode(self, path: bytes, entry: Entry) -> int:
        if self._request.preserve:
            return entry.mode & 0o7777
        return mode_of(entry, self._there.get(path), self._mask)

    def _units(self, todo: Plan, staged: Tree, *, tars: bool) -> list[Unit]:
        """Return what is to be sent, without what an earlier attempt has brought."""
        means = self._means
        small: Tree = {}
        large: list[Unit] = []
        for path, entry in todo.send.items():
            before = staged.get(path)
            if before is not None and before.same(entry):
                means.tally.find(entry.size)
                means.tally.files += 1
            elif tars and entry.size <= SMALL_BYTES and not quoted(path):
                small[path] = entry
            else:
                have = before.size if before is not None else 0
                large.append(self._one(path, entry, have=have))
        at_once = means.site.limits.copy_parallel
        heaps = batches(small, BATCH_BYTES, BATCH_FILES, at_once)
        if len(todo.send) == 1 and small:
            ((path, entry),) = small.items()
            return [self._one(path, entry, have=0)]
        many = [self._many(n, heap, small) for n, heap in enumerate(heaps)]
        return [*large, *many]

    def _source(self, path: bytes) -> tuple[Source, bytes]:
        top = path.partition(b"/")[0]
        one = next(one for one in self._sources if one.name == top)
        return one, one.inner(path)

    def _one(self, path: bytes, entry: Entry, *, have: int) -> Unit:
        async def work(reach: Reach) -> None:
            try:
                await self._send(reach, path, entry, have)
            except OSError as error:
                self._means.trouble(path, error.strerror or str(error))

        return work

    async def _send(self, reach: Reach, path: bytes, entry: Entry, have: int) -> None:
        """Send one file, from where the host has it on after each cut."""
        one, inner = self._source(path)
        tally = self._means.tally
        tally.now = shown(path)
        file = await taken(os.close, one.place.read, inner)
        try:
            known, changed = have > 0, False
            for _ in range(_TRIES):
                about = os.fstat(file)
                now = as_it_is(entry, about)
                tally.total += now.size - entry.size
                entry = now
                if not await self._bring(reach, path, entry, file, known=known):
                    known, changed = False, False  # what lies there is none of ours
                    continue
                if await apart(stayed, file, about, self._sums[path]):
                    return
                tally.take_back(entry.size)
                tally.files -= 1
                known = changed = True
            if changed:
                self._means.trouble(path, "it was changed each time it was copied")
                return
            raise StateError(
                Reason.FILE_FAILED,
                f"{shown(path)} arrived {_TRIES} times with another checksum",
                hint="Look at the host's disk and memory.",
                ran=Ran.YES,
            )
        finally:
            await apart(os.close, file)

    async def _bring(
        self, reach: Reach, path: bytes, entry: Entry, file: int, *, known: bool
    ) -> bool:
        """Send a file; return whether it arrived as it is.

        `known`: the host has the beginning of one already.
        """
        told = replace(entry, mode=self._mode(path, entry))
        sent, again = Sent(), iter(range(1, _TRIES))

        async def attempt(wire: Wire) -> tuple[Reply, bool | None, str]:
            nonlocal known
            at, running = 0, hashlib.sha256()
            if known:
                at, running = await self._agreed(wire, path, file, entry)
            known = True
            if at > sent.count:
                self._means.tally.find(at - sent.count)
            else:
                self._means.tally.take_back(sent.count - at)
            sent.count = at
            outward = Outward(file, self._means, running, sent)
            reply, same = await self._give(wire, path, told, at, outward)
            if reply.fields[:1] == (b"short",) and next(again, None):
                raise Cut("what an earlier channel had still to write came between")
            return reply, same, running.hexdigest()

        reply, same, ours = await reach.steadily(attempt)
        if not reply.ok:
            raise refused(reply, write=True)
        if same is False:
            self._means.tally.take_back(entry.size)
            return False
        if same is None:
            self._means.note(_UNVERIFIED)
        self._means.unset(reply.texts[2])
        self._means.sha256 = self._sums[path] = ours
        self._means.tally.files += 1
        return True

    async def _give(
        self, wire: Wire, path: bytes, told: Entry, at: int, outward: Outward
    ) -> tuple[Reply, bool | None]:
        """Send a file from `at` on; return whether it is right, where that is told."""
        async with Early(self._means, self._stage, path) as early:
            stretches = outward.stretches(at, told.size)
            async for begin, end, parted in early.parted(stretches, told.size):
                last, since = end == told.size, 0
                if parted:
                    since = begin
                    early.begin(begin, outward.part())
                upto = told if last else replace(told, size=end)
                script = words.take(
                    self._stage, path, begin, upto, sums=last, since=since
                )
                pieces = outward.pieces(begin, end)
                reply = await wire.give(script, pieces, summed=told.size)
                if not reply.ok:
                    return reply, None
                if last:
                    return reply, await early.same(reply.texts[1], outward.last)
        raise OSError(5, "it became shorter while it was copied")

    async def _agreed(
        self, wire: Wire, path: bytes, file: int, entry: Entry
    ) -> tuple[int, hashlib._Hash]:  # pyright: ignore[reportPrivateUsage]  it has no other name
        """Return how much of a file is there already and is right."""
        reply, _ = await wire.ask(words.prefix(self._stage, path), summed=entry.size)
        if not reply.ok:
            return 0, hashlib.sha256()
        count, theirs = int(reply.fields[0]), reply.texts[1]
        if not 0 < count <= entry.size:
            return 0, hashlib.sha256()
        ours = await apart(digest, file, count)
        if ours.hexdigest() != theirs:
            return 0, hashlib.sha256()
        return count, ours

    def _many(self, number: int, heap: list[bytes], tree: Tree) -> Unit:
        parcel = Parcel(tree, self._means, self._source, self._mode, number)

        async def work(reach: Reach) -> None:
            sent = Sent()

            async def attempt(wire: Wire) -> Reply:
                self._means.tally.take_back(sent.count)
                sent.count = 0
                script = words.take_many(self._stage, parcel.sums)
                return await wire.give(script, parcel.packed(heap, sent))

            self._means.tally.now = shown(heap[0])
            for last in (False, True):
                reply = await reach.steadily(attempt)
                if reply.ok:
                    break
                if last or reply.fields[:1] != (b"sum",):
                    raise refused(reply, write=True)
            self._means.tally.files += sent.files
            for path, entry in parcel.grown.items():
                await self._one(path, entry, have=0)(reach)

        return work

    async def _finish(self, todo: Plan) -> None:
        """Put everything in its place."""
        modes = {path: self._mode(path, e) for path, e in todo.folders.items()}
        times = {path: e.modified for path, e in todo.folders.items()}
        lines = made(modes)
        for path, entry in todo.links.items():
            name = words.word(path)
            above = posixpath.dirname(path)
            if above:
                lines.append(f"mkdir -p -- {words.word(above)}")
            lines.append(f"link {words.word(entry.target)} {name}")
        lines += missed(modes)
        if not self._request.preserve:
            lines.append("find . -type f -exec touch -- {} +")
        self._means.tally.files += len(todo.links)
        placing = Placing(
            folder=self._folder,
            key=self._key,
            names=tuple(one.name for one in self._sources),
            first="\n".join(lines),
            then="\n".join(settled(modes, times if self._request.preserve else {})),
        )
        await self._means.placing(placing)
        await put(placing, self._request, self._means, self._reach)

    async def place(self, placing: Placing) -> None:
        """Put what has come in its place, where an earlier daemon may have begun to.

        Raises:
            DaemonError: It can't be put there.
        """
        self._folder, self._key, self._ours = placing.folder, placing.key, True
        try:
            await put(placing, self._request, self._means, self._reach, again=True)
        finally:
            self._reach.release()

    async def drop(self) -> None:
        """Delete what was sent and has no place."""
        if self._ours:
            script = words.drop(self._folder, self._key)
            try:
                await (await self._reach.wire()).ask(script)
            finally:
                self._reach.release()

    async def _ask(self, script: Script) -> Reply:
        reply, _ = await self._reach.steadily(lambda wire: wire.ask(script))
        if not reply.ok:
            raise refused(reply, write=True)
        return reply
