"""What goes to another disk: copied beside its place first, and then moved. Blocks.

A copy is half there for a while, so it is made in a directory of its own.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.holes import stretches
from holdfast_daemon.transfer.here.place import create, delete, read

if TYPE_CHECKING:
    from collections.abc import Generator

_OWN = 0o700
_PIECE = 1024 * 1024
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@contextlib.contextmanager
def nearby(folder: int, key: bytes, source: int, name: bytes) -> Generator[int]:
    """Copy a file or link of `source` to a directory `key` of `folder`; open that.

    Raises:
        OSError: It can't be copied; nothing is left of it.
    """
    with contextlib.suppress(FileNotFoundError):
        delete(folder, key)  # of who died at it
    os.mkdir(key, _OWN, dir_fd=folder)
    try:
        near = os.open(key, _FOLDER, dir_fd=folder)
        try:
            _copy(source, near, name)
            yield near
        finally:
            os.close(near)
    finally:
        delete(folder, key)


def _copy(source: int, near: int, name: bytes) -> None:
    about = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISLNK(about.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=near)
        return
    file = read(source, name)
    try:
        made = create(near, name)
        try:
            for begin, end in stretches(file, 0, about.st_size):
                _range(file, made, begin, end)
            os.ftruncate(made, about.st_size)
            os.fchmod(made, stat.S_IMODE(about.st_mode))
            os.utime(made, ns=(about.st_atime_ns, about.st_mtime_ns))
        finally:
            os.close(made)
    finally:
        os.close(file)


def _range(file: int, made: int, at: int, end: int) -> None:
    while at < end:
        data = os.pread(file, min(_PIECE, end - at), at)
        if not data:
            raise OSError(5, "it became shorter")
        view = memoryview(data)
        while view:
            done = os.pwrite(made, view, at)
            at += done
            view = view[done:]
