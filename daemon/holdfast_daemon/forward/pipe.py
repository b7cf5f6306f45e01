"""One connection through a forward: a socket of this machine and a tunnel.

Bytes go both ways as fast as the slower side takes them; an end, a close and a reset of
one side reach the other as what they are.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import logging
import socket
import struct
import termios
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.tunnel import Tunnel

_log = logging.getLogger(__name__)

# Not yet taken by a reader here; beyond it the host must wait.
_UNREAD = 256 * 1024
_AT_ONCE = struct.pack("ii", 1, 0)


@dataclass(slots=True)
class Tally:
    """Bytes from the users of a forward, and to them."""

    inward: int = 0
    outward: int = 0


class Pipe(asyncio.Protocol):
    """The socket's protocol and the tunnel's user in one.

    Attributes:
        task: Opens the tunnel.
        hears: Takes what the socket says while there is no tunnel yet.
    """

    def __init__(
        self,
        tally: Tally,
        begun: Callable[[Pipe], None],
        over: Callable[[Pipe], None],
        *,
        from_host: bool = False,
    ) -> None:
        """Tell `begun` of the socket and `over` of the end of both."""
        self._tally = tally
        self._begun = begun
        self._over = over
        self._from_host = from_host
        self._transport: asyncio.Transport | None = None
        self._tunnel: Tunnel | None = None
        self._near_ended = self._far_ended = False
        self._finished = False
        self.task: asyncio.Task[None] | None = None
        self.hears: Callable[[bytes], None] | None = None

    @property
    def peer(self) -> tuple[str, int]:
        """Who connected, as far as that has a name."""
        transport = self._transport
        found = transport.get_extra_info("peername") if transport else None
        if isinstance(found, tuple) and len(found) > 1:
            return str(found[0]), int(found[1])
        return "127.0.0.1", 0

    # the socket

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the socket; nothing is read until somebody takes it."""
        self._transport = found = cast("asyncio.Transport", transport)
        found.set_write_buffer_limits(high=_UNREAD)
        found.pause_reading()
        self._begun(self)

    def data_received(self, data: bytes) -> None:
        """Pass on what the socket says."""
        if self._tunnel is not None:
            self._count(len(data), from_socket=True)
            self._tunnel.write(data)
        elif self.hears is not None:
            self.hears(data)

    def eof_received(self) -> bool:
        """Pass on that the socket says no more; it may still read."""
        self._near_ended = True
        if self._tunnel is None:
            return False
        self._tunnel.write_eof()
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        """Have the host wait: nobody reads here."""
        if self._tunnel is not None:
            self._tunnel.pause()

    def resume_writing(self) -> None:
        """Have the host go on."""
        if self._tunnel is not None:
            self._tunnel.resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass on that the socket is gone; what it said before its end still goes."""
        self._transport = None
        tunnel = self._tunnel
        if tunnel is not None and tunnel.open:
            if self._near_ended and not isinstance(exc, ConnectionResetError):
                tunnel.close()
            else:
                tunnel.abort()
        elif self.task is not None:
            self.task.cancel()
        self._finish()

    # the tunnel

    def opened(self, tunnel: Tunnel) -> None:
        """Take the tunnel: both directions begin."""
        self._tunnel = tunnel
        self.hears = None
        if self._transport is None or self._transport.is_closing():
            tunnel.abort()
            return
        self._transport.resume_reading()

    def received(self, data: bytes) -> None:
        """Pass on what the host says."""
        if self._transport is not None and not self._transport.is_closing():
            self._count(len(data), from_socket=False)
            self._transport.write(data)

    def ended(self) -> None:
        """Pass on that the host says no more."""
        self._far_ended = True
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        try:
            if transport.can_write_eof():
                transport.write_eof()
        except OSError:  # its reset is told only to who reads or writes
            self.reset()
            return
        self._close_if_done()

    def hold(self) -> None:
        """Read no more: the host takes no more."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def lost(self) -> None:
        """Pass on that the tunnel is gone.

        What was cut short must not look like an end: it is a reset here.
        """
        self._tunnel = None
        transport = self._transport
        if transport is None:
            self._finish()
        elif self._far_ended and (self._near_ended or self._unsent(transport)):
            transport.close()
        else:
            self.reset()

    def _unsent(self, transport: asyncio.Transport) -> bool:
        """Whether a reset would take away what the reader has not got yet."""
        if transport.get_write_buffer_size():
            return True
        found = transport.get_extra_info("socket")
        left = array.array("i", [0])
        try:
            fcntl.ioctl(found.fileno(), termios.TIOCOUTQ, left)
        except OSError as error:
            _log.debug("what is unsent is not known: %s", error)
            return True
        return left[0] > 0

    # both

    def say(self, data: bytes) -> None:
        """Say something to the socket before there is a tunnel."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def heed(self, hears: Callable[[bytes], None] | None) -> None:
        """Let `hears` read before there is a tunnel; None: read nothing."""
        self.hears = hears
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if hears is None:
            transport.pause_reading()
        else:
            transport.resume_reading()

    def push(self, data: bytes) -> None:
        """Pass on what was heard too early."""
        if data and self._tunnel is not None:
            self._count(len(data), from_socket=True)
            self._tunnel.write(data)

    def close(self) -> None:
        """Close the socket once what was said to it is sent."""
        if self._transport is not None:
            self._transport.close()

    def reset(self) -> None:
        """Break it off, in a way that can't be taken for an end."""
        transport = self._transport
        if transport is not None:
            found = transport.get_extra_info("socket")
            if found is not None and found.family != socket.AF_UNIX:
                found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
            transport.abort()
        if self._tunnel is not None:
            self._tunnel.abort()

    def _close_if_done(self) -> None:
        if self._near_ended and self._far_ended:
            if self._tunnel is not None:
                self._tunnel.close()
            if self._transport is not None:
                self._transport.close()

    def _count(self, size: int, *, from_socket: bool) -> None:
        if from_socket is self._from_host:
            self._tally.outward += size
        else:
            self._tally.inward += size

    def _finish(self) -> None:
        if not self._finished and self._transport is None:
            self._finished = True
            self._over(self)
