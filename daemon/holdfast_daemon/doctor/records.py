"""The configuration in force, and the audit log."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.audit import files, query
from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.doctor.finding import Finding

# More than this takes seconds to read; `holdfast audit --verify` reads all.
_READ_BYTES = 50_000_000
# As the check of the chain says it too.
_UNREAD = "can't be read"
_NAMED = 3


def configuration(path: str, error: str, hosts: int) -> Finding:
    """Say which configuration is in force, and why not the newest."""
    check = "configuration"
    if error:
        return finding.fail(
            check,
            f"the newest was not taken, the last good one is in force: {error}",
            "correct what it names; `holdfast reload` reads it again",
            {"path": path, "error": error},
        )
    if not path:
        return finding.ok(check, "no file: the built-in settings are in force")
    told = f"{path} is in force and names {hosts} host(s)"
    return finding.ok(check, told, {"path": path, "hosts": str(hosts)})


class Log(NamedTuple):
    """The audit log as it was found.

    Attributes:
        faults: What the check of the chain found; None: it was not checked.
        newest: When the last record was written, seconds since 1970; 0: unknown.
    """

    size: int
    records: int
    faults: tuple[str, ...] | None
    newest: float


def read_log(directory: Path) -> Log:
    """Read the audit log as far as it is read in no time. Blocks."""
    try:
        return _read_log(directory)
    except OSError as error:
        return Log(0, 0, (f"{_UNREAD}: {error}",), 0.0)


def _read_log(directory: Path) -> Log:
    paths = [files.rotated(directory, number) for number in files.numbers(directory)]
    paths.append(files.rotated(directory, 0))
    size = sum(path.stat().st_size for path in paths if path.exists())
    newest = _newest(paths[-1])
    if size > _READ_BYTES:
        return Log(size, 0, None, newest)
    verdict = query.verify(directory)
    faults = () if verdict.intact else verdict.faults or ("it is not intact",)
    return Log(size, verdict.records, faults, newest)


def _newest(path: Path) -> float:
    try:
        with path.open("rb") as file:
            line = files.last_line(file.fileno(), path.stat().st_size)
        stamp = str(json.loads(line or b"{}")["timestamp"])
        return datetime.fromisoformat(stamp).timestamp()
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0


def audit(directory: str, error: str, log: Log) -> Finding:
    """Say whether calls can be recorded, and whether the record is whole."""
    check = "audit log"
    details = {"path": directory, "bytes": str(log.size), "records": str(log.records)}
    if error:
        return finding.fail(
            check,
            f"it can't be written, so nothing new is run: {error}",
            f"see to {directory} and its file system; the daemon tries again by itself",
            details | {"error": error},
        )
    if log.faults is None:
        told = f"written; {log.size:,} bytes are too many to check here"
        hint = "`holdfast audit --verify` checks all of it"
        return finding.skip(check, told, hint, details)
    if log.faults and log.faults[0].startswith(_UNREAD):
        hint = f"see to {directory}: who owns it, and its modes"
        return finding.fail(check, f"it {log.faults[0]}", hint, details)
    if log.faults:
        return finding.fail(
            check,
            f"it is not intact: {'; '.join(log.faults[:_NAMED])}",
            "`holdfast audit --verify` lists all of it; find out who changed it, and"
            f" move {directory} away to begin a new one",
            details,
        )
    return finding.ok(check, f"written and intact, {log.records} records", details)


def clock(now: float, newest: float) -> Finding:
    """Say whether the clock can be right: certificates and records depend on it."""
    check, details = "clock", {"now": f"{now:.0f}", "newest_record": f"{newest:.0f}"}
    if newest - now > 1:
        return finding.warn(
            check,
            f"it is {newest - now:.0f} s before the newest audit record: it went back",
            "set it, or look at `timedatectl`; certificates depend on it",
            details,
        )
    return finding.ok(check, datetime.fromtimestamp(now).astimezone().isoformat(
        " ", "seconds"), details)  # fmt: skip
