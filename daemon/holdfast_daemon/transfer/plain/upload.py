"""Copies files of this machine to a host that has SFTP and no shell.

As with a shell all is sent to a directory of its own beside the destination, and is
renamed once it is there whole. The host adds up no checksum: what it acknowledged is
counted, and what an earlier call left is read back and compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import secrets
from typing import TYPE_CHECKING

from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.file.fault import fault
from holdfast_daemon.file.script import sftp_path, shown
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.here.outward import Outward
from holdfast_daemon.transfer.here.parcel import Sent
from holdfast_daemon.transfer.here.source import digest
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.errand import (
    BATCH_BYTES,
    PIECE_BYTES,
    SMALL_BYTES,
    CopyRequest,
    Means,
    refused,
)
from holdfast_daemon.transfer.means.placing import Placing
from holdfast_daemon.transfer.means.stream import Reply
from holdfast_daemon.transfer.plain.aim import destination
from holdfast_daemon.transfer.plain.landing import place
from holdfast_daemon.transfer.plain.reach import PlainReach
from holdfast_daemon.transfer.plain.tree import (
    Listing,
    entry_of,
    folder_of,
    join,
    remove,
)
from holdfast_daemon.transfer.shell.upload import Upload
from holdfast_daemon.transfer.tree.compare import Kind, Tree
from holdfast_daemon.transfer.tree.plan import batches

if TYPE_CHECKING:
    from holdfast_daemon.connection.sftp import Attributes
    from holdfast_daemon.connection.sftp_files import SftpFile, SftpFiles
    from holdfast_daemon.transfer.means.errand import Unit
    from holdfast_daemon.transfer.means.reach import Reach
    from holdfast_daemon.transfer.tree.compare import Entry
    from holdfast_daemon.transfer.tree.plan import Plan

_BATCH_FILES = 200
_OWN = 0o700
_OTHERS = 0o077
UNVERIFIED = (
    "by SFTP, for the host has no POSIX shell: it adds up no checksums, so sizes were"
    " compared, and sha256 is of what {was}"
)


class PlainUpload(Upload):
    """One such copy."""

    def __init__(self, request: CopyRequest, means: Means) -> None:
        """Copy as `request` says."""
        super().__init__(request, means)
        self._plain = PlainReach(means.site, means.tally)
        self._folders: asyncio.Task[None] | None = None
        self._alone = False

    async def run(self) -> None:
        """Copy it.

        Raises:
            DaemonError: Nothing was put in its place.
        """
        try:
            await self._run()
        finally:
            if self._folders is not None:
                self._folders.cancel()
                await asyncio.gather(self._folders, return_exceptions=True)
            await self._plain.release()

    # where it goes

    async def _where(self, there: str, *, want: bool) -> tuple[bytes, str]:
        path = sftp_path(there, "destination")
        try:
            return await self._plain.steadily(
                lambda files: destination(files, path, want=want)
            )
        except SftpError as error:
            raise fault(("parents", shown(path), str(error)), write=True) from None

    async def _begin(self) -> tuple[Tree, Tree, bool]:
        try:
            await self._plain.steadily(self._own)
        except SftpError as error:
            why = await self._why(self._folder) or str(error)
            raise fault(("stage", shown(self._folder), why), write=True) from None
        self._ours = True
        most = self._means.site.limits.copy_names
        wanted: Tree = {}
        there: Tree = {}
        for one in self._sources:
            wanted |= one.tree
            there |= await self._before(one.name, most)
        staged = Listing(self._plain, self._stage, 2 * most)
        await staged.read()
        return staged.tree, there, False

    async def _before(self, name: bytes, most: int) -> Tree:
        """Return what is where a name will go."""
        full = join(self._folder, name)
        about = await self._plain.steadily(lambda files: files.look(full))
        if about is None:
            return {}
        tree = {name: entry_of(about)}
        if tree[name].kind is Kind.DIRECTORY:
            listing = Listing(self._plain, full, most)
            await listing.read()
            tree |= {join(name, path): entry for path, entry in listing.tree.items()}
        return tree

    async def _sweep(self, gone: Tree) -> None:
        for path in sorted(gone, reverse=True):
            await self._clear(join(self._stage, path), gone[path])

    async def _clear(self, full: bytes, entry: Entry) -> None:
        folder = entry.kind is Kind.DIRECTORY
        with contextlib.suppress(SftpError):
            await self._plain.steadily(lambda files: files.remove(full, folder=folder))

    async def _own(self, files: SftpFiles) -> None:
        """Make the staging directory, or take the one of an earlier attempt."""
        made = await folder_of(files, self._stage, _OWN)
        about = await files.look(self._stage)
        # what is made in it tells who we are here, and what new names are like
        mine = await self._probe(files, 0o777)
        mode = mine.mode & 0o777
        if mode:
            self._mask = 0o777 & ~mode
        if made:
            return
        ours = about is not None and about.uid == mine.uid
        if about is not None and ours and about.mode & _OTHERS:
            # where the host knows of no modes this is not to be asked for
            ours = bool((await self._probe(files, _OWN)).mode & _OTHERS)
        if not ours:
            why = f"{shown(self._stage)} is in the way"
            raise fault(("stage", shown(self._folder), why), write=True)

    async def _probe(self, files: SftpFiles, mode: int) -> Attributes:
        probe = join(self._stage, b".probe-" + secrets.token_hex(8).encode())
        await files.make_folder(probe, mode)
        found = await files.look(probe)
        await files.remove(probe, folder=True)
        if found is None:
            raise SftpError("it went away")
        return found

    # what is sent

    def _units(self, todo: Plan, staged: Tree, *, tars: bool) -> list[Unit]:  # noqa: ARG002  no shell, no tar
        means = self._means
        self._alone = len(todo.send) == 1
        small: Tree = {}
        units: list[Unit] = []
        for path, entry in todo.send.items():
            before = staged.get(path)
            same = before is not None and before.size == entry.size
            if same and before is not None and before.modified == entry.modified:
                means.tally.done += entry.size
                means.tally.files += 1
            elif entry.size <= SMALL_BYTES:
                small[path] = entry
            else:
                have = before.size if before is not None else 0
                units.append(self._one(path, entry, have=have))
        self._folders = asyncio.ensure_future(self._make_folders(todo, staged))
        heaps = batches(small, BATCH_BYTES, _BATCH_FILES)
        return units + [self._heap(heap, small) for heap in heaps]

    async def _make_folders(self, todo: Plan, staged: Tree) -> None:
        """Make every directory that something is put in, level by level."""
        levels: dict[int, set[bytes]] = {}
        for path in (*todo.send, *todo.links, *todo.folders):
            parts = path.split(b"/")
            if path not in todo.folders:
                parts.pop()
            for depth in range(1, len(parts) + 1):
                levels.setdefault(depth, set()).add(b"/".join(parts[:depth]))

        async def make(path: bytes) -> None:
            full = join(self._stage, path)
            await self._plain.steadily(lambda files: folder_of(files, full, _OWN))

        for depth in sorted(levels):
            await self._plain.each(sorted(levels[depth] - set(staged)), make)

    def _heap(self, heap: list[bytes], tree: Tree) -> Unit:
        async def work(reach: Reach) -> None:
            async def one(path: bytes) -> None:
                await self._one(path, tree[path], have=0)(reach)

            await self._plain.each(heap, one)

        return work

    async def _bring(
        self,
        reach: Reach,  # noqa: ARG002  that is the way by a shell
        path: bytes,
        entry: Entry,
        file: int,
        *,
        known: bool,
    ) -> bool:
        """Send a file, from where the host has it on after each cut."""
        sent, taken, left = Sent(), 0, known
        full = join(self._stage, path)
        modified = entry.modified if self._request.preserve or not self._alone else None

        def done(at: int) -> None:
            nonlocal taken
            taken = at

        async def attempt(files: SftpFiles) -> str:
            nonlocal left, taken
            trust = None if left else taken
            host, at, running = await self._opened(files, full, file, entry, trust)
            left = False
            if at > sent.count:
                self._means.tally.find(at - sent.count)
            else:
                self._means.tally.take_back(sent.count - at)
            sent.count = taken = at
            try:
                outward = Outward(file, self._means, running, sent)
                async for begin, end in outward.stretches(at, entry.size):
                    await host.pour(begin, outward.pieces(begin, end), done)
                about = await host.about()
                if about.size < entry.size:  # it ends with a hole
                    await host.cut_to(entry.size)
                    about = await host.about()
                await host.close()
            finally:
                await host.leave()
            if about.size != entry.size:
                raise refused(
                    Reply(ok=False, fields=(b"short", path, b"%d" % about.size)),
                    write=True,
                )
            await self._set(files, full, self._mode(path, entry), modified)
            return running.hexdigest()

        if self._folders is not None:
            await asyncio.shield(self._folders)
        try:
            self._sums[path] = await self._plain.steadily(attempt)
        except SftpError as error:
            # servers seldom say why
            why = await self._why(self._stage) or str(error)
            told = Reply(ok=False, fields=(b"write", path, why.encode()))
            raise refused(told, write=True) from None
        self._means.sha256 = self._sums[path]
        self._note(UNVERIFIED.format(was="was sent"))
        self._means.tally.files += 1
        return True

    async def _opened(
        self,
        files: SftpFiles,
        full: bytes,
        file: int,
        entry: Entry,
        trust: int | None,
    ) -> tuple[SftpFile, int, hashlib._Hash]:  # pyright: ignore[reportPrivateUsage]  it has no other name
        """Open the file that is written; return how much of it is there and right.

        `trust`: so much was acknowledged to us; None: what is there is of an earlier
        call, and is read back whole.
        """
        about = await files.look(full) if trust is None or trust else None
        if about is not None and kind_of(about.mode) is Kind.FILE:
            host = await files.open(full, "r+b")
            count = min(about.size, entry.size)
            if trust is not None:
                count = min(count, trust)
            try:
                least = 0 if trust is None else max(0, count - PIECE_BYTES)
                at, running = await self._alike(host, file, least, count)
                if at < about.size:
                    await host.cut_to(at)
            except BaseException:
                await host.leave()
                raise
            if trust is None and at:
                self._note(
                    "what an earlier call had brought was read back and compared"
                )
            return host, at, running
        try:
            host = await files.open(full, "xb")
        except SftpError:
            # what an earlier attempt left is none of ours any more
            with contextlib.suppress(SftpError):
                await files.remove(full)
            host = await files.open(full, "xb")
        return host, 0, hashlib.sha256()

    async def _alike(
        self, host: SftpFile, file: int, least: int, most: int
    ) -> tuple[int, hashlib._Hash]:  # pyright: ignore[reportPrivateUsage]  it has no other name
        """Compare from `least` to `most`; return how far both are the same."""
        running = await apart(digest, file, least)
        at = least
        async with contextlib.aclosing(host.draw(least, most)) as pieces:
            async for theirs in pieces:
                ours = await apart(os.pread, file, len(theirs), at)
                if ours != theirs:
                    break
                running.update(ours)
                at += len(ours)
        if least and at == least:
            return 0, hashlib.sha256()
        return at, running

    async def _set(
        self, files: SftpFiles, full: bytes, mode: int, modified: int | None
    ) -> None:
        try:
            await files.set(full, mode, modified)
        except SftpError as error:
            self._means.unset(str(error))

    async def _why(self, path: bytes) -> str:
        return await self._plain.steadily(lambda files: files.hindrance(path))

    # what is put in its place

    async def _finish(self, todo: Plan) -> None:
        if self._folders is not None:
            await self._folders
        linked = await self._link(todo)
        if not self._request.preserve and not self._alone:
            await self._freshen(todo)
        self._means.tally.files += linked
        keeps = self._request.preserve
        placing = Placing(
            folder=self._folder,
            key=self._key,
            names=tuple(one.name for one in self._sources),
            folders=tuple(
                (path, self._mode(path, entry), entry.modified if keeps else None)
                for path, entry in sorted(todo.folders.items(), reverse=True)
            ),
        )
        await self._means.placing(placing)
        await place(placing, self._request, self._means, self._plain)

    async def _link(self, todo: Plan) -> int:
        """Make the links; return how many could be made."""
        made = 0

        async def one(path: bytes) -> None:
            nonlocal made
            try:
                await self._plain.steadily(
                    lambda files: _link(
                        files, join(self._stage, path), todo.links[path].target
                    )
                )
                made += 1
            except SftpError as error:
                self._means.trouble(path, f"no link can be made there: {error}")

        await self._plain.each(todo.links, one)
        return made

    async def _freshen(self, todo: Plan) -> None:
        """Give files the host's own time: they had their own to be known again."""
        about = await self._plain.steadily(lambda files: files.look(self._stage))
        now = about.modified if about is not None else 0

        async def one(path: bytes) -> None:
            full = join(self._stage, path)
            with contextlib.suppress(SftpError):
                await self._plain.steadily(lambda files: files.set(full, None, now))

        if now:
            await self._plain.each(todo.send, one)

    async def place(self, placing: Placing) -> None:
        """Put what has come in its place, where an earlier daemon may have begun to.

        Raises:
            DaemonError: It can't be put there.
        """
        try:
            await place(placing, self._request, self._means, self._plain)
        finally:
            await self._plain.release()

    async def drop(self) -> None:
        """Delete what was sent and has no place."""
        if self._ours:
            try:
                most = 2 * self._means.site.limits.copy_names
                with contextlib.suppress(SftpError):
                    await remove(self._plain, self._stage, most)
            finally:
                await self._plain.release()

    def _note(self, note: str) -> None:
        if note not in self._means.notes:
            self._means.notes.append(note)


async def _link(files: SftpFiles, path: bytes, target: bytes) -> None:
    with contextlib.suppress(SftpError):
        await files.remove(path)
    await files.link(path, target)
