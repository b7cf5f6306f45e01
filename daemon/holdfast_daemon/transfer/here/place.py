"""A directory of this machine, read and filled by descriptors.

No link below it is ever followed: whatever a hostile host sends as names, and whatever
somebody puts in the way meanwhile, nothing outside is opened. Everything here blocks
and belongs into a thread.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Generator

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_ON = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OWN, _OTHERS = 0o700, 0o077
_BARE = (b"", b".", b"..")


def parts_of(path: bytes) -> list[bytes]:
    """Return the names a path is made of.

    Raises:
        OSError: It is none that stays below where it begins.
    """
    parts = path.split(b"/")
    if any(part in _BARE or b"\0" in part for part in parts):
        raise OSError(errno.EINVAL, "it is no name below a directory")
    return parts


class Place:
    """Names are relative to `root`, as bytes."""

    def __init__(self, root: bytes) -> None:
        """Work below `root`: absolute, and without links."""
        self.root = root

    @contextlib.contextmanager
    def folder(self, path: bytes = b"", *, make: bool = False) -> Generator[int]:
        """Open a directory step by step; `make`: where there is none, make it."""
        folder = self.open(path, make=make)
        try:
            yield folder
        finally:
            os.close(folder)

    def open(self, path: bytes = b"", *, make: bool = False) -> int:
        """Open a directory as `folder` does; the caller closes it."""
        now = os.open(self.root, _FOLDER)
        try:
            for part in parts_of(path) if path else ():
                if make:
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part, _OWN, dir_fd=now)
                below = os.open(part, _FOLDER, dir_fd=now)
                os.close(now)
                now = below
        except BaseException:
            os.close(now)
            raise
        return now

    @contextlib.contextmanager
    def above(self, path: bytes, *, make: bool = False) -> Generator[tuple[int, bytes]]:
        """Open the directory that holds `path`, and return the name in it."""
        *over, name = parts_of(path)
        with self.folder(b"/".join(over), make=make) as folder:
            yield folder, name

    def look(self, path: bytes) -> os.stat_result | None:
        """Return what a name is, links not followed; None: there is none."""
        try:
            with self.above(path) as (folder, name):
                return os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def read(self, path: bytes) -> int:
        """Open a regular file for reading."""
        with self.above(path) as (folder, name):
            return read(folder, name)

    def create(self, path: bytes) -> int:
        """Make a file that was not there; what was there under the name is deleted."""
        with self.above(path, make=True) as (folder, name):
            return create(folder, name)

    def go_on(self, path: bytes) -> int | None:
        """Open a regular file to write on; None: there is none."""
        try:
            with self.above(path) as (folder, name):
                return _regular(os.open(name, _ON, dir_fd=folder))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link; nothing here ever follows it."""
        with self.above(path, make=True) as (folder, name):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=folder)
            os.symlink(target, name, dir_fd=folder)

    def own(self, name: bytes) -> Place:
        """Make a directory that only we may use, or take the one of an earlier time.

        Raises:
            OSError: There is something of that name which is not ours.
        """
        with self.folder() as folder:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, _OWN, dir_fd=folder)
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
            ours = stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid()
            # A directory may hand down the bit that is of its group.
            if not ours or about.st_mode & _OTHERS:
                raise OSError(errno.EEXIST, "something else of that name is in the way")
        return Place(self.root.rstrip(b"/") + b"/" + name)

    def remove(self, path: bytes) -> None:
        """Delete a name and all below it, following nothing."""
        try:
            with self.above(path) as (folder, name):
                delete(folder, name)
        except FileNotFoundError:
            return


class Last:
    """The directory that was opened last, for files of which most lie side by side."""

    def __init__(self, *, make: bool = False) -> None:
        """`make`: a directory that is not there is made."""
        self._make = make
        self._which: tuple[bytes, bytes] | None = None
        self._folder = -1

    def above(self, place: Place, path: bytes) -> tuple[int, bytes]:
        """Return the open directory that holds `path`, and the name in it."""
        over, _, name = path.rpartition(b"/")
        if self._which != (place.root, over):
            self.close()
            self._folder = place.open(over, make=self._make)
            self._which = place.root, over
        return self._folder, name

    def close(self) -> None:
        """Let go of it."""
        if self._which is not None:
            self._which = None
            os.close(self._folder)


def read(folder: int, name: bytes) -> int:
    """Open a regular file in an open directory for reading.

    Raises:
        OSError: It is none, or can't be read.
    """
    parts_of(name)
    return _regular(os.open(name, _READ, dir_fd=folder))


def create(folder: int, name: bytes) -> int:
    """Make a file in an open directory; what was there under the name is deleted.

    Raises:
        OSError: The name is none below it, or something is in the way.
    """
    parts_of(name)
    try:
        return os.open(name, _NEW, 0o600, dir_fd=folder)
    except FileExistsError:
        os.unlink(name, dir_fd=folder)
        return os.open(name, _NEW, 0o600, dir_fd=folder)


def _regular(file: int) -> int:
    if stat.S_ISREG(os.fstat(file).st_mode):
        return file
    os.close(file)
    raise OSError(errno.EINVAL, "it is no regular file")


def delete(folder: int, name: bytes) -> None:
    """Delete a name of an open directory and all below it, following nothing.

    Raises:
        OSError: Not all of it can be.
    """
    about = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISDIR(about.st_mode):
        os.unlink(name, dir_fd=folder)
        return
    below = os.open(name, _FOLDER, dir_fd=folder)
    try:
        os.fchmod(below, _OWN)
        for one in os.listdir(below):  # noqa: PTH208  by its descriptor
            delete(below, os.fsencode(one))
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=folder)


def set_about(file: int, mode: int | None, modified: int | None) -> None:
    """Give an open file its permissions and its time."""
    if mode is not None:
        os.fchmod(file, mode)
    if modified is not None:
        os.utime(file, (modified, modified))
