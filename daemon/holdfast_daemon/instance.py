"""One daemon per socket: the lock, the socket's name, and what is ours of it.

Measured on gRPC: a second server steals a live path without an error, and the first
one deletes the second one's socket when it stops. So: lock first, bind under a name of
our own, rename. Knows files and descriptors, not gRPC.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import resource
import secrets
import socket
import stat
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.paths import (
    SOCKET_PATH_BYTES,
    check_socket_path,
    private_dir,
    private_file,
    refused,
)

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.paths import Places

_PREFIX = ".hf-"
_RANDOM = 6
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LEFT_OVER = re.compile(rf"{re.escape(_PREFIX)}[{_ALPHABET}]{{{_RANDOM}}}")

# macOS says "unlimited" and then refuses more than OPEN_MAX.
_MACOS_DESCRIPTORS = 10_240


class AlreadyRunning(StateError):  # noqa: N818 - it is an answer, exit code 75
    """Another daemon holds the lock."""

    def __init__(self, places: Places, pid: str) -> None:
        who = f"process {pid}" if pid else "another process"
        super().__init__(
            Reason.LIMIT_REACHED,
            f"A daemon already serves {places.socket} ({who}).",
            hint="Use it, stop it first, or give this one its own --socket.",
            metadata={"socket": str(places.socket), "pid": pid},
        )


class Instance:
    """This process's hold on one socket path.

    Order: `lock`, bind a server to `bind_path()` under umask 0177, `publish`; `restore`
    whenever not `ours`; at the end stop the server, `withdraw`, `unlock`.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._socket = places.socket
        self._lock: int | None = None
        self._bound: Path | None = None
        self._inode: tuple[int, int] | None = None

    def lock(self) -> None:
        """Make the directory, take the lock, look at what stands in the socket's place.

        Raises:
            AlreadyRunning: another daemon holds the lock.
            DaemonError: the directory, the lock or the socket's place is not safe.
        """
        check_socket_path(self._socket)
        private_dir(self._socket.parent)
        descriptor = self._open_lock()
        try:
            self._check_place()
        except BaseException:
            os.close(descriptor)
            raise
        self._lock = descriptor
        self._sign()
        self._sweep()

    def _sign(self) -> None:
        """Write who we are into the lock, for the message of the next one."""
        if self._lock is not None:
            sign(self._lock, f"{os.getpid()}\n")

    def _open_lock(self) -> int:
        path = self._places.lock
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        while True:
            try:
                descriptor = os.open(path, flags, 0o600)
            except OSError as error:
                raise refused(
                    f"{path} can't be opened: {error.strerror}.",
                    "Remove it when no daemon runs.",
                ) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                found = _status(path)
                if found and _inode(found) == _inode(os.fstat(descriptor)):
                    private_file(path)
                    return descriptor
            except BlockingIOError:
                pid = os.pread(descriptor, 20, 0).decode("ascii", "replace").strip()
                os.close(descriptor)
                raise AlreadyRunning(self._places, pid) from None
            except OSError as error:
                os.close(descriptor)
                raise refused(
                    f"{path} can't be locked: {error.strerror}.",
                    "Set HOLDFAST_SOCKET to a path on a local file system.",
                ) from error
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # deleted by someone in between: lock the new one

    def _check_place(self) -> None:
        """Only a socket of our own may be replaced."""
        found = _status(self._socket)
        if found is None:
            return
        if not stat.S_ISSOCK(found.st_mode):
            raise refused(
                f"{self._socket} is there and is not a socket.",
                "Move it out of the way, or set HOLDFAST_SOCKET to another path.",
            )
        if found.st_uid != os.geteuid():
            raise refused(
                f"{self._socket} belongs to user {found.st_uid}.",
                "Set HOLDFAST_SOCKET to a path in a directory of your own.",
            )

    def _sweep(self) -> None:
        """Remove what daemons that were killed left under names of their own."""
        for path in self._socket.parent.iterdir():
            if _LEFT_OVER.fullmatch(path.name) and _is_dead(path):
                path.unlink(missing_ok=True)

    def bind_path(self) -> Path:
        """Return a new name beside the final one, for the server to bind."""
        private_dir(self._socket.parent)
        self._bound = self._free_name()
        return self._bound

    def _free_name(self) -> Path:
        """Never longer than the system allows: the final name may use the last byte.

        Nor ever the final name itself, which a short one could be by chance: what is
        renamed to where it is already would be taken for left over, and removed.
        """
        directory = self._socket.parent
        room = SOCKET_PATH_BYTES - len(os.fsencode(directory)) - 1
        while True:
            end = "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM))
            path = directory / (_PREFIX + end)[-room:]
            if path != self._socket and not os.path.lexists(path):
                return path

    def publish(self) -> None:
        """Give the bound socket its final name, in one step.

        A second link keeps the bound name, so that `restore` can put the final one
        back; the server's own unlink when it stops then hits only the bound name.
        """
        if self._lock is None or self._bound is None:
            raise RuntimeError("publish comes after lock and bind_path")
        found = self._bound.lstat()
        mode = stat.S_IMODE(found.st_mode)
        if (
            not stat.S_ISSOCK(found.st_mode)
            or mode != stat.S_IRUSR | stat.S_IWUSR
            or found.st_uid != os.geteuid()
        ):
            raise refused(
                f"{self._bound} came out with mode {mode:04o}, owner {found.st_uid}; "
                "it must be a socket of ours with mode 0600.",
                "The file system may not keep modes: set HOLDFAST_SOCKET to a path on "
                "one that does.",
            )
        self._name(self._bound)
        self._inode = _inode(found)

    def _name(self, bound: Path) -> None:
        """Replace the final name by `bound`, which stays where links are to be had."""
        second = self._free_name()
        try:
            os.link(bound, second, follow_symlinks=False)
        except (OSError, NotImplementedError):
            second = bound
        try:
            second.rename(self._socket)
        except OSError as error:
            raise refused(
                f"{self._socket} can't be put in place: {error.strerror}.",
                "Move away what stands there.",
            ) from error
        finally:
            if second != bound:  # there only if the renaming failed
                second.unlink(missing_ok=True)

    def ours(self) -> bool:
        """Return whether the final name still leads to our socket."""
        found = _status(self._socket)
        return found is not None and _inode(found) == self._inode

    def restore(self) -> bool:
        """Put the final name back after it was deleted, or replaced by a socket.

        Returns:
            Whether it leads to us again; False asks for a new server and `publish`.

        Raises:
            AlreadyRunning: the lock was deleted as well, and another daemon has it now.
            DaemonError: the directory or what stands in our place is not safe.
        """
        private_dir(self._socket.parent)
        self._keep_lock()
        if not self.ours():
            kept = self._bound and _status(self._bound)
            if not self._bound or not kept or _inode(kept) != self._inode:
                return False
            self._check_place()
            self._name(self._bound)
        return self.ours()

    def _keep_lock(self) -> None:
        """Lock the file that others would look at now, if ours was deleted."""
        found = _status(self._places.lock)
        held = self._lock
        if held is None or (found and _inode(found) == _inode(os.fstat(held))):
            return
        self._lock = self._open_lock()
        self._sign()
        os.close(held)

    def withdraw(self) -> None:
        """Remove our names, and nobody else's."""
        for path in (self._socket, self._bound):
            found = path and _status(path)
            if path and found and _inode(found) == self._inode:
                path.unlink(missing_ok=True)
        self._inode = None

    def unlock(self) -> None:
        """Let the next daemon in. The file stays: deleting it would let two in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def sign(lock: int, text: str) -> None:
    """Write into a lock who holds it; on a full disk it is held all the same."""
    os.ftruncate(lock, 0)  # who held it before is nobody to be ended
    with suppress(OSError):
        os.pwrite(lock, text.encode(), 0)


def _inode(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_dead(path: Path) -> bool:
    """Nobody listens on the socket `path` any more."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        return peer.connect_ex(os.fsencode(path)) == errno.ECONNREFUSED


def raise_descriptors(limit: int) -> int:
    """Raise the soft limit of open files towards `limit`; return what it is then."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limit
    wanted = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    if sys.platform == "darwin":
        wanted = min(wanted, _MACOS_DESCRIPTORS)
    if wanted > soft:
        with suppress(ValueError, OSError):  # a sandbox may forbid it; then as it was
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
