"""A real audit log in a directory of its own, and records to put into it."""

from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING, Any

from holdfast_daemon.audit import query
from holdfast_daemon.audit.chain import AuditLog
from holdfast_daemon.audit.record import Phase, Record
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from pathlib import Path

# Linux: renameat2(2).
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def audit_log(
    directory: Path,
    *,
    file_bytes: int = 10_000_000,
    files: int = 10,
    sync_seconds: float = 1.0,
    redactor: Redactor | None = None,
    backlog_records: int = 10_000,
) -> AuditLog:
    """Return a log that is not open yet."""
    return AuditLog(
        directory,
        file_bytes=file_bytes,
        files=files,
        sync_seconds=sync_seconds,
        clock=SystemClock(),
        redactor=redactor or Redactor(),
        backlog_records=backlog_records,
        retry_seconds=0.05,
    )


def a_record(number: int = 0, **more: Any) -> Record:
    """Return a plain record that carries `number`."""
    fields: dict[str, Any] = {
        "event_type": "command_execution",
        "phase": Phase.START,
        "call_id": f"c{number}",
        "client": "test/1",
        "principal": "uid:1",
        "tool": "ssh_exec",
        "server_name": "web1",
        "command": f"echo {number}",
    }
    return Record(**(fields | more))


def records(directory: Path) -> list[dict[str, Any]]:
    """Return all records that are kept, oldest first."""
    return [json.loads(line) for line in query.read(directory)]


def block(directory: Path, aside: Path | None = None) -> None:
    """Put a file where the log's directory was: even root can't write there."""
    if aside is not None:
        directory.rename(aside)
    directory.write_text("in the way")


def unblock(directory: Path, aside: Path | None = None) -> None:
    """Undo `block`; all the time there is something, or the daemon makes its own."""
    if aside is None:
        directory.unlink()
        return
    libc = ctypes.CDLL(None, use_errno=True)
    here, there = os.fsencode(directory), os.fsencode(aside)
    if libc.renameat2(_AT_FDCWD, here, _AT_FDCWD, there, _RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), "the two can't change places", str(aside))
    aside.unlink()
