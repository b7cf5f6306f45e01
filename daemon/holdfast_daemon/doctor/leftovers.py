"""What earlier daemons left behind: processes, sockets, files that nobody needs."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.doctor import finding
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.hosts.tokens import me
from holdfast_daemon.paths import places as places_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from holdfast_daemon.doctor.finding import Finding
    from holdfast_daemon.paths import Places

_PROC = Path("/proc")
_OTHERS = "other daemons"
_SOCKET = re.compile(r"\.hf-[0-9a-z]{6}")
_NEW = ".new"
_RECORD = "job.json"
# A job's directory is a moment older than its record.
_FRESH_SECONDS = 60.0
_NAMED = 5
_DETAILED = 50
# Field 22 of /proc/PID/stat, counted after the name.
_STARTED = 19
_PROGRAM, _MODULE = "holdfastd", "holdfast_daemon"
_PYTHONS = ("python", "pypy")
# Options of Python that take the next word.
_WITH_VALUE = ("-X", "-W")
# One that starts does not answer yet.
_STARTING_SECONDS = 3.0


class Process(NamedTuple):
    """Another daemon of the same user.

    Attributes:
        socket: Where it listens by its arguments and variables; empty: not known.
        answers: Somebody listens there.
        age: Seconds since its start.
    """

    pid: int
    socket: str
    answers: bool
    age: float


def others(own: Path) -> Finding:
    """Look for other daemons of this user, and judge them. Blocks."""
    if not _PROC.is_dir():
        return finding.skip(_OTHERS, "there is no /proc to look for them in")
    return judge_processes(processes(own))


def processes(own: Path) -> list[Process]:
    """Look for other daemons of this user. Blocks; knows Linux's /proc only."""
    return [
        Process(
            pid, path, bool(path) and path != str(own) and _answers(path), _age(pid)
        )
        for pid, path in _daemons()
    ]


def _daemons() -> Iterator[tuple[int, str]]:
    for folder in _PROC.iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if folder.stat().st_uid != os.geteuid():
                continue
            words = _words(folder / "cmdline")
            if not _is_daemon(words):
                continue
            variables = _words(folder / "environ")
            stands = (folder / "cwd").readlink()
        except OSError:
            continue  # it ended meanwhile, or may not be looked at
        yield int(folder.name), _socket_of(words, variables, stands)


def _words(path: Path) -> list[str]:
    return [os.fsdecode(word) for word in path.read_bytes().split(b"\0")]


def _is_daemon(words: Sequence[str]) -> bool:
    """Whether a command line runs ours, as a script or by `-m`, and does not name it.

    An editor or a pager of a file of that name is not to be ended.
    """
    program, *rest = [*words, ""]
    if Path(program).name == _PROGRAM:
        return True
    if not Path(program).name.startswith(_PYTHONS):
        return False
    left = iter(rest)
    for word in left:
        if word == "-m":
            return next(left, "") == _MODULE
        if word in _WITH_VALUE:
            next(left, "")
        elif not word.startswith("-") or word == "-c":
            return Path(word).name == _PROGRAM
    return False


def _socket_of(words: Sequence[str], variables: Sequence[str], stands: Path) -> str:
    """Return where a daemon listens: by the rules that it went by itself."""
    env: dict[str, str] = {}
    for variable in variables:
        name, _, env[name] = variable.partition("=")
    try:
        found = places_of(
            env,
            Path(env.get("HOME") or me().home),
            os.geteuid(),
            socket=_given(words, "--socket", stands),
            state=_given(words, "--state-dir", stands),
        )
    except (DaemonError, KeyError):
        return ""  # it refuses its variables itself, or nobody knows its user
    return str(found.socket)


def _given(words: Sequence[str], name: str, stands: Path) -> Path | None:
    """Return the path in an argument, by where the process stands."""
    found: Path | None = None
    for at, word in enumerate(words):
        if word == name:
            found = stands / next(iter(words[at + 1 : at + 2]), "")
        elif word.startswith(f"{name}="):
            found = stands / word.partition("=")[2]
    return found


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
    check = _OTHERS
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
        if path.name not in jobs and not _there(path / _RECORD):
            found.append(str(path))
        fresh = path / (_RECORD + _NEW)
        if _old(fresh, now):
            found.append(str(fresh))
    return found


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _there(path: Path) -> bool:
    """Whether a file is there, or may be: what can't be seen is not called lost."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


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
