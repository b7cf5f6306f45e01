"""Files as they lie there: kind, owner, mode; and what is wrong with these."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_OTHERS = 0o077
_OTHERS_WRITE = 0o022
_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFREG: "file",
    stat.S_IFSOCK: "socket",
    stat.S_IFLNK: "symbolic link",
    stat.S_IFIFO: "pipe",
}


@dataclass(frozen=True, slots=True)
class Seen:
    """One path as the system shows it.

    Attributes:
        kind: directory, file, socket, symbolic link, …; "missing", or "hidden" where
            the system would not say.
        error: Why it would not.
    """

    path: str
    kind: str
    mode: int = 0
    uid: int = 0
    error: str = ""

    @property
    def there(self) -> bool:
        """It is there, as far as one can see."""
        return self.kind != "missing"


def look(path: Path | str, *, follow: bool = False) -> Seen:
    """Look at a path. Blocks."""
    try:
        state = Path(path).stat(follow_symlinks=follow)
    except (FileNotFoundError, NotADirectoryError):
        return Seen(str(path), "missing")
    except OSError as error:
        return Seen(str(path), "hidden", error=error.strerror or str(error))
    kind = _KINDS.get(stat.S_IFMT(state.st_mode), "device")
    return Seen(str(path), kind, stat.S_IMODE(state.st_mode), state.st_uid)


def below(directory: Path, most: int) -> Iterator[Seen]:
    """Look at what a directory holds, all the way down; at most so many. Blocks."""
    left = most
    for folder, folders, files in os.walk(directory):
        for name in sorted([*folders, *files]):
            left -= 1
            if left < 0:
                return
            yield look(Path(folder, name))


def private(seen: Seen, uid: int, kind: str) -> str:
    """Return what is wrong with something that is to be ours alone, or nothing."""
    if seen.error:
        return f"it can't be looked at: {seen.error}"
    if seen.kind != kind:
        return f"it is no {kind} but a {seen.kind}" if seen.there else "it is missing"
    if seen.uid != uid:
        return f"it belongs to user {seen.uid}, not to us ({uid})"
    if seen.mode & _OTHERS:
        return f"it is open to others (mode {seen.mode:04o})"
    return ""


def safe(seen: Seen, uid: int) -> str:
    """Return what is wrong with something others may read but not write, or nothing."""
    if seen.error:
        return f"it can't be looked at: {seen.error}"
    if seen.uid not in (uid, 0):
        return f"it belongs to user {seen.uid}, not to us ({uid})"
    if seen.mode & _OTHERS_WRITE:
        return f"others can write it (mode {seen.mode:04o})"
    return ""


def remedy(seen: Seen) -> str:
    """Return the command that mends a mode; the rest is for a person to judge."""
    if seen.kind == "directory":
        return f"chmod 700 {seen.path}"
    if seen.kind in ("file", "socket"):
        return f"chmod 600 {seen.path}"
    return f"look who put {seen.path} there, and move it out of the way"
