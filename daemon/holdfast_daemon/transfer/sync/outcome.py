"""What rsync's exit code and complaints mean for a caller. Sans-I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LinkError,
    NotFoundError,
    Ran,
    Reason,
    StateError,
)
from holdfast_daemon.file.fault import cause_of

if TYPE_CHECKING:
    from holdfast_daemon.transfer.sync.itemize import Report
    from holdfast_daemon.transfer.sync.rsync import SyncRequest

# What a shell returns where there is no such program, or none that it may run.
NO_PROGRAM = (126, 127)
PARTIAL = 23
VANISHED = 24
PROTOCOL = 2
IDLE = 30
_SHOWN = 5
_KEPT = 200
_LINE_BYTES = 4096
_QUOTED = re.compile(r'"(.*)"', re.DOTALL)
_PLACED = re.compile(r"^rsync: (?:\[[A-Za-z]+(?:=\S+)?\] )?")
_HINTS = {
    "permission": "Give the account the right to it, or name a directory it may use.",
    "space": "Make room there, and call again: what has arrived is not sent again.",
    "read_only": "Nothing can be written there; name another directory.",
    "missing": "The directory above it must be there: make it first.",
}
_AGAIN = "Call again: what is done already is not sent again."


@dataclass(slots=True)
class Complaints:
    """What both ends of rsync say on standard error, line by line."""

    lines: list[str] = field(default_factory=list[str])
    more: int = 0
    _rest: bytes = b""

    def feed(self, data: bytes) -> None:
        """Take a piece."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _LINE_BYTES:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._add(line)

    def finish(self) -> None:
        """Take the last line, which may have no end."""
        self._add(self._rest)
        self._rest = b""

    def _add(self, line: bytes) -> None:
        text = line[:_LINE_BYTES].decode("utf-8", "replace").strip()
        if not text:
            return
        if len(self.lines) < _KEPT:
            self.lines.append(text)
        else:
            self.more += 1

    @property
    def troubles(self) -> list[str]:
        """What went wrong with single files, without rsync's own frame."""
        return [
            _PLACED.sub("", line)
            for line in self.lines
            if not line.startswith(("rsync error:", "rsync warning:"))
        ]


def vanished(said: Complaints) -> str:
    """Return the note for files that went away meanwhile."""
    gone = [_path(line) for line in said.troubles if line.startswith("file has van")]
    count, names = len(gone) or "some", ", ".join(gone[:_SHOWN])
    return f"{count} files went away while it ran: {names}"


def fault(
    request: SyncRequest, where: str, code: int, said: Complaints, report: Report
) -> DaemonError:
    """Return the error for an exit code other than 0 and 24.

    Args:
        request: What was asked.
        where: The host, as it is shown.
        code: What rsync returned.
        said: What both ends complained of.
        report: What is done so far.
    """
    troubles = said.troubles
    first = next((t for t in troubles if cause_of(t)[0] != "other"), "")
    cause, words = cause_of(first)
    if not report.files and (missing := _no_source(request, where, troubles, cause)):
        return missing
    if code == PROTOCOL:
        return StateError(
            Reason.SHELL_FAILED,
            f"{where} did not answer as rsync does: {_short(troubles)}",
            hint="Mostly a start-up file of the account prints something: let it do"
            " so in terminals only. Nothing was changed.",
            ran=Ran.YES,
        )
    if code == IDLE:
        return LinkError(
            Reason.CONNECTION_LOST,
            f"the sync with {where} stood still for too long and was ended",
            hint=_AGAIN,
            ran=Ran.UNKNOWN,
        )
    done = (
        f"{report.created} created, {report.updated} updated, {report.deleted} deleted"
    )
    metadata = {"cause": cause, "exit_code": str(code), "host": where}
    if code == PARTIAL:
        count = len(troubles) + said.more
        metadata["files"] = "\n".join(filter(None, map(_path, troubles)))[:_LINE_BYTES]
        return StateError(
            Reason.FILE_FAILED,
            f"{count} files could not be synced with {where}, the others are"
            f" ({done}): {_short(troubles)}",
            hint=_HINTS.get(cause, _AGAIN),
            ran=Ran.YES,
            metadata=metadata | {"path": _path(first)},
        )
    what = f"{_path(first)}: {words}" if first else _short(troubles or said.lines)
    return StateError(
        Reason.FILE_FAILED,
        f"the sync with {where} ended with rsync's code {code} ({done}): {what}",
        hint=_HINTS.get(cause, _AGAIN),
        ran=Ran.YES,
        metadata=metadata | {"path": _path(first)},
    )


def lost(where: str, why: str, report: Report) -> DaemonError:
    """Return the error for a connection that went away in the middle."""
    return LinkError(
        Reason.CONNECTION_LOST,
        f"the sync with {where} was cut off: {why}",
        hint=f"{_AGAIN} No file is there half.",
        ran=Ran.UNKNOWN,
        metadata={"host": where, "changes": str(len(report.changes) + report.more)},
    )


def _no_source(
    request: SyncRequest, where: str, troubles: list[str], cause: str
) -> DaemonError | None:
    """Return the error for a source that could not be entered; None: it could."""
    entering = next((t for t in troubles if t.startswith("change_dir ")), "")
    if request.upload or not entering:
        return None
    path, words = request.there, cause_of(entering)[1]
    if cause in ("missing", "not_a_directory"):
        return NotFoundError(
            Reason.FILE_NOT_FOUND,
            f"there is no directory {path} on {where}: {words}; nothing was changed",
            hint="ssh_dir_list shows what is there; ssh_copy copies single files.",
            metadata={"path": path},
        )
    return StateError(
        Reason.FILE_FAILED,
        f"{path} on {where} can't be entered: {words}; nothing was changed",
        hint=_HINTS.get(cause, ""),
        metadata={"path": path, "cause": cause},
    )


def no_directory(path: str) -> DaemonError:
    """Return the error for a source on this machine that is no directory."""
    return InputError(
        "source",
        f"{path} is no directory of this machine; ssh_sync makes one directory like"
        " another",
        hint="ssh_copy copies single files.",
    )


def _path(line: str) -> str:
    found = _QUOTED.search(line)
    return found[1] if found else ""


def _short(lines: list[str]) -> str:
    shown = "; ".join(lines[:_SHOWN]) or "it gave no reason"
    return shown if len(lines) <= _SHOWN else f"{shown}; and {len(lines) - _SHOWN} more"
