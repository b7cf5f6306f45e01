"""Writes known_hosts files: whole or not at all, one writer at a time. Blocks."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, Reason, StateError
from holdfast_daemon.hosts.known_change import edited, new_lines
from holdfast_daemon.hosts.known_hosts import parse_line

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Sequence

    from holdfast_daemon.hosts.known_change import Change, Edit

_LOCK_SECONDS = 5.0
_PAUSE_SECONDS = 0.02
_OLD = ".old"


def append(file: str, lines: Sequence[str]) -> None:
    """Put new lines at the end of a file, which is made where it is missing.

    One write to a file opened for appending: nobody beside us meets half a line.

    Raises:
        OSError: They could not be written; the file is as it was.
    """
    # where a link leads to, as that is what others replace
    path = Path(file).resolve()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    data = "".join(f"{line}\n" for line in lines).encode()
    with _locked(path):
        descriptor = os.open(path, flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                data = b"\n" + data
            if os.write(descriptor, data) < len(data):
                os.ftruncate(descriptor, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(descriptor)


def apply(change: Change, *, hash_names: bool) -> None:
    """Make a change: first the new line, then what it replaces.

    Raises:
        DaemonError: A line is not what it was when the change was thought out.
        OSError: A file can't be written; those before it are.
    """
    added = new_lines(change, hash_names=hash_names)
    for file in change.files:
        edits = [edit for edit in change.edits if edit.known.file == file]
        lines = added if file == change.file else []
        if edits:
            _rewrite(file, edits, lines)
        elif lines:
            append(file, lines)


def _rewrite(file: str, edits: Iterable[Edit], added: Sequence[str]) -> None:
    # a symbolic link stays one: what it leads to is replaced
    path = Path(file).resolve()
    with _locked(path):
        before = path.stat()
        text = path.read_bytes().decode("utf-8", "surrogateescape")
        lines: list[str | None] = list(text.split("\n"))
        if lines[-1] == "":
            lines.pop()
        for edit in edits:
            at = edit.known.line - 1
            line = lines[at] if at < len(lines) else None
            if line is None or _said(line) != _said_by(edit):
                raise _changed_meanwhile(file)
            lines[at] = edited(line, edit)
        kept = [line for line in (*lines, *added) if line is not None]
        data = "".join(f"{line}\n" for line in kept).encode("utf-8", "surrogateescape")
        _replace(path, before, data, file)


def _replace(path: Path, before: os.stat_result, data: bytes, file: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as new:
            os.fchmod(descriptor, stat.S_IMODE(before.st_mode))
            own = before.st_uid == os.geteuid() and before.st_gid == os.getegid()
            if not own:
                os.fchown(descriptor, before.st_uid, before.st_gid)
            new.write(data)
            new.flush()
            os.fsync(descriptor)
        _keep_old(path)
        _check_unchanged(path, before, file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _check_unchanged(path: Path, before: os.stat_result, file: str) -> None:
    now = path.stat()
    known = (before.st_ino, before.st_size, before.st_mtime_ns)
    if (now.st_ino, now.st_size, now.st_mtime_ns) != known:
        raise _changed_meanwhile(file)


def _keep_old(path: Path) -> None:
    """Keep the file as it is under the name that `ssh-keygen -R` gives it."""
    old = path.with_name(path.name + _OLD)
    old.unlink(missing_ok=True)
    os.link(path, old)


def _said(line: str) -> tuple[str, bytes] | None:
    known = parse_line(line)
    return None if known is None else (known.patterns, known.blob)


def _said_by(edit: Edit) -> tuple[str, bytes]:
    return edit.known.patterns, edit.known.blob


@contextlib.contextmanager
def _locked(path: Path) -> Generator[None]:
    """Hold the directory of a file against other writers that do the same."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(_PAUSE_SECONDS)
        yield
    finally:
        os.close(directory)


def _changed_meanwhile(file: str) -> DaemonError:
    return StateError(
        Reason.IN_USE,
        f"{file} was changed by somebody else meanwhile; it was not touched",
        hint="look again and decide on what it says now",
        metadata={"file": file},
    )
