"""A client's file on disk: read, kept beside as a backup, replaced in one step."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Callable

_MOST = 64 * 1024 * 1024
_PRIVATE = 0o600


class Written(NamedTuple):
    """What was done.

    Attributes:
        file: The file that was meant; behind a link: the file it leads to.
        changed: False: it was as it should be, and was left alone.
        backup: What the file was before; None: there was none, or nothing changed.
    """

    file: Path
    changed: bool
    backup: Path | None = None


def rewrite(path: Path, edit: Callable[[str], str], *, shared: bool) -> Written:
    """Replace the text of `path` by what `edit` makes of it.

    A file that is not there is made: `shared`: as others' files are, else for its
    owner alone.

    Raises:
        CallError: It could not be read, understood or written; it is as it was.
    """
    try:
        return _rewrite(path.resolve(), edit, _common() if shared else _PRIVATE)
    except (OSError, RuntimeError) as error:
        # RuntimeError: links that lead in a circle.
        told = error.strerror if isinstance(error, OSError) else str(error)
        raise _refused(path, f"{told or error}", "see to it, then try again") from error


def _rewrite(path: Path, edit: Callable[[str], str], mode: int) -> Written:
    before, found = _read(path)
    try:
        # A mark at the start is kept for the program that put it there.
        text = (before or b"").decode()
        mark = "\ufeff" if text.startswith("\ufeff") else ""
        after = (mark + edit(text.removeprefix(mark))).encode()
    except ValueError as error:
        hint = "mend the file, or leave --write out and paste what is printed"
        raise _refused(path, f"it cannot be understood: {error}", hint) from error
    if after == before:
        return Written(path, changed=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    backup = None
    if before is not None and found is not None:
        backup = _backup(path, before, found)
    try:
        _replace(path, after, found or mode, before)
    except BaseException:
        if backup is not None:
            backup.unlink(missing_ok=True)
        raise
    return Written(path, changed=True, backup=backup)


def _read(path: Path) -> tuple[bytes | None, os.stat_result | None]:
    try:
        # A pipe must not keep us waiting for somebody who writes.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, None
    with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor is no path
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _refused(path, "it is no ordinary file", "move it away")
        data = file.read(_MOST + 1)
    if len(data) > _MOST:
        raise _refused(path, "it is larger than 64 MiB", "mend the file")
    return data, found


def _backup(path: Path, data: bytes, found: os.stat_result) -> Path:
    """Write what the file was, beside it, readable by nobody who could not read it."""
    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    number = 0
    while True:
        extra = f"-{number}" if number else ""
        backup = path.with_name(f"{path.name}.{now}{extra}.bak")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            descriptor = os.open(backup, flags, _PRIVATE)
        except FileExistsError:
            number += 1
            continue
        try:
            _fill(descriptor, data, found)
        except BaseException:
            backup.unlink(missing_ok=True)
            raise
        return backup


def _replace(
    path: Path, data: bytes, found: os.stat_result | int, before: bytes | None
) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        _fill(descriptor, data, found)
        _check_unchanged(path, before)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _check_unchanged(path: Path, before: bytes | None) -> None:
    """Notice the client itself, which writes some of these whenever it likes."""
    if _read(path)[0] != before:
        message = "it was changed by another program just now"
        raise _refused(path, message, "try again")


def _fill(descriptor: int, data: bytes, found: os.stat_result | int) -> None:
    """Write a file that stands for the one `found`, or has that mode."""
    with open(descriptor, "wb") as file:
        if isinstance(found, int):
            os.fchmod(descriptor, found)
        else:
            ours = os.fstat(descriptor)
            if (ours.st_uid, ours.st_gid) != (found.st_uid, found.st_gid):
                # Not allowed to everybody: then the file is ours from now on.
                with contextlib.suppress(PermissionError):
                    os.fchown(descriptor, found.st_uid, found.st_gid)
            os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _common() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return 0o666 & ~mask


def _refused(path: Path, why: str, hint: str) -> CallError:
    return CallError(
        "BAD_CONFIGURATION",
        f"{path} was left as it is: {why}",
        hint=hint,
        metadata={"file": str(path)},
    )
