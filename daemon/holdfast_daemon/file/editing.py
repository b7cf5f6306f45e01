"""Exact replacements in a file: all of them or none. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, InputError, Reason, StateError
from holdfast_daemon.file import content
from holdfast_daemon.file.nearest import lines_with, nearest

if TYPE_CHECKING:
    from collections.abc import Sequence

_SHOWN = 60
_LINES = 10


@dataclass(frozen=True, slots=True)
class Edit:
    """One replacement: `old` stands exactly once."""

    old: str
    new: str


def check(edits: Sequence[Edit]) -> None:
    """Refuse what no file could be edited by.

    Raises:
        InputError: There is none, or one that says nothing.
    """
    if not edits:
        raise InputError(
            "edits", "edits is empty", hint="Give at least one {old, new}."
        )
    for number, edit in enumerate(edits):
        field = f"edits[{number}]"
        if not edit.old:
            raise InputError(
                f"{field}.old",
                f"{field}.old is empty",
                hint="Give the text to replace; ssh_file_write makes a file anew.",
            )
        if edit.old == edit.new:
            raise InputError(f"{field}.new", f"{field} changes nothing: old is new")


def apply(data: bytes, edits: Sequence[Edit], path: str) -> bytes:
    """Return `data` edited, in the encoding it is written in.

    Raises:
        StateError: One `old` does not stand there exactly once, or it is no text.
    """
    encoding = content.encoding_of(data)
    if not encoding:
        raise not_text(path, content.kind_of(data), len(data))
    text = data.decode(encoding)
    for number, edit in enumerate(edits):
        _check_writable(edit, number, encoding, path)
        found = _count(text, edit.old)
        if found != 1:
            raise _missed(text, edit.old, found, number, path)
        text = text.replace(edit.old, edit.new, 1)
    return text.encode(encoding)


def _count(text: str, old: str) -> int:
    """Count where `old` stands, also where one such place overlaps another."""
    found, position = 0, text.find(old)
    while position >= 0:
        found += 1
        position = text.find(old, position + 1)
    return found


def _check_writable(edit: Edit, number: int, encoding: str, path: str) -> None:
    if encoding != content.LATIN1:
        return
    try:
        edit.new.encode(encoding)
    except UnicodeEncodeError as error:
        letter = edit.new[error.start]
        raise StateError(
            Reason.EDIT_REFUSED,
            f"edits[{number}].new has {letter!r}, which {path}, written in Latin-1,"
            " can't hold; nothing was changed",
            hint="Use letters of Latin-1, or convert the file first (iconv).",
            metadata={"path": path, "edit": str(number), "found": "1"},
        ) from None


def _missed(text: str, old: str, found: int, number: int, path: str) -> DaemonError:
    shown = repr(old[:_SHOWN]) + ("…" if len(old) > _SHOWN else "")
    metadata = {"path": path, "edit": str(number), "found": str(found)}
    after = " (after the edits before it)" if number else ""
    if found:
        lines = lines_with(text, old, _LINES)
        metadata["line"] = str(lines[0])
        places = ", ".join(map(str, lines)) + (", …" if found > _LINES else "")
        return StateError(
            Reason.EDIT_REFUSED,
            f"edits[{number}].old stands {found} times in {path}{after}, at lines"
            f" {places}; nothing was changed",
            hint="Take more of the text around the one that is meant into old.",
            metadata=metadata,
        )
    said = f"is not in {path}{after}: found 0 times"
    message = f"edits[{number}].old ({shown}) {said}"
    hint = "Nothing was changed. Read the file again, and copy old from it exactly."
    near = nearest(text, old)
    if near is not None:
        metadata["line"] = str(near.line)
        why = f" ({near.differs})" if near.differs else ""
        message += f". Nearest, from line {near.line}{why}:\n{near.shown}"
    error = StateError(Reason.EDIT_REFUSED, message, hint=hint, metadata=metadata)
    error.recorded = f"edits[{number}].old {said}"
    return error


def not_text(path: str, kind: str, size: int) -> StateError:
    """Return the error for a file that is no text."""
    return StateError(
        Reason.NOT_TEXT,
        f"{path} is no text: {kind}, {size:,} bytes",
        hint="ssh_file_read with force gives it as base64; a command can look into it"
        " (file, xxd, strings).",
        metadata={"path": path, "type": kind, "size_bytes": str(size)},
    )
