"""What a copy does with each name, by what is in its place already. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.transfer.tree.compare import Entry, Kind, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator

# So many files more are worth a channel of their own.
_WORTH = 1000


@dataclass(slots=True)
class Plan:
    """What is to be done.

    Attributes:
        send: Files to copy.
        links: Links to make.
        folders: Directories that are not there.
        skipped: Files that are there, and are left as they are.
        left: Names that are left out on purpose, each with why.
        blocked: Names that can't be had, each with why.
    """

    send: Tree = field(default_factory=dict[bytes, Entry])
    links: Tree = field(default_factory=dict[bytes, Entry])
    folders: Tree = field(default_factory=dict[bytes, Entry])
    skipped: list[bytes] = field(default_factory=list[bytes])
    left: dict[bytes, str] = field(default_factory=dict[bytes, str])
    blocked: dict[bytes, str] = field(default_factory=dict[bytes, str])


def plan(  # noqa: C901  one case after the other
    wanted: Tree, there: Tree, *, overwrite: bool
) -> Plan:
    """Return what is to be done to have `wanted` where `there` is."""
    found = Plan()
    over: dict[bytes, tuple[str, bool]] = {}
    for path in sorted(wanted):
        entry, before = wanted[path], there.get(path)
        above = path.rpartition(b"/")[0]
        # what is above it came before it, and is the same for all beside it
        why, told = over.get(above) or over.setdefault(
            above,
            (
                _in_the_way(path, there) or _twice(path, wanted),
                any(one in found.blocked for one in _above(path)),
            ),
        )
        if why:
            if entry.kind is not Kind.DIRECTORY:
                found.blocked[path] = why
        elif told:
            continue
        elif entry.kind is Kind.DIRECTORY:
            if before is None:
                found.folders[path] = entry
            elif before.kind is not Kind.DIRECTORY:
                found.blocked[path] = f"a {before.kind} is in the way"
        elif entry.kind is Kind.OTHER:
            found.left[path] = "it is neither file, directory nor link"
        elif entry.kind is Kind.LINK and not stays(path, entry.target):
            found.left[path] = "it is a link that leads out of what is copied"
        elif before is not None and before.kind in (Kind.DIRECTORY, Kind.OTHER):
            found.blocked[path] = f"a {_named(before)} is in the way"
        elif before is not None and not overwrite:
            found.skipped.append(path)
        else:
            (found.links if entry.kind is Kind.LINK else found.send)[path] = entry
    return found


def stale(staged: Tree, todo: Plan, wanted: Tree) -> list[bytes]:
    """Return what an earlier attempt brought and nobody wants by now.

    It would go to its place with the directory that holds it.
    """
    tops = {path for path in wanted if b"/" not in path}

    def wants(path: bytes, entry: Entry) -> bool:
        if path.partition(b"/")[0] not in tops:
            return True  # that is put nowhere
        if entry.kind is Kind.DIRECTORY:
            return path in wanted and wanted[path].kind is Kind.DIRECTORY
        return entry.kind is Kind.FILE and path in todo.send

    return [path for path, entry in staged.items() if not wants(path, entry)]


def mode_of(entry: Entry, before: Entry | None, mask: int) -> int:
    """Return what a name may do where modes are not kept: as the file it replaces."""
    if before is not None and before.kind is entry.kind is Kind.FILE:
        return before.mode & 0o777
    return entry.mode & 0o777 & ~mask


def _named(entry: Entry) -> str:
    return "directory" if entry.kind is Kind.DIRECTORY else "special file"


def _above(path: bytes) -> Iterator[bytes]:
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)


def _in_the_way(path: bytes, there: Tree) -> str:
    for above in _above(path):
        before = there.get(above)
        if before is not None and before.kind is not Kind.DIRECTORY:
            shown = above.decode("utf-8", "backslashreplace")
            return f"{shown} is a {before.kind} there, and is not followed"
    return ""


def _twice(path: bytes, wanted: Tree) -> str:
    """Return why a name can't be below another: a host may tell anything."""
    for above in _above(path):
        over = wanted.get(above)
        if over is not None and over.kind is not Kind.DIRECTORY:
            return f"what holds it is a {over.kind}"
    return ""


def stays(path: bytes, target: bytes) -> bool:
    """Say whether a link stays within the directory or file that was named."""
    if not target or target.startswith(b"/"):
        return False
    # What was named is at depth 0: a link in it may lead up to it and no further. A way
    # up behind a name is refused: that name may be a link itself.
    depth, down = path.count(b"/"), False
    for part in target.split(b"/"):
        if part == b"..":
            depth -= 1
            if depth < 1 or down:
                return False
        elif part not in (b"", b"."):
            down = True
    return True


def batches(
    files: Tree, most_bytes: int, most_files: int, at_once: int = 1
) -> list[list[bytes]]:
    """Return the files in heaps that each go as one stream, all of about one size.

    `at_once`: so many go at the same time; of more there are a multiple of it, that no
    last one goes alone while nothing else does.
    """
    each = most_bytes // most_files  # what a file costs beside its content
    total = sum(entry.size + each for entry in files.values())
    count = -(-total // most_bytes)
    if at_once > 1:
        count = max(count, min(at_once, len(files) // _WORTH))
        if count > at_once:
            count = -(-count // at_once) * at_once
    found: list[list[bytes]] = []
    size = 0
    for path, entry in files.items():
        if size * count >= total * len(found):
            found.append([])
        found[-1].append(path)
        size += entry.size + each
    return found
