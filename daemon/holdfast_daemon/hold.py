"""What a daemon must hold alone before it starts: the socket's path and the state.

Waits for one that is just ending: a killed process lets go of its socket a moment
before its locks, and a client that saw the socket go starts the next one at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.instance import AlreadyRunning, Instance, sign
from holdfast_daemon.paths import private_file, refused

if TYPE_CHECKING:
    from collections.abc import Generator

    from holdfast_daemon.paths import Places

_LOOK_SECONDS = 0.05
_LOCK_BYTES = 4096


@contextlib.contextmanager
def hold(where: Places, seconds: float) -> Generator[Instance, None, None]:
    """Hold both for the block; wait at most `seconds` for one that does not answer.

    Raises:
        AlreadyRunning: Another daemon serves the socket.
        DaemonError: A place is not safe, or another daemon uses the state directory.
    """
    deadline = time.monotonic() + seconds
    instance = Instance(where)
    _lock_socket(instance, where, deadline)
    try:
        with _state(where, deadline):
            yield instance
    finally:
        instance.unlock()


def _lock_socket(instance: Instance, where: Places, deadline: float) -> None:
    while True:
        try:
            instance.lock()
        except AlreadyRunning:
            if _answers(str(where.socket)) or time.monotonic() >= deadline:
                raise
            time.sleep(_LOOK_SECONDS)
        else:
            return


@contextlib.contextmanager
def _state(where: Places, deadline: float) -> Generator[None, None, None]:
    """Two daemons on sockets of their own would spoil each other's audit log."""
    path = where.state / "lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        lock = os.open(path, flags, 0o600)
    except OSError as error:
        raise refused(
            f"{path} can't be opened: {error.strerror}.",
            "Make its directory writable, or name another with --state-dir.",
        ) from error
    try:
        private_file(path)
        _lock_state(lock, where, deadline)
        sign(lock, f"{where.socket}\n{os.getpid()}\n")
        yield
    finally:
        os.close(lock)


def _lock_state(lock: int, where: Places, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            told = os.pread(lock, _LOCK_BYTES, 0).decode(errors="replace").splitlines()
            other, pid = told if len(told) == 2 else ("", "?")  # noqa: PLR2004
            if _answers(other) or time.monotonic() >= deadline:
                raise refused(
                    f"The state directory {where.state} is in use by the daemon on "
                    f"{other or 'another socket'} (process {pid}).",
                    "Use that socket, stop that daemon, or give this one its own "
                    "--state-dir.",
                ) from error
            time.sleep(_LOOK_SECONDS)
        except OSError as error:
            raise refused(
                f"{where.state} can't be locked: {error.strerror}.",
                "Name a directory on a local file system with --state-dir.",
            ) from error
        else:
            return


def _answers(path: str) -> bool:
    """Somebody listens on `path`."""
    if not path or not Path(path).is_socket():
        return False
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        try:
            peer.connect(path)
        except BlockingIOError:
            return True  # its queue is full, so somebody is there
        except OSError:
            return False
    return True
