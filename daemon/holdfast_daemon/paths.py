"""Where things live, and whether they are safe there.

Knows the search order of the contract and the modes of files; not what is kept there.
"""

from __future__ import annotations

import os
import stat
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_USER = Path("/run/user")

# sun_path holds 108 bytes on Linux and 104 on macOS, the closing NUL among them.
SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107

_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class Places:
    """The three places of one daemon, and what follows from them."""

    socket: Path
    config: Path
    state: Path

    @property
    def lock(self) -> Path:
        """Held as long as the daemon runs; never deleted."""
        return self.socket.with_name(self.socket.name + ".lock")

    @property
    def sessions(self) -> Path:
        """Output, recordings and records of sessions."""
        return self.state / "sessions"

    @property
    def forwards(self) -> Path:
        """The forwards that were declared durable."""
        return self.state / "forwards.json"

    @property
    def signature(self) -> Path:
        """What tells this daemon's parts of copies from another's."""
        return self.state / "copies.id"

    @property
    def jobs(self) -> Path:
        """Results and output of jobs."""
        return self.state / "jobs"

    @property
    def audit(self) -> Path:
        """The audit log."""
        return self.state / "audit"

    @property
    def logs(self) -> Path:
        """The daemon's own log files."""
        return self.state / "log"


def places(
    env: Mapping[str, str],
    home: Path,
    uid: int,
    *,
    socket: Path | None = None,
    config: Path | None = None,
    state: Path | None = None,
) -> Places:
    """Return where everything lives, each by the first rule that applies.

    Arguments (from the command line) win and may be relative. Variables must be
    absolute, because they reach programs that stand in different directories.
    """
    if state is None:
        state = _own(env, "HOLDFAST_STATE_DIR", home)
    if state is None:
        base = _xdg(env, "XDG_STATE_HOME") or home / ".local" / "state"
        state = base / "holdfast"
    if config is None:
        config = _own(env, "HOLDFAST_CONFIG", home)
    if config is None:
        base = _xdg(env, "XDG_CONFIG_HOME") or home / ".config"
        config = base / "holdfast" / "config.toml"
    if socket is None:
        socket = _own(env, "HOLDFAST_SOCKET", home)
    if socket is None:
        socket = _runtime(env, uid, state) / "holdfast.sock"
    return Places(
        Path(socket).absolute(), Path(config).absolute(), Path(state).absolute()
    )


def _runtime(env: Mapping[str, str], uid: int, state: Path) -> Path:
    base = _xdg(env, "XDG_RUNTIME_DIR")
    if base is None and (RUN_USER / str(uid)).is_dir():
        base = RUN_USER / str(uid)
    return state / "run" if base is None else base / "holdfast"


def _own(env: Mapping[str, str], name: str, home: Path) -> Path | None:
    text = env.get(name, "")
    if not text:
        return None
    path = home / text[2:] if text.startswith("~/") else Path(text)
    if not path.is_absolute():
        raise refused(f"{name} is not an absolute path: {text}", f"Give {name} as /…")
    return path


def _xdg(env: Mapping[str, str], name: str) -> Path | None:
    """Relative ones are to be ignored, says the XDG specification."""
    path = Path(env.get(name, ""))
    return path if path.is_absolute() else None


def refused(message: str, hint: str) -> DaemonError:
    """Return the error for a place that can't be used."""
    return DaemonError(Reason.BAD_CONFIGURATION, message, hint=hint)


def check_socket_path(path: Path) -> None:
    """Refuse a path that no Unix socket can have."""
    length = len(os.fsencode(path))
    if length > SOCKET_PATH_BYTES:
        raise refused(
            f"The socket's path has {length} bytes, the system allows "
            f"{SOCKET_PATH_BYTES}: {path}",
            "Set HOLDFAST_SOCKET (or --socket) to a shorter path, "
            "in a directory that only you can enter.",
        )


def private_dir(path: Path) -> None:
    """Make `path` a directory of our own, 0700, or refuse the one that is there."""
    try:
        _create(path)
        found = path.lstat()
        if stat.S_ISLNK(found.st_mode):
            raise refused(
                f"{path} is a symbolic link.", "Name the real directory, or remove it."
            )
        if not stat.S_ISDIR(found.st_mode):
            raise refused(f"{path} is not a directory.", "Move it out of the way.")
        _check_owner(path, found, 0o700)
        _check_ancestors(path)
    except OSError as error:
        raise refused(
            f"{path} can't be used as a directory: {error.strerror}.",
            "Check the directories above it, and the free space.",
        ) from error


def private_file(path: Path) -> None:
    """Refuse `path` unless it is a regular file of ours that no one else can open."""
    try:
        found = path.lstat()
    except OSError as error:
        raise refused(
            f"{path} can't be used: {error.strerror}.", "Check its directory."
        ) from error
    if stat.S_ISLNK(found.st_mode):
        raise refused(f"{path} is a symbolic link.", "Put the file itself there.")
    if not stat.S_ISREG(found.st_mode):
        raise refused(f"{path} is not a regular file.", "Move it out of the way.")
    _check_owner(path, found, 0o600)


def _create(path: Path) -> None:
    missing: list[Path] = []
    while not os.path.lexists(path):
        missing.append(path)
        path = path.parent
    for item in reversed(missing):
        try:
            item.mkdir(mode=0o700)
        except FileExistsError:
            continue  # somebody else was faster; what it is, is checked next
        item.chmod(0o700)  # whatever the umask took away


def _check_owner(path: Path, found: os.stat_result, mode: int) -> None:
    if found.st_uid != os.geteuid():
        raise refused(
            f"{path} belongs to user {found.st_uid}, not to us ({os.geteuid()}).",
            "Choose a place of your own; don't share the daemon's files.",
        )
    if found.st_mode & _OTHERS:
        alone = (
            ""
            if found.st_mode & stat.S_ISVTX
            else (f" If this one serves nothing else: chmod {mode:o} {path}")
        )
        raise refused(
            f"{path} is open to others (mode {stat.S_IMODE(found.st_mode):04o}).",
            f"Choose a place of your own with mode {mode:04o}.{alone}",
        )


def _check_ancestors(path: Path) -> None:
    """Whoever can write above us could swap the directory, unless it is sticky."""
    for above in path.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            raise refused(
                f"{path} lies in {above}, where everybody can replace it "
                f"(mode {stat.S_IMODE(mode):04o}).",
                f"Choose another place, or: chmod o-w {above}",
            )
