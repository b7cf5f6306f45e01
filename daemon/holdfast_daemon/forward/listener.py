"""Listening on this machine, on an address or a socket of the user's own."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, InputError, Reason, StateError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.tunnel import Place

# Many clients that begin at once wait here.
_BACKLOG = 1024
_HINT = "Name another port, or 0 to have one picked."


class Listener:
    """One listening socket.

    Attributes:
        place: Where, with the port that was picked.
    """

    def __init__(self, server: asyncio.Server, place: Place) -> None:
        self._server = server
        self.place = place
        self._inode = _inode(place.path)

    def close(self) -> None:
        """Listen no more; what is open stays."""
        self._server.close()
        path = self.place.path
        if path and self._inode is not None and _inode(path) == self._inode:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()


async def listen(
    place: Place, protocol: Callable[[], asyncio.Protocol], *, again: bool = False
) -> Listener:
    """Listen on `place`.

    With `again` it was ours before: a socket that nobody serves any more is replaced.

    Raises:
        DaemonError: It can't be had; says why.
    """
    loop = asyncio.get_running_loop()
    if place.path:
        if again:
            await asyncio.to_thread(_clear, place.path)
        found = _bound(socket.AF_UNIX, place, place.path)
        try:
            await asyncio.to_thread(os.chmod, place.path, 0o600)
            # its end is told by Listener, which looks whose file it is
            server = await loop.create_unix_server(
                protocol, sock=found, backlog=_BACKLOG
            )
        except OSError as error:
            found.close()
            raise _refused(place, error) from None
        return Listener(server, place)
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    found = _bound(family, place, (place.host, place.port))
    try:
        server = await loop.create_server(protocol, sock=found, backlog=_BACKLOG)
    except OSError as error:
        found.close()
        raise _refused(place, error) from None
    return Listener(server, place._replace(port=int(found.getsockname()[1])))


def _bound(
    family: socket.AddressFamily, place: Place, address: str | tuple[str, int]
) -> socket.socket:
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family != socket.AF_UNIX:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.setblocking(False)
        # Nobody can connect until it listens, and by then its mode is set. The mask is
        # left alone: it is that of all threads, who make files meanwhile.
        found.bind(address)
    except OSError as error:
        found.close()
        raise _refused(place, error) from None
    return found


def _refused(place: Place, error: OSError) -> DaemonError:
    metadata = {"listen": str(place), "cause": error.strerror or str(error)}
    field = "local_socket" if place.path else "local_port"
    if error.errno == errno.EADDRINUSE:
        what = "that file is there already" if place.path else "the port is in use"
        hint = "Name another path." if place.path else _HINT
        return StateError(
            Reason.IN_USE,
            f"this machine can't listen on {place}: {what}",
            hint=hint,
            metadata=metadata,
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        why = "its directory can't be written" if place.path else "it needs root"
        return StateError(
            Reason.FORWARD_REFUSED,
            f"this machine can't listen on {place}: permission denied, {why}",
            hint="Name another path." if place.path else _HINT,
            metadata=metadata,
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return InputError(
            "bind_address",
            f"bind_address: this machine has no address {place.host}",
            hint="Leave bind_address out for 127.0.0.1.",
        )
    return InputError(
        field,
        f"{field}: this machine can't listen on {place}: {error.strerror or error}",
    )


def _clear(path: str) -> None:
    """Remove a socket that a daemon which was killed left there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except OSError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                Path(path).unlink()
        except OSError:
            return


def _inode(path: str) -> tuple[int, int] | None:
    if not path:
        return None
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino
