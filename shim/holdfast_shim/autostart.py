"""Reaches the daemon's socket, starting the daemon when nothing answers there.

Knows processes and sockets, not gRPC. Many may start at once: a lock beside the socket
lets one of them do it while the others wait; the daemon's own lock decides in the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket as sockets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Self

from holdfast_shim import managers, places
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

START_SECONDS = 20.0
# Until a service that has not answered is asked for: it may have ended again.
_SERVICE_LOOK_SECONDS = 1.0
PATH_BYTES = 103 if sys.platform == "darwin" else 107
EXIT_HELD = 75
_INTERVALS = (0.01, 0.02, 0.04, 0.08, 0.15)
_LAST_INTERVAL = 0.2


async def reach(
    socket: Path, env: Mapping[str, str], *, start: bool, seconds: float = START_SECONDS
) -> None:
    """Return when something answers on `socket`.

    Args:
        socket: The daemon's socket.
        env: Environment for a daemon that has to be started.
        start: Whether it may be started.
        seconds: How long a start may take.

    Raises:
        CallError: Nothing answers, it could not be started, or the place is not safe.
    """
    if await answers(socket):
        return
    if not start:
        raise _unavailable(
            "the holdfast daemon is not running",
            "start it with `holdfastd`, or leave out --no-autostart",
        )
    try:
        async with asyncio.timeout(seconds):
            await _start(socket, env)
    except TimeoutError:
        raise _unavailable(
            f"the holdfast daemon was started but did not answer within {seconds:g} s",
            f"see {_log(env)}",
        ) from None


async def answers(socket: Path) -> bool:
    """Return whether something accepts connections on `socket`.

    Raises:
        CallError: The socket or its directory could be another user's work.
    """
    size = len(os.fsencode(socket))
    if size > PATH_BYTES:
        raise _unavailable(
            f"the socket's path is too long: {size} bytes, at most {PATH_BYTES} work",
            "choose a shorter one with HOLDFAST_SOCKET or --socket",
        )
    try:
        if not places.check(socket):
            return False
    except places.PlaceError as error:
        raise _unavailable(error.message, error.hint) from None
    probe = sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM)
    probe.setblocking(False)
    try:
        await asyncio.get_running_loop().sock_connect(probe, str(socket))
    except BlockingIOError:
        return True  # its queue is full, so somebody is there
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError as error:
        raise _unavailable(
            f"the socket {socket} can't be used: {error.strerror or error}",
            "choose a shorter or accessible path with HOLDFAST_SOCKET or --socket",
        ) from None
    finally:
        probe.close()
    return True


async def _start(socket: Path, env: Mapping[str, str]) -> None:
    manager = await managers.find(socket, env)
    begun = manager is not None and await manager.start()
    # One more beside it would take its place, and the service would end.
    while manager is not None and (begun or await manager.runs()):
        begun = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SERVICE_LOOK_SECONDS):
                await _answered(socket)
                return
    with contextlib.ExitStack() as stack:
        await _start_by_hand(socket, env, stack)


async def _start_by_hand(
    socket: Path, env: Mapping[str, str], stack: contextlib.ExitStack
) -> None:
    child: _Child | None = None
    held: _Lock | None = None
    for interval in _intervals():
        if await answers(socket):
            return
        if child is None:
            if held is None and (held := _Lock.take(socket)) is not None:
                stack.enter_context(held)
            # Who had the lock before us may have just finished.
            if held is not None and not await answers(socket):
                child = _Child(socket, env)
                stack.callback(child.release)
        elif child.failed():
            if await answers(socket):
                return
            raise child.error()
        await asyncio.sleep(interval)


async def _answered(socket: Path) -> None:
    for interval in _intervals():
        if await answers(socket):
            return
        await asyncio.sleep(interval)


def _intervals() -> Iterator[float]:
    yield from _INTERVALS
    while True:
        yield _LAST_INTERVAL


class _Lock:
    """The right to start the daemon, and what was made in order to hold it."""

    def __init__(self, path: Path, descriptor: int, made: list[Path]) -> None:
        self._path = path
        self._descriptor = descriptor
        self._made = made

    @classmethod
    def take(cls, socket: Path) -> _Lock | None:
        """Return a held lock when this process is the one to start the daemon."""
        try:
            places.check_directory(socket.parent)
        except places.PlaceError as error:
            raise _unavailable(error.message, error.hint) from None
        path = Path(f"{socket}.start")
        made: list[Path] = []
        try:
            _make_private(socket.parent, made)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            _remove(made)
            raise _unavailable(
                f"{socket.parent} can't be made or written: {error.strerror or error}",
                "choose another place with HOLDFAST_SOCKET or --socket",
            ) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return cls(path, descriptor, made)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, CallError):
            # No daemon could be started here, so nothing of it stays.
            with contextlib.suppress(OSError):  # whoever can't remove it, leaves it
                self._path.unlink(missing_ok=True)
            _remove(self._made)
        os.close(self._descriptor)


def _make_private(directory: Path, made: list[Path]) -> None:
    """Make `directory` and what is missing above it, closed to others.

    What was made is added to `made`, the highest first.
    """
    if not directory.is_dir():
        _make_private(directory.parent, made)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            made.append(directory)


def _remove(made: list[Path]) -> None:
    """Remove directories that were made, as far as nobody uses them by now."""
    for directory in reversed(made):
        try:
            directory.rmdir()
        except OSError:
            return


class _Child:
    """A daemon started by us, in a session of its own."""

    def __init__(self, socket: Path, env: Mapping[str, str]) -> None:
        self._path = _log(env)
        try:
            _make_private(self._path.parent, [])
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
            log = os.open(self._path, flags, 0o600)
        except OSError as error:
            raise _unavailable(
                f"the daemon's log {self._path} can't be written: "
                f"{error.strerror or error}",
                "make its directory writable, or set HOLDFAST_STATE_DIR",
            ) from None
        try:
            self._from = os.fstat(log).st_size
            # -P: nothing that lies in the working directory may be imported.
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "holdfast_daemon",
                    "--socket",
                    str(socket),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env={k: v for k, v in env.items() if k not in managers.PRIVATE},
                start_new_session=True,
            )
        except OSError as error:
            raise _unavailable(
                f"the daemon could not be started: {error.strerror or error}",
                "start `holdfastd` by hand to see why",
            ) from None
        finally:
            os.close(log)

    def failed(self) -> bool:
        """Return whether it ended, other than because another daemon was first."""
        return self._process.poll() not in (None, EXIT_HELD)

    def error(self) -> CallError:
        """Return why it ended, in its own words."""
        with self._path.open("rb") as log:
            log.seek(self._from)
            text = log.read(64 * 1024).decode(errors="replace").strip()
        said = text[-1500:] or "it said nothing"
        return _unavailable(
            f"the holdfast daemon ended with exit code {self._process.returncode}: "
            f"{said}",
            f"correct what it names; its log is {self._path}",
        )

    def release(self) -> None:
        """Stop watching it, but take note of its end so that no zombie stays."""
        process = self._process
        if process.poll() is not None or not hasattr(os, "pidfd_open"):
            return
        loop = asyncio.get_running_loop()
        try:
            ended = os.pidfd_open(process.pid)
        except OSError:
            return  # a kernel without it; the zombie goes when this process does

        def reap() -> None:
            loop.remove_reader(ended)
            os.close(ended)
            process.poll()

        loop.add_reader(ended, reap)


def _log(env: Mapping[str, str]) -> Path:
    home = Path(env.get("HOME") or Path.home())
    try:
        state = places.places(env, home, os.getuid()).state
    except places.PlaceError as error:
        raise _unavailable(error.message, error.hint) from None
    return state / "log" / "holdfastd.log"


def _unavailable(message: str, hint: str) -> CallError:
    return CallError("DAEMON_UNAVAILABLE", message, hint=hint)
