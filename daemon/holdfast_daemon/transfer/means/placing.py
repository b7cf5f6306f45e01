"""What is left of a copy once all of it has come: to put it in its place. Sans-I/O.

It is on disk before the first name is moved: who goes on after that can't tell by what
lies there whether a file was in the way, or is the one that was put.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class Placing:
    """What is put where.

    Attributes:
        folder: The directory it goes to, without links.
        key: The directory in it that holds what goes there.
        names: What goes there.
        first: What the host's shell does before, in `key`; an upload's.
        then: What it does after, in `folder`.
        folders: Directories with mode and time they get after; a download's.
    """

    folder: bytes
    key: bytes
    names: tuple[bytes, ...]
    first: str = ""
    then: str = ""
    folders: tuple[tuple[bytes, int, int | None], ...] = ()

    def record(self) -> dict[str, Any]:
        """Return what is kept on disk."""
        return {
            "folder": _text(self.folder),
            "key": _text(self.key),
            "names": [_text(name) for name in self.names],
            "first": _script(self.first),
            "then": _script(self.then),
            "folders": [[_text(path), *about] for path, *about in self.folders],
        }

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Self:
        """Return what `record` wrote.

        Raises:
            AttributeError, KeyError, TypeError, ValueError: It is damaged.
        """
        return cls(
            folder=_bytes(row["folder"]),
            key=_bytes(row["key"]),
            names=tuple(map(_bytes, row["names"])),
            first=_bytes(row["first"]).decode("utf-8", "surrogateescape"),
            then=_bytes(row["then"]).decode("utf-8", "surrogateescape"),
            folders=tuple(
                (_bytes(path), mode, modified)
                for path, mode, modified in row["folders"]
            ),
        )


def _text(data: bytes) -> str:
    """Return bytes as a text of which each character is one."""
    return data.decode("latin-1")


def _bytes(text: str) -> bytes:
    return text.encode("latin-1")


def _script(text: str) -> str:
    return _text(text.encode("utf-8", "surrogateescape"))
