"""What earlier daemons left behind: processes, sockets, files that nobody needs."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.doctor import finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.paths import Places

_PROC = Path("/proc")
_SOCKET = re.compile(r"\.hf-[0-9a-z]{6}")
_NEW = ".new"
_RECORD = "job.json"
# A job's directory is a moment older than its record.
_FRESH_SECONDS = 60.0
_NAMED = 5
_DETAILED = 50
# Field 22 of /proc/PID/stat, counted after the name.
_STARTED = 19
# One that starts does not answer yet.
_STARTING_SECONDS = 3.0


class Process(NamedTuple):
    """Another daemon of the same user.

    Attributes:
        socket: Where it was told to listen; empty: not known.
        answers: Somebody listens there.
        age: Seconds since its start.
    """

    pid: int
    socket: str
    answers: bool
    age: float


def processes(own: Path) -> list[Process]:
    """Look for other daemons of this user. Blocks; knows Linux's /proc only."""
    return [
        Process(
            pid, path, bool(path) and path != str(own) and _answers(path), _age(pid)
        )
        for pid, path in _daemons()
    ]


def _daemons() -> Iterator[tuple[int, str]]:
    if not _PROC.is_dir():
        return
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if not _is_daemon([os.fsdecode(word) for word in words]):
                continue
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended meanwhile, or may not be looked at
        yield int(folder.name), _told([*map(os.fsdecode, words)], variables)


def _is_daemon(words: Sequence[str]) -> bool:
    """Whether a command line is one of ours: by script, or by `-m`."""
    first = [Path(word).name for word in words[:2]]
    if "holdfastd" in first:
        return True
    return any(
        word == "-m" and words[at + 1 : at + 2] == ["holdfast_daemon"]
        for at, word in enumerate(words)
    )


def _told(words: Sequence[str], variables: Sequence[bytes]) -> str:
    """Return the socket that a daemon was told, by argument or variable."""
    for at, word in enumerate(words):
        if word == "--socket":
            return next(iter(words[at + 1 : at + 2]), "")
        if word.startswith("--socket="):
            return word.partition("=")[2]
    for variable in variables:
        name, _, value = os.fsdecode(variable).partition("=")
        if name == "HOLDFAST_SOCKET":
            return value
    return ""


def _age(pid: int) -> float:
    """Return how long a process has run; 0: that can't be told."""
    try:
        told = (_PROC / str(pid) / "stat").read_text("utf-8", "replace")
        ticks = int(told.rpartition(")")[2].split()[_STARTED])
        uptime = float((_PROC / "uptime").read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return uptime - ticks / os.sysconf("SC_CLK_TCK")


def _answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        try:
            peer.connect(path)
        except BlockingIOError:
            return True
        except OSError:
            return False
    return True


def judge_processes(found: Sequence[Process]) -> Finding:
    """Say whether other daemons of this user run, and can be reached."""
    check = "other daemons"
    if not found:
        return finding.ok(check, "none of this user's")
    # those in doubt first, and the newest: what began just now is what one looks for
    found = sorted(found, key=lambda one: (one.answers, one.age))
    details = {str(one.pid): one.socket for one in found[:_DETAILED]}
    lost = [o for o in found if not o.answers and o.age > _STARTING_SECONDS]
    if not lost:
        told = f"{len(found)} more of this user's, each on a socket of its own"
        return finding.ok(check, told, details)
    named = ", ".join(f"{one.pid} ({one.socket or '?'})" for one in lost[:_NAMED])
    return finding.warn(
        check,
        f"{len(lost)} of this user's can't be reached by any client: process {named}",
        "when nothing of yours runs there, end it: "
        + " ".join(["kill", *(str(one.pid) for one in lost[:_NAMED])]),
        details,
    )


def files(places: Places, jobs: set[str], now: float) -> list[str]:
    """Return what lies about and belongs to nobody. Blocks.

    Args:
        places: The daemon's own.
        jobs: Ids of the jobs that are known.
        now: Wall clock, in seconds since 1970.
    """
    found = [
        str(path)
        for path in _entries(places.socket.parent)
        if _SOCKET.fullmatch(path.name) and not _answers(str(path))
    ]
    found += [
        str(path)
        for path in _entries(places.state)
        if path.name.endswith(_NEW) and _old(path, now)
    ]
    for path in _entries(places.jobs):
        if not _old(path, now):
            continue
        if path.name not in jobs and not (path / _RECORD).exists():
            found.append(str(path))
        fresh = path / (_RECORD + _NEW)
        if fresh.exists() and _old(fresh, now):
            found.append(str(fresh))
    return found


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _old(path: Path, now: float) -> bool:
    try:
        return now - path.lstat().st_mtime > _FRESH_SECONDS
    except OSError:
        return False


def judge_files(found: Sequence[str]) -> Finding:
    """Say whether anything lies about."""
    check = "leftovers"
    if not found:
        return finding.ok(check, "no stale socket, unfinished file or lost result")
    named = ", ".join(found[:_NAMED])
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return finding.warn(
        check,
        f"{len(found)} left by daemons that were killed: {named}{more}",
        "nobody needs them: remove them, or wait; results without a record go after"
        " limits.job_keep_seconds",
        {"paths": named},
    )
