"""Puts what has come whole in its place on this machine, by renaming. Blocks."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.here.nearby import nearby
from holdfast_daemon.transfer.here.place import parts_of
from holdfast_daemon.transfer.tree.compare import Entry, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.transfer.here.place import Place

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWN = 0o700
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS)


def present(place: Place, names: Sequence[bytes]) -> Tree:
    """Return what is there already under `names`, and below them.

    Raises:
        OSError: It can't be looked at.
    """
    tree: Tree = {}
    todo: list[bytes] = []

    def note(path: bytes, name: bytes, folder: int) -> None:
        try:
            about = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return
        tree[path] = Entry(
            kind_of(about.st_mode),
            about.st_size,
            about.st_mtime_ns // 10**9,
            stat.S_IMODE(about.st_mode),
        )
        if stat.S_ISDIR(about.st_mode):
            todo.append(path)

    with place.folder() as top:
        for name in names:
            parts_of(name)
            note(name, name, top)
    while todo:
        above = todo.pop()
        with place.folder(above) as folder:
            for one in os.listdir(folder):  # noqa: PTH208  by its descriptor
                name = os.fsencode(one)
                note(above + b"/" + name, name, folder)
    return tree


def settle(
    place: Place,
    key: bytes,
    names: Sequence[bytes],
    *,
    overwrite: bool,
    keep_times: bool,
) -> dict[bytes, str]:
    """Move names from the directory `key` of `place` up into it.

    Return what could not be put, each with why. Links in the way are not followed.
    """
    troubles: dict[bytes, str] = {}
    mover = _Mover(troubles, key, overwrite=overwrite, keep_times=keep_times)
    with place.folder() as above, place.folder(key) as below:
        for name in names:
            mover.move(below, above, name, name)
    return troubles


class _Mover:
    def __init__(
        self,
        troubles: dict[bytes, str],
        key: bytes,
        *,
        overwrite: bool,
        keep_times: bool,
    ) -> None:
        self._troubles = troubles
        self._key = key
        self._overwrite = overwrite
        self._keep_times = keep_times

    def move(self, source: int, target: int, name: bytes, path: bytes) -> None:
        """Move one name, and all below it."""
        try:
            about = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return
        try:
            if stat.S_ISDIR(about.st_mode):
                self._folder(source, target, name, path)
                return
            if not self._keep_times and stat.S_ISREG(about.st_mode):
                os.utime(name, dir_fd=source, follow_symlinks=False)
            try:
                self._file(source, target, name, about)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                self._afar(source, target, name)
        except OSError as error:
            self._troubles[path] = error.strerror or str(error)

    def _afar(self, source: int, target: int, name: bytes) -> None:
        """Move one to another disk, where it must not be half there either."""
        with nearby(target, self._key, source, name) as near:
            about = os.stat(name, dir_fd=near, follow_symlinks=False)
            self._file(near, target, name, about)
        os.unlink(name, dir_fd=source)

    def _folder(self, source: int, target: int, name: bytes, path: bytes) -> None:
        if not self._there(target, name):
            if not self._keep_times:
                self._touch(source, name)
            try:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                os.mkdir(name, _OWN, dir_fd=target)
            else:
                return
        below = os.open(name, _FOLDER, dir_fd=source)
        try:
            over = os.open(name, _FOLDER, dir_fd=target)
            try:
                for one in os.listdir(below):  # noqa: PTH208  by its descriptor
                    inner = os.fsencode(one)
                    self.move(below, over, inner, path + b"/" + inner)
            finally:
                os.close(over)
        finally:
            os.close(below)

    def _touch(self, source: int, name: bytes) -> None:
        folder = os.open(name, _FOLDER, dir_fd=source)
        try:
            with os.scandir(folder) as found:
                for one in found:
                    if one.is_dir(follow_symlinks=False):
                        self._touch(folder, os.fsencode(one.name))
                    elif one.is_file(follow_symlinks=False):
                        os.utime(one.name, dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(folder)

    def _file(
        self, source: int, target: int, name: bytes, about: os.stat_result
    ) -> None:
        if self._overwrite:
            _keep_owner(source, target, name, about)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            return
        if self._put_before(source, target, name, about) or (
            stat.S_ISREG(about.st_mode) and _linked(source, target, name)
        ):
            os.unlink(name, dir_fd=source)
            return
        if self._there(target, name):
            raise FileExistsError(errno.EEXIST, "it is there by now")
        os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)

    def _put_before(
        self, source: int, target: int, name: bytes, about: os.stat_result
    ) -> bool:
        """Whether who died at it had put this one already."""
        try:
            there = os.stat(name, dir_fd=target, follow_symlinks=False)
        except FileNotFoundError:
            return False
        if os.path.samestat(about, there):
            return True
        links = stat.S_ISLNK(about.st_mode) and stat.S_ISLNK(there.st_mode)
        return links and os.readlink(name, dir_fd=source) == os.readlink(
            name, dir_fd=target
        )

    def _there(self, folder: int, name: bytes) -> bool:
        try:
            os.stat(name, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True


def _keep_owner(source: int, target: int, name: bytes, about: os.stat_result) -> None:
    """Let a file be whose the one is that it replaces, as far as that may be."""
    try:
        there = os.stat(name, dir_fd=target, follow_symlinks=False)
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(about.st_mode) and stat.S_ISREG(there.st_mode)):
        return
    for uid, gid in ((there.st_uid, there.st_gid), (-1, there.st_gid)):
        if (about.st_uid, about.st_gid) == (there.st_uid, there.st_gid):
            return
        try:
            os.chown(name, uid, gid, dir_fd=source, follow_symlinks=False)
        except PermissionError:
            continue
        return


def _linked(source: int, target: int, name: bytes) -> bool:
    """Give a file its other name; return whether file systems can do that here."""
    try:
        os.link(name, name, src_dir_fd=source, dst_dir_fd=target, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return False
    return True
