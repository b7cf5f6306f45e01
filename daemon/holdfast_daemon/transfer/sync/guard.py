"""Which names below a directory hold secrets or let people in, as rsync's rules.

Sans-I/O. What has such a name is neither sent nor written over nor deleted: a guard
against accidents, as with single files.
"""

from __future__ import annotations

import posixpath
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from holdfast_daemon.file import sensitive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_daemon.transfer.sync.rsync import SyncRequest

_ANYWHERE = "*/"
_KEY_ENDS = "*"
_ALL = "- /*"


def rules(root: str, *, write: bool) -> list[str]:
    """Return rules for rsync about names below `root`, a path without links.

    `write`: they would be written; also what lets people in is kept from that.
    """
    globs = sensitive.SECRET + (sensitive.LETS_IN if write else ())
    found: list[str] = []
    for glob in globs:
        for pattern in _below(glob, _parts(root)):
            if pattern.endswith(_KEY_ENDS):
                # the public half of a key is none
                found.append(f"+ {pattern}.pub")
            found.append(f"- {pattern}")
    return found


def all_of(request: SyncRequest, there: str) -> list[str]:
    """Return the rules for both sides of a sync; `there` has no links.

    Raises:
        DeniedError: One of them holds nothing else.
    """
    source, destination = request.here, there
    if not request.upload:
        source, destination = destination, source
    found = rules(source, write=False)
    if _ALL in found or sensitive.holds_secrets(source):
        raise sensitive.refusal(source, write=False)
    more = rules(destination, write=True)
    if _ALL in more or sensitive.lets_in(destination):
        raise sensitive.refusal(destination, write=True)
    return list(dict.fromkeys([*found, *more]))


def known(root: str) -> bool:
    """Say whether `root` is a place where such names are to be expected."""
    parts = _parts(root)
    globs = sensitive.SECRET + sensitive.LETS_IN
    anchored = any(p.startswith("/") for g in globs for p in _below(g, parts))
    return anchored or len(parts) <= 1 or parts[0] in ("home", "Users")


def guarded(root: str, path: str, *, write: bool) -> bool:
    """Say whether `path` below `root` is such a name."""
    full = posixpath.join("/", root, path)
    return sensitive.lets_in(full) if write else sensitive.holds_secrets(full)


def _parts(path: str) -> list[str]:
    return [part for part in posixpath.normpath(path).split("/") if part]


def _below(glob: str, root: list[str]) -> Iterator[str]:
    """Yield what a glob for whole paths says of names below `root`."""
    if not glob.startswith(_ANYWHERE):
        wanted = _parts(glob)
        if len(wanted) > len(root) and _alike(root, wanted[: len(root)]):
            yield "/" + "/".join(wanted[len(root) :])
        return
    wanted = _parts(glob.removeprefix(_ANYWHERE))
    yield "/".join(wanted)
    for length in range(1, len(wanted)):
        if length <= len(root) and _alike(root[-length:], wanted[:length]):
            yield "/" + "/".join(wanted[length:])


def _alike(names: list[str], globs: list[str]) -> bool:
    return all(map(fnmatchcase, names, globs))
