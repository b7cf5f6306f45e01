"""A directory of this machine: listed and changed without ever following a link below.

Every name is opened from the descriptor of the directory above it, so nothing that
another program, or a hostile host, puts in the way leads out of the root.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.means.apart import taken
from holdfast_daemon.transfer.tree.compare import Entry, Kind

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from holdfast_daemon.transfer.tree.compare import Tree
    from holdfast_daemon.transfer.tree.pattern import Excluded

_PIECE = 1024 * 1024
# SFTP tells seconds in 32 bits, and none before 1970 (draft-ietf-secsh-filexfer-02, 5).
_LATEST = 2**32 - 1
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFLNK: Kind.LINK,
}


def kind_of(mode: int) -> Kind:
    """Return what a mode stands for."""
    return _KINDS.get(stat.S_IFMT(mode), Kind.OTHER)


class LocalTree:
    """Names are relative to `root`, as bytes."""

    def __init__(self, root: str) -> None:
        """Work below `root`, an absolute path without links."""
        self._root = os.fsencode(root)

    async def scan(self, excluded: Excluded) -> tuple[Tree, list[str]]:
        """Return all below, and what could not be read."""
        return await asyncio.to_thread(self._scan, excluded)

    def _scan(self, excluded: Excluded) -> tuple[Tree, list[str]]:
        tree: Tree = {}
        troubles: list[str] = []
        todo = [b""]
        while todo:
            above = todo.pop()
            try:
                with self._folder(above) as folder:
                    names = [os.fsencode(name) for name in os.listdir(folder)]  # noqa: PTH208  by its descriptor
                    for name in names:
                        path = above + b"/" + name if above else name
                        with contextlib.suppress(FileNotFoundError):
                            entry = _entry(name, folder)
                            directory = entry.kind is Kind.DIRECTORY
                            if excluded(path, directory=directory):
                                continue
                            tree[path] = entry
                            if directory:
                                todo.append(path)
            except OSError as error:
                troubles.append(trouble("opendir", above, error.strerror or str(error)))
        return tree, troubles

    @contextlib.contextmanager
    def _folder(self, path: bytes) -> Generator[int]:
        """Open a directory below the root, step by step."""
        now = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in path.split(b"/") if path else ():
                if part in (b"", b".", b".."):
                    raise NotADirectoryError(20, "Not a directory")
                below = os.open(part, _FOLDER, dir_fd=now)
                os.close(now)
                now = below
            yield now
        finally:
            os.close(now)

    @contextlib.contextmanager
    def _above(self, path: bytes) -> Generator[tuple[int, bytes]]:
        above, _, name = path.rpartition(b"/")
        if name in (b"", b".", b".."):
            raise NotADirectoryError(20, "Not a directory")
        with self._folder(above) as folder:
            yield folder, name

    def exists(self) -> bool:
        """Say whether there is such a directory."""
        return Path(os.fsdecode(self._root)).is_dir()

    def mode(self) -> int:
        """Return the mode of the directory itself, links followed."""
        return os.stat(self._root).st_mode  # noqa: PTH116  its name is bytes

    async def make_root(self) -> None:
        """Make the directory itself; the one above it must be there."""
        await asyncio.to_thread(os.mkdir, self._root)

    async def read(self, path: bytes) -> AsyncGenerator[bytes]:
        """Yield what a file holds."""

        def opened() -> int:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with self._above(path) as (folder, name):
                return os.open(name, flags, dir_fd=folder)

        with os.fdopen(await taken(os.close, opened), "rb", buffering=0) as file:
            while data := await asyncio.to_thread(file.read, _PIECE):
                yield data

    async def write(
        self,
        path: bytes,
        pieces: AsyncIterator[bytes],
        mode: int,
        modified: int,
        part: bytes,
    ) -> None:
        """Put a file in its place once it is whole; else nothing of it is left.

        `part`: what it is called beside its place until then.
        """

        def opened() -> int:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with self._above(path) as (folder, _):
                return os.open(part, flags, 0o600, dir_fd=folder)

        def placed(file: int) -> None:
            os.fchmod(file, mode)
            os.utime(file, (modified, modified))
            with self._above(path) as (folder, name):
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)

        def dropped() -> None:
            with contextlib.suppress(OSError), self._above(path) as (folder, _):
                os.unlink(part, dir_fd=folder)

        with os.fdopen(await taken(os.close, opened), "wb", buffering=0) as file:
            try:
                async for piece in pieces:
                    await asyncio.to_thread(_write_all, file.fileno(), piece)
                await asyncio.to_thread(placed, file.fileno())
            except BaseException:
                dropped()
                raise

    async def set(self, path: bytes, mode: int | None, modified: int) -> None:
        """Set permissions and time of a file or directory."""

        def work() -> None:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with self._above(path) as (folder, name):
                file = os.open(name, flags, dir_fd=folder)
                try:
                    if mode is not None:
                        os.fchmod(file, mode)
                    os.utime(file, (modified, modified))
                finally:
                    os.close(file)

        await asyncio.to_thread(work)

    async def make_directory(self, path: bytes, mode: int | None) -> None:
        """Make a directory with `mode` less our mask; None: as that has it."""

        def work() -> None:
            with self._above(path) as (folder, name):
                os.mkdir(name, 0o777 if mode is None else mode, dir_fd=folder)

        await asyncio.to_thread(work)

    async def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link, whatever it leads to: nothing here follows it."""

        def work() -> None:
            with self._above(path) as (folder, name):
                os.symlink(target, name, dir_fd=folder)

        await asyncio.to_thread(work)

    async def remove(self, path: bytes, *, directory: bool) -> None:
        """Delete a name; a directory only where it is empty."""

        def work() -> None:
            with self._above(path) as (folder, name):
                if directory:
                    os.rmdir(name, dir_fd=folder)
                else:
                    os.unlink(name, dir_fd=folder)

        await asyncio.to_thread(work)


def trouble(doing: str, path: bytes, why: str) -> str:
    """Return what went wrong with one name, in rsync's form."""
    shown = path.decode("utf-8", "replace") or "."
    return f'{doing} "{shown}" failed: {why}'


def _entry(name: bytes, folder: int) -> Entry:
    about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    kind = kind_of(about.st_mode)
    target = os.readlink(name, dir_fd=folder) if kind is Kind.LINK else b""
    return Entry(
        kind,
        about.st_size,
        min(max(about.st_mtime_ns // 10**9, 0), _LATEST),
        stat.S_IMODE(about.st_mode),
        target,
    )


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
