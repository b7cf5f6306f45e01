"""What is copied from this machine: the names below each source, and what they hold.

Everything here blocks and belongs into a thread.
"""

from __future__ import annotations

import hashlib
import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, InputError
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.here.place import Place
from holdfast_daemon.transfer.means.apart import heed
from holdfast_daemon.transfer.means.errand import local
from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_daemon.transfer.means.roots import Roots

_HASH_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """One thing that is copied.

    Attributes:
        name: What it is called where it goes.
        place: The directory it is in.
        base: Its name there.
        tree: What there is, by its path where it goes.
        troubles: What could not be looked at.
        left: What is left out on purpose.
    """

    name: bytes
    place: Place
    base: bytes
    tree: Tree
    troubles: dict[bytes, str]
    left: dict[bytes, str]

    def inner(self, path: bytes) -> bytes:
        """Return where a path of `tree` is in `place`."""
        return self.base + path[len(self.name) :]


def source(given: str, roots: Roots, *, recursive: bool, most: int) -> Source:
    """Look at one source.

    Raises:
        DaemonError: There is none, it may not be used, or is not what was meant.
    """
    found = roots.check(given, write=False, field="sources")
    path, name = os.fsencode(found), os.fsencode(Path(given).name or found.name)
    try:
        about = found.lstat()
    except OSError as error:
        raise local(error, given, write=False) from None
    kind = kind_of(about.st_mode)
    if kind is Kind.OTHER or (kind is Kind.LINK):
        raise InputError("sources", f"{given} is neither a file nor a directory")
    if kind is Kind.DIRECTORY and not recursive:
        raise InputError(
            "sources",
            f"{given} is a directory",
            hint="Set recursive to copy it with all that is in it.",
        )
    if not name or path == b"/":
        raise InputError("sources", "the root directory can't be copied whole")
    tree: Tree = {name: _entry(about, b"")}
    troubles: dict[bytes, str] = {}
    left: dict[bytes, str] = {}
    place, base = Place(os.path.dirname(path)), os.path.basename(path)  # noqa: PTH119, PTH120  bytes
    if kind is Kind.DIRECTORY:
        above = place.root.rstrip(b"/") + b"/"
        for inner, entry in _below(place, base, troubles):
            outer = name + inner[len(base) :]
            if roots.guarded(above + inner, write=False):
                left[outer] = "it holds secrets"
                continue
            tree[outer] = entry
            if len(tree) > most:
                raise too_many(most)
    elif not os.access(found, os.R_OK):
        raise local(OSError(13, "Permission denied"), given, write=False)
    return Source(name, place, base, tree, troubles, left)


def too_many(most: int) -> DaemonError:
    """Return the error for a tree of too many names."""
    return InputError(
        "sources",
        f"there are more than {most} names",
        hint="Copy parts of it, or use ssh_sync; copy_names in the configuration"
        " raises the limit.",
    )


def _below(
    place: Place, base: bytes, troubles: dict[bytes, str]
) -> Iterator[tuple[bytes, Entry]]:
    todo = [base]
    while todo:
        above = todo.pop()
        try:
            with place.folder(above) as folder:
                for one in os.listdir(folder):  # noqa: PTH208  by its descriptor
                    name = os.fsencode(one)
                    try:
                        about = os.stat(name, dir_fd=folder, follow_symlinks=False)
                        link = stat.S_ISLNK(about.st_mode)
                        target = os.readlink(name, dir_fd=folder) if link else b""
                    except FileNotFoundError:
                        continue
                    path = above + b"/" + name
                    if stat.S_ISDIR(about.st_mode):
                        todo.append(path)
                    yield path, _entry(about, target)
        except OSError as error:
            troubles[above] = error.strerror or str(error)


def _entry(about: os.stat_result, target: bytes) -> Entry:
    return Entry(
        kind_of(about.st_mode),
        about.st_size,
        about.st_mtime_ns // 10**9,
        stat.S_IMODE(about.st_mode),
        target,
    )


def as_it_is(entry: Entry, about: os.stat_result) -> Entry:
    """Return what is told of a file that may have changed since it was listed."""
    return replace(entry, size=about.st_size, modified=about.st_mtime_ns // 10**9)


def stayed(file: int, about: os.stat_result, sent: str) -> bool:
    """Say whether an open file, of which `sent` is the checksum of what was read.

    What was only added to since then counts as having stayed.
    """
    now = os.fstat(file)
    if (now.st_size, now.st_mtime_ns) == (about.st_size, about.st_mtime_ns):
        return True
    if now.st_size < about.st_size:
        return False
    return digest(file, about.st_size).hexdigest() == sent


def digest(file: int, size: int) -> hashlib._Hash:  # pyright: ignore[reportPrivateUsage]  it has no other name
    """Return the running checksum of the first `size` bytes of an open file.

    Raises:
        OSError: It has fewer.
    """
    found = hashlib.sha256()
    at = 0
    while at < size:
        heed()
        data = os.pread(file, min(_HASH_BYTES, size - at), at)
        if not data:
            raise OSError(5, "it became shorter")
        found.update(data)
        at += len(data)
    return found
