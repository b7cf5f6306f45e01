"""Trees of a host that has SFTP and no shell: named, listed and deleted."""

from __future__ import annotations

import posixpath
import stat
from typing import TYPE_CHECKING

from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.here.place import parts_of
from holdfast_daemon.transfer.here.source import too_many
from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.sftp import Attributes
    from holdfast_daemon.connection.sftp_files import SftpFiles
    from holdfast_daemon.transfer.plain.reach import PlainReach

# No system takes a longer one: a host may tell of directories without an end.
_PATH_BYTES = 4096


def join(folder: bytes, name: bytes) -> bytes:
    """Return a name in a directory."""
    return folder.rstrip(b"/") + b"/" + name


def entry_of(about: Attributes, target: bytes = b"") -> Entry:
    """Return what a server told of a name."""
    return Entry(
        kind_of(about.mode), about.size, about.modified, about.mode & 0o7777, target
    )


class Listing:
    """What is below one directory.

    Attributes:
        tree: What there is, relative to it.
        troubles: What could not be looked at, each with why.
        odd: Names that can be none, for they would lead elsewhere.
    """

    def __init__(self, reach: PlainReach, root: bytes, most: int) -> None:
        """List what is below `root`; more than `most` names are too many."""
        self._reach = reach
        self._root = root
        self._most = most
        self.tree: Tree = {}
        self.troubles: dict[bytes, str] = {}
        self.odd: list[bytes] = []

    async def read(self) -> None:
        """Read it, level by level.

        Raises:
            InputError: It holds too much.
        """
        level = [b""]
        while level:
            below: list[bytes] = []

            async def one(path: bytes, into: list[bytes] = below) -> None:
                into += await self._folder(path)

            await self._reach.each(level, one)
            level = [path for path in below if len(path) < _PATH_BYTES]

    async def _folder(self, path: bytes) -> list[bytes]:
        """Note what a directory holds; return the directories in it."""
        full = join(self._root, path) if path else self._root
        try:
            rows = await self._reach.steadily(lambda files: files.list(full))
        except SftpError as error:
            self.troubles[path] = str(error)
            return []
        folders: list[bytes] = []
        for name, told in rows:
            inner = path + b"/" + name if path else name
            try:
                if len(parts_of(name)) != 1:
                    raise OSError  # noqa: TRY301  as no name is told
            except OSError:
                self.odd.append(inner)
                continue
            try:
                entry = await self._entry(join(full, name), told)
            except SftpError as error:
                self.troubles[inner] = str(error)
                continue
            if entry is None:
                continue
            self.tree[inner] = entry
            if entry.kind is Kind.DIRECTORY:
                folders.append(inner)
            if len(self.tree) > self._most:
                raise too_many(self._most)
        return folders

    async def _entry(self, full: bytes, told: Attributes) -> Entry | None:
        if not stat.S_IFMT(told.mode):
            # this server tells less in its lists
            found = await self._reach.steadily(lambda files: files.look(full))
            if found is None:
                return None
            told = found
        target = b""
        if kind_of(told.mode) is Kind.LINK:
            target = await self._reach.steadily(lambda files: files.target(full))
        return entry_of(told, target)


async def remove(reach: PlainReach, path: bytes, most: int) -> None:
    """Delete a directory and all below it; links in it are deleted, not followed.

    Raises:
        SftpError: Not all of it can be.
    """
    listing = Listing(reach, path, most)
    await listing.read()
    folders = [n for n, e in listing.tree.items() if e.kind is Kind.DIRECTORY]
    others = [n for n, e in listing.tree.items() if e.kind is not Kind.DIRECTORY]

    async def one(name: bytes) -> None:
        await reach.steadily(lambda files: _remove(files, join(path, name)))

    await reach.each(others, one)
    for name in sorted(folders, reverse=True):
        await reach.steadily(_removing(join(path, name)))
    await reach.steadily(_removing(path))


def _removing(path: bytes) -> Callable[[SftpFiles], Awaitable[None]]:
    return lambda files: _remove(files, path, folder=True)


async def _remove(files: SftpFiles, path: bytes, *, folder: bool = False) -> None:
    """Delete a name; an answer that was lost may have told that it is gone."""
    try:
        await files.remove(path, folder=folder)
    except SftpError:
        if await files.look(path) is not None:
            raise


async def folder_of(files: SftpFiles, path: bytes, mode: int) -> bool:
    """Make a directory, or take the one that is there; return whether it was made."""
    try:
        await files.make_folder(path, mode)
    except SftpError:
        about = await files.look(path)
        if about is None or kind_of(about.mode) is not Kind.DIRECTORY:
            raise
        return False
    return True


async def make_all(files: SftpFiles, path: bytes) -> None:
    """Make a directory and those above it, where they are missing."""
    about = await files.look(path, follow=True)
    if about is not None and kind_of(about.mode) is Kind.DIRECTORY:
        return
    above = posixpath.dirname(path.rstrip(b"/"))
    if above not in (b"", path):
        await make_all(files, above)
    await files.make_folder(path.rstrip(b"/"), 0o777)
