"""Where the daemon is found: the contract's search order, the shim's own copy of it.

Must find it with only a home directory and a user id: clients strip the environment.
"""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

RUN_USER = Path("/run/user")


class PlaceError(ValueError):
    """A place that can't be used; `hint` is the next step."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class Places(NamedTuple):
    """The three places of one daemon."""

    socket: Path
    config: Path
    state: Path


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

    Arguments win and may be relative; variables must be absolute.
    """
    state = state or _own(env, "HOLDFAST_STATE_DIR", home)
    if state is None:
        base = _xdg(env, "XDG_STATE_HOME") or home / ".local" / "state"
        state = base / "holdfast"
    config = config or _own(env, "HOLDFAST_CONFIG", home)
    if config is None:
        base = _xdg(env, "XDG_CONFIG_HOME") or home / ".config"
        config = base / "holdfast" / "config.toml"
    socket = socket or _own(env, "HOLDFAST_SOCKET", home)
    if socket is None:
        runtime = _xdg(env, "XDG_RUNTIME_DIR")
        if runtime is None and (RUN_USER / str(uid)).is_dir():
            runtime = RUN_USER / str(uid)
        directory = state / "run" if runtime is None else runtime / "holdfast"
        socket = directory / "holdfast.sock"
    try:
        return Places(socket.absolute(), config.absolute(), state.absolute())
    except OSError as error:
        raise PlaceError(
            "the working directory, from where a place was named, is gone",
            "Name it absolutely, as /…",
        ) from error


def home_of(env: Mapping[str, str]) -> Path:
    """Return the user's home directory.

    Raises:
        PlaceError: Nobody knows it.
    """
    try:
        return Path(env.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise PlaceError(
            f"no home directory is known: HOME is not set, and this machine does not"
            f" know user {os.getuid()}",
            "Set HOME.",
        ) from None


def named(text: str, home: Path) -> Path:
    """Return the path that a client's file names, where no shell reads the `~`."""
    return home / text[2:] if text.startswith("~/") else Path(text)


def _own(env: Mapping[str, str], name: str, home: Path) -> Path | None:
    text = env.get(name, "")
    if not text:
        return None
    path = named(text, home)
    if not path.is_absolute():
        raise PlaceError(
            f"{name} is not an absolute path: {text}", f"Give {name} as /…"
        )
    return path


def _xdg(env: Mapping[str, str], name: str) -> Path | None:
    """Relative ones are to be ignored, says the XDG specification."""
    path = Path(env.get(name, ""))
    return path if path.is_absolute() else None


def check_directory(directory: Path) -> None:
    """Refuse a directory that is there and would not be safe to put a socket into."""
    own = "Choose a place of your own (mode 0700) with HOLDFAST_SOCKET or --socket."
    try:
        found = directory.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise PlaceError(
            f"{directory} can't be reached: {error.strerror}.", own
        ) from error
    if not stat.S_ISDIR(found.st_mode):
        raise PlaceError(
            f"{directory} is not a directory of its own (a symbolic link?).", own
        )
    if found.st_uid != os.geteuid():
        raise PlaceError(
            f"{directory} belongs to user {found.st_uid}, not to us ({os.geteuid()}).",
            own,
        )
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise PlaceError(f"{directory} is open to others (mode {mode:04o}).", own)


def check(socket: Path) -> bool:
    """Return whether a socket is there; refuse one that others may have put there.

    gRPC tells neither side who the peer is, so the directory must vouch for it.
    """
    try:
        directory = socket.parent.lstat()
        found = socket.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise PlaceError(
            f"{socket} can't be reached: {error.strerror}.",
            "Check who owns its directory.",
        ) from error
    if not stat.S_ISDIR(directory.st_mode):
        raise PlaceError(
            f"{socket.parent} is not a directory of its own (a symbolic link?).",
            "Name the real directory in HOLDFAST_SOCKET.",
        )
    if not stat.S_ISSOCK(found.st_mode):
        raise PlaceError(f"{socket} is not a socket.", "Move it out of the way.")
    for path, status in ((socket.parent, directory), (socket, found)):
        if status.st_uid != os.geteuid():
            raise PlaceError(
                f"{path} belongs to user {status.st_uid}, not to us ({os.geteuid()}).",
                "Run the client as the user who runs the daemon.",
            )
        if status.st_mode & 0o077:
            raise PlaceError(
                f"{path} is open to others (mode {stat.S_IMODE(status.st_mode):04o}).",
                "Stop the daemon, look who changed it, and start it again.",
            )
    return True
