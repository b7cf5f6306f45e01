"""Makes one directory like another without rsync: our own comparison, by SFTP."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import stat
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from holdfast_daemon.connection.finishing import to_its_end
from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.connection.sftp_tree import ASIDE
from holdfast_daemon.transfer.here.local_tree import LocalTree, kind_of, trouble
from holdfast_daemon.transfer.tree.compare import Action, Entry, Kind, steps
from holdfast_daemon.transfer.tree.draft import drafted, is_draft

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence

    from holdfast_daemon.connection.sftp_tree import SftpTree
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.transfer.sync.itemize import Report
    from holdfast_daemon.transfer.sync.rsync import SyncRequest
    from holdfast_daemon.transfer.tree.compare import Step, Tree
    from holdfast_daemon.transfer.tree.pattern import Excluded

# Files under way at once: a round trip each would take long.
_AT_ONCE = 16
_LEAST_MODE = 0o600
_PATH_BYTES = 4096
_REFUSED = (OSError, SftpError)


class _Side(Protocol):
    """What both trees can do."""

    def read(self, path: bytes) -> AsyncGenerator[bytes]: ...
    async def write(
        self,
        path: bytes,
        pieces: AsyncIterator[bytes],
        mode: int,
        modified: int,
        part: bytes,
    ) -> None: ...
    async def set(self, path: bytes, mode: int | None, modified: int) -> None: ...
    async def make_directory(self, path: bytes, mode: int | None) -> None: ...
    async def link(self, path: bytes, target: bytes) -> None: ...
    async def remove(self, path: bytes, *, directory: bool) -> None: ...


class NoSource(Exception):  # noqa: N818  a state first, an error second
    """The source is no directory; the text is the system's."""


class TooLargeError(Exception):
    """The host tells of more names than are compared."""


class Mirror:
    """One such sync.

    Attributes:
        report: What it did so far.
        troubles: What it could not do, in rsync's form.
    """

    def __init__(
        self,
        request: SyncRequest,
        there: SftpTree,
        report: Report,
        *,
        modes: bool,
        token: str,
        told: Callable[[bytes], None],
        limits: Limits,
    ) -> None:
        """Sync with the host's tree `there`; `told` gets a line for each change.

        `modes`: permissions mean something on the host. `token`: in the names of files
        that it has not finished.
        """
        self._request = request
        self._there = there
        self._here = LocalTree(request.here)
        self._modes = modes
        self._token = token
        self._told = told
        self._most = limits.sync_changes
        self._bound = limits.sync_entries
        self.report = report
        self.troubles: list[str] = []
        sides: tuple[_Side, _Side] = (self._here, there)
        self._from, self._to = sides if request.upload else sides[::-1]

    async def run(self, excluded: Excluded) -> None:
        """Compare, and do what is to be done.

        Raises:
            NoSource: There is no such directory.
            SftpError: The destination can't be looked at, or made.
            OSError: The same on this machine.
        TooLargeError: The host tells of too many names.
        """
        if self._request.upload:
            here, missing = await self._scan_here(excluded)
            there, unread = await self._scan_there(excluded)
        else:  # a destination is made, once there is something for it
            there, unread = await self._scan_there(excluded)
            here, missing = await self._scan_here(excluded)
        self.troubles += [*missing, *unread]
        source, destination = (here, there) if self._request.upload else (there, here)
        replaced = await self._drop_drafts(destination)
        differ = await self._differ(source, destination)
        self.report.files = len(source) + 1
        # What could not be read may be there: nothing is deleted for want of it.
        blind = missing if self._request.upload else unread
        plan = steps(
            source,
            destination,
            delete=self._request.delete and not blind,
            modes=self._modes,
            differ=differ,
        )
        await self._do(list(plan))
        if not self.troubles:  # what was to take its place is there now
            await self._drop(replaced)

    async def _drop_drafts(self, destination: Tree) -> list[bytes]:
        """Delete what an earlier daemon that died had not finished: it is nobody's.

        Return what it was about to replace, which may lie nowhere else.
        """
        replaced: list[bytes] = []
        for path, entry in list(destination.items()):
            if entry.kind is Kind.FILE and is_draft(path, self._token):
                del destination[path]
                if path.endswith(ASIDE):
                    replaced.append(path)
                else:
                    await self._drop([path])
        return replaced

    async def _drop(self, paths: Sequence[bytes]) -> None:
        for path in paths:
            with contextlib.suppress(*_REFUSED):
                await self._to.remove(path, directory=False)

    async def _scan_here(self, excluded: Excluded) -> tuple[Tree, list[str]]:
        if await asyncio.to_thread(self._here.exists):
            return await self._here.scan(excluded)
        if self._request.upload:
            raise FileNotFoundError(2, "the source is gone", self._request.here)
        if not self._request.dry_run:
            await self._here.make_root()
        self._tell("created", b"./", "")
        self.report.created += 1
        return {}, []

    async def _scan_there(self, excluded: Excluded) -> tuple[Tree, list[str]]:
        mode = await self._there.kind()
        if mode is None:
            if not self._request.upload:
                raise NoSource("No such file or directory")
            if not self._request.dry_run:
                above = await asyncio.to_thread(self._here.mode)
                await self._there.make_directory(b"", self._made(above))
            self._tell("created", b"./", "")
            self.report.created += 1
            return {}, []
        if kind_of(mode) is not Kind.DIRECTORY:
            raise NoSource("Not a directory")
        tree: Tree = {}
        troubles: list[str] = []
        todo = [b""]
        # A host may tell of directories in directories without an end.
        while todo and len(tree) <= self._bound:
            batch, todo = todo[:_AT_ONCE], todo[_AT_ONCE:]
            found = await asyncio.gather(
                *(self._look(tree, above, excluded, troubles) for above in batch)
            )
            for below in found:
                todo += below
        if len(tree) > self._bound:
            raise TooLargeError(self._bound)
        return tree, troubles

    async def _look(
        self, tree: Tree, above: bytes, excluded: Excluded, troubles: list[str]
    ) -> list[bytes]:
        """Note what a directory of the host holds; return the directories in it."""
        try:
            rows = await self._there.list(above)
        except SftpError as error:
            troubles.append(trouble("opendir", above, str(error)))
            return []
        below: list[bytes] = []
        for name, about in rows:
            if b"/" in name or b"\0" in name:
                # no file has such a name: this host wants to write elsewhere
                troubles.append(trouble("name", name, "Invalid argument"))
                continue
            path = above + b"/" + name if above else name
            kind = kind_of(about.mode)
            if excluded(path, directory=kind is Kind.DIRECTORY):
                continue
            target = b""
            if kind is Kind.LINK:
                try:
                    target = await self._there.target(path)
                except SftpError as error:
                    troubles.append(trouble("readlink", path, str(error)))
                    continue
            tree[path] = Entry(
                kind, about.size, about.modified, about.mode & 0o7777, target
            )
            if kind is Kind.DIRECTORY and len(path) < _PATH_BYTES:
                below.append(path)
        return below

    async def _differ(self, source: Tree, destination: Tree) -> set[bytes] | None:
        """Return the files whose contents differ, where contents are to be compared."""
        if not self._request.checksum:
            return None
        found: set[bytes] = set()
        for path, entry in source.items():
            there = destination.get(path)
            if there is None or {entry.kind, there.kind} != {Kind.FILE}:
                continue
            if entry.size != there.size:
                found.add(path)
                continue
            try:
                both = await asyncio.gather(
                    _digest(self._from.read(path)), _digest(self._to.read(path))
                )
            except _REFUSED as error:
                self._trouble("read", path, error)
                continue
            self.report.bytes += entry.size
            if both[0] != both[1]:
                found.add(path)
        return found

    async def _do(self, plan: list[Step]) -> None:
        """Do the steps: files side by side, all else in its order."""
        turn = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as files:
            for step in plan:
                if step.action is Action.PUT:
                    await turn.acquire()
                    files.create_task(self._put(step, turn))
                elif not (step.action is Action.ATTRIBUTES and not step.why):
                    await self._one(step)
        for step in plan:
            # A directory's time is set once nothing more changes in it.
            last = step.action is Action.ATTRIBUTES and not step.why
            if last and not self._request.dry_run:
                await self._finish(step)

    async def _finish(self, step: Step) -> None:
        mode = step.entry.mode if self._modes else None
        with contextlib.suppress(*_REFUSED):
            await self._to.set(step.path, mode, step.entry.modified)

    async def _put(self, step: Step, turn: asyncio.Semaphore) -> None:
        try:
            await self._one(step)
        finally:
            turn.release()

    async def _one(self, step: Step) -> None:
        if step.action is Action.LEAVE:
            self.troubles.append(trouble("leave", step.path, step.why))
            return
        if not self._request.dry_run:
            try:
                await self._act(step)
            except _REFUSED as error:
                if step.action is Action.DELETE and step.entry.kind is Kind.DIRECTORY:
                    return  # what was left out holds it open, as with rsync
                self._trouble(step.action.value, step.path, error)
                return
        self._count(step)

    async def _act(self, step: Step) -> None:
        path, entry = step.path, step.entry
        match step.action:
            case Action.DELETE:
                directory = entry.kind is Kind.DIRECTORY
                await self._to.remove(path, directory=directory)
            case Action.DIRECTORY:
                await self._to.make_directory(path, self._made(entry.mode))
            case Action.LINK:
                await to_its_end(self._link(step))
            case Action.ATTRIBUTES:
                await self._to.set(path, entry.mode, entry.modified)
            case _:
                mode = entry.mode if self._modes else entry.mode | _LEAST_MODE
                part = drafted(path, self._token)
                async with aclosing(self._counted(path)) as pieces:
                    await self._to.write(path, pieces, mode, entry.modified, part)

    async def _link(self, step: Step) -> None:
        if not step.new:
            await self._to.remove(step.path, directory=False)
        await self._to.link(step.path, step.entry.target)

    def _made(self, mode: int) -> int | None:
        """Return what a directory is made with: by it nobody gets in meanwhile.

        Its own mode comes last, and might keep us out before.
        """
        return stat.S_IMODE(mode) & 0o777 | 0o700 if self._modes else None

    async def _counted(self, path: bytes) -> AsyncGenerator[bytes]:
        async with aclosing(self._from.read(path)) as pieces:
            async for piece in pieces:
                self.report.bytes += len(piece)
                yield piece

    def _count(self, step: Step) -> None:
        if step.action is Action.DELETE:
            if not step.new:
                self.report.deleted += 1
                self._tell("deleted", _named(step), "")
        elif step.new:
            self.report.created += 1
            self._tell("created", _named(step), "")
        else:
            self.report.updated += 1
            self._tell("updated", _named(step), f" ({step.why})")

    def _tell(self, word: str, name: bytes, more: str) -> None:
        shown = b"".join(
            b"\\#%03o" % c if c < 32 or c == 127 else bytes([c])  # noqa: PLR2004
            for c in name
        )
        line = word.encode() + b" " + shown + more.encode()
        self.report.add(line.decode("utf-8", "replace"), self._most)
        self._told(line + b"\n")

    def _trouble(self, doing: str, path: bytes, error: Exception) -> None:
        why = error.strerror if isinstance(error, OSError) else str(error)
        self.troubles.append(trouble(doing, path, why or str(error)))


def _named(step: Step) -> bytes:
    """Return a name as rsync shows it."""
    if step.entry.kind is Kind.DIRECTORY:
        return step.path + b"/"
    if step.entry.kind is Kind.LINK and step.action is Action.LINK:
        return step.path + b" -> " + step.entry.target
    return step.path


async def _digest(read: AsyncGenerator[bytes]) -> bytes:
    found = hashlib.sha256()
    async with aclosing(read) as pieces:
        async for piece in pieces:
            found.update(piece)
    return found.digest()
