"""What makes one tree like another, step by step. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping


class Kind(StrEnum):
    """What a name stands for."""

    FILE = "file"
    DIRECTORY = "directory"
    LINK = "link"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a tree.

    Attributes:
        modified: Whole seconds: SFTP knows no more.
        mode: Permissions only.
        target: Of a link.
    """

    kind: Kind
    size: int = 0
    modified: int = 0
    mode: int = 0
    target: bytes = b""

    def same(self, other: Entry) -> bool:
        """Say whether both are the same file, as far as size and time tell."""
        return self.kind is other.kind is Kind.FILE and (self.size, self.modified) == (
            other.size,
            other.modified,
        )


Tree = dict[bytes, Entry]


class Action(StrEnum):
    """What a step does."""

    DELETE = "delete"
    DIRECTORY = "directory"
    PUT = "put"
    LINK = "link"
    ATTRIBUTES = "attributes"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        entry: As the source has it; for a deletion as the destination does.
        new: The destination had nothing of that name.
        why: What differs, for one that is not new.
    """

    action: Action
    path: bytes
    entry: Entry
    new: bool = False
    why: str = ""


def steps(
    source: Mapping[bytes, Entry],
    destination: Mapping[bytes, Entry],
    *,
    delete: bool,
    modes: bool,
    differ: Collection[bytes] | None = None,
) -> Iterator[Step]:
    """Yield what is to be done, in an order in which it can be done.

    Args:
        source: What is to be had.
        destination: What is there.
        delete: What the source does not have goes.
        modes: Permissions mean something on both sides.
        differ: Files whose contents differ; None: size and time tell.
    """
    gone = [p for p in destination if p not in source] if delete else []
    # What changes its kind goes too; of a directory only where all in it may go.
    changed = [
        path
        for path, there in destination.items()
        if path in source and source[path].kind is not there.kind
    ]
    for path in sorted([*gone, *changed], reverse=True):
        found = destination[path]
        stays = path in source and found.kind is Kind.DIRECTORY and not delete
        if stays or (path in source and source[path].kind is Kind.OTHER):
            continue
        yield Step(Action.DELETE, path, found, new=path in source)
    finally_set: list[Step] = []
    for path in sorted(source):
        entry = source[path]
        there: Entry | None = destination.get(path)
        if entry.kind is Kind.OTHER:
            yield Step(Action.LEAVE, path, entry, why="neither file nor directory")
            continue
        if there is not None and there.kind is not entry.kind:
            if there.kind is Kind.DIRECTORY and not delete:
                yield Step(Action.LEAVE, path, entry, why="a directory is in its place")
                continue
            there = None
        step = _step(path, entry, there, modes=modes, differ=differ)
        if step is not None:
            yield step
        if entry.kind is Kind.DIRECTORY:
            finally_set.append(Step(Action.ATTRIBUTES, path, entry))
    yield from reversed(finally_set)


def _step(
    path: bytes,
    entry: Entry,
    there: Entry | None,
    *,
    modes: bool,
    differ: Collection[bytes] | None,
) -> Step | None:
    """Return what is to be done about one name; None: nothing."""
    action = {
        Kind.DIRECTORY: Action.DIRECTORY,
        Kind.LINK: Action.LINK,
    }.get(entry.kind, Action.PUT)
    if there is None:
        return Step(action, path, entry, new=True)
    if entry.kind is Kind.LINK:
        same = entry.target == there.target
        return None if same else Step(action, path, entry, why="contents")
    mode = ["mode"] if modes and entry.mode != there.mode else []
    if entry.kind is Kind.DIRECTORY:
        return Step(Action.ATTRIBUTES, path, entry, why="mode") if mode else None
    time = ["time"] if entry.modified != there.modified else []
    if differ is None:
        changed = entry.size != there.size or bool(time)
    else:
        changed = path in differ
    if changed:
        return Step(action, path, entry, why=", ".join(["contents", *time, *mode]))
    if time or mode:
        return Step(Action.ATTRIBUTES, path, entry, why=", ".join([*time, *mode]))
    return None
