"""Tunnels through a connection: opened from here, or asked for by the host."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple, Protocol

import asyncssh
from asyncssh.constants import (
    OPEN_ADMINISTRATIVELY_PROHIBITED,
    OPEN_CONNECT_FAILED,
)

from holdfast_daemon.connection import failure
from holdfast_daemon.errors import DaemonError, Reason, StateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.hosts.host import Host

    Channel = asyncssh.SSHTCPChannel[bytes] | asyncssh.SSHUNIXChannel[bytes]

_log = logging.getLogger(__name__)

# What the host may send before it must wait, and in one packet.
_WINDOW = 2 * 1024 * 1024
_PACKET = 128 * 1024
# Not yet taken by the host; beyond it the sender here must wait.
_UNSENT = 256 * 1024
_RULES = (
    "its sshd says who may (AllowTcpForwarding, AllowStreamLocalForwarding, PermitOpen,"
    " DisableForwarding, or the key's line in authorized_keys)"
)
_LOOK = "look whether something listens there, as the host itself sees it"
_PROHIBITED = OPEN_ADMINISTRATIVELY_PROHIBITED


class Place(NamedTuple):
    """An address of TCP, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        """As people write it."""
        if self.path:
            return self.path
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class User(Protocol):
    """The end of a tunnel on this machine."""

    def opened(self, tunnel: Tunnel) -> None:
        """Take the open tunnel."""
        ...

    def received(self, data: bytes) -> None:
        """Take `data`."""
        ...

    def ended(self) -> None:
        """Hear that nothing more comes; the other direction stays open."""
        ...

    def hold(self) -> None:
        """Write no more for now."""
        ...

    def go_on(self) -> None:
        """Write again."""
        ...

    def lost(self) -> None:
        """Hear that the tunnel is gone."""
        ...


class Unreached(StateError):  # noqa: N818  a state first, an error second
    """The host opened no tunnel.

    Attributes:
        prohibited: By its rules, whatever the target does.
        why: In the host's own words.
    """

    def __init__(
        self, host: Host, place: Place, error: asyncssh.ChannelOpenError
    ) -> None:
        self.prohibited = error.code == _PROHIBITED
        self.why = " ".join(str(error.reason).split())[:300] or "no reason was given"
        what = "does not allow a forward to" if self.prohibited else "can't reach"
        super().__init__(
            Reason.FORWARD_REFUSED,
            f"{host.shown} {what} {place}: {self.why}",
            hint=_RULES if self.prohibited else _LOOK,
            metadata={"host": host.shown, "connect": str(place), "why": self.why},
        )


class Tunnel:
    """One open tunnel."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.abandoned = False
        self._channel: Channel | None = None
        self._paused = self._resuming = False

    @property
    def open(self) -> bool:
        """It is there."""
        return self._channel is not None

    def write(self, data: bytes) -> None:
        """Send `data`; after its end it is dropped."""
        if self._channel is not None and not self._channel.is_closing():
            self._channel.write(data)

    def write_eof(self) -> None:
        """Send no more."""
        if self._channel is not None:
            self._channel.write_eof()

    def pause(self) -> None:
        """Stop reading; the host waits once its window is full."""
        self._paused = True
        if self._channel is not None and not self._resuming:
            self._channel.pause_reading()

    def resume(self) -> None:
        """Read on; what was held back is taken whole.

        The library grants the host a full window with its first piece, so a rest would
        grow by a window at every pause.
        """
        self._paused = False
        if self._channel is None:
            return
        self._resuming = True
        try:
            self._channel.resume_reading()
        finally:
            self._resuming = False
        self._pause_again()

    def _pause_again(self) -> None:
        # a user that took what was held back may have had enough of it
        if self._paused and self._channel is not None:
            self._channel.pause_reading()

    def close(self) -> None:
        """Close it once what was written is sent."""
        if self._channel is not None:
            self._channel.close()

    def abort(self) -> None:
        """Close it now."""
        if self._channel is not None:
            self._channel.abort()

    # what the sessions call

    def made(self, channel: Channel) -> None:
        """Take the channel."""
        self._channel = channel
        channel.set_write_buffer_limits(_UNSENT)
        if self.abandoned:
            channel.abort()
        else:
            self.user.opened(self)

    def received(self, data: bytes) -> None:
        """Hand data on."""
        self._tell(lambda: self.user.received(data))

    def ended(self) -> None:
        """Hand on that there is no more."""
        self._tell(self.user.ended)

    def _tell(self, tell: Callable[[], None]) -> None:
        """One bad user must not end the connection of all the others."""
        try:
            tell()
        except Exception:  # noqa: BLE001  see above
            _log.exception("the user of a tunnel failed")
            self.abort()

    def gone(self) -> None:
        """Let go of the channel."""
        self._channel = None
        self.user.lost()


class _Relay:
    """What both kinds of session hand on."""

    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def connection_made(self, chan: Channel) -> None:
        """Take the channel."""
        self._tunnel.made(chan)

    def data_received(
        self,
        data: bytes,
        datatype: int | None,  # noqa: ARG002
    ) -> None:
        """Hand data on."""
        self._tunnel.received(data)

    def eof_received(self) -> bool:
        """Keep the other direction open."""
        self._tunnel.ended()
        return True

    def pause_writing(self) -> None:
        """Have the user wait."""
        self._tunnel.user.hold()

    def resume_writing(self) -> None:
        """Have the user write on."""
        self._tunnel.user.go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Tell the user."""
        self._tunnel.gone()


class _Tcp(_Relay, asyncssh.SSHTCPSession[bytes]):
    """A tunnel of TCP."""


class _Unix(_Relay, asyncssh.SSHUNIXSession[bytes]):
    """A tunnel of a Unix socket."""


async def open_tunnel(
    link: Link, place: Place, user: User, origin: Place | None = None
) -> Tunnel:
    """Have the host connect to `place`; names are resolved there.

    Who gives up leaves the rest to a task, or the server would keep it for nobody.

    Raises:
        Unreached: The host does not, or can't.
        DaemonError: The connection is gone.
    """
    tunnel = Tunnel(user)
    task = asyncio.create_task(_open(link, place, tunnel, origin or Place()))
    try:
        await asyncio.shield(task)
    except asyncssh.ChannelOpenError as error:
        if link.closed or link.connection.is_closed():
            raise failure.LinkGone(link.host, link.reason) from None
        raise Unreached(link.host, place, error) from None
    except (asyncssh.Error, OSError) as error:
        raise failure.LinkGone(link.host, failure.lost_reason(error)) from None
    except asyncio.CancelledError:
        tunnel.abandoned = True
        tunnel.abort()
        task.add_done_callback(_retrieve)
        raise
    link.proven = True
    return tunnel


async def _open(link: Link, place: Place, tunnel: Tunnel, origin: Place) -> None:
    connection = link.connection
    if place.path:
        await connection.create_unix_connection(
            lambda: _Unix(tunnel), place.path, window=_WINDOW, max_pktsize=_PACKET
        )
        return
    await connection.create_connection(
        lambda: _Tcp(tunnel),
        place.host,
        place.port,
        origin.host or "127.0.0.1",
        origin.port,
        window=_WINDOW,
        max_pktsize=_PACKET,
    )


class Listening:
    """Something that listens on the host.

    Attributes:
        place: Where.
    """

    def __init__(self, listener: asyncssh.SSHListener, place: Place) -> None:
        self._listener = listener
        self.place = place

    async def close(self, seconds: float) -> None:
        """Have the host listen no more; what is open stays."""
        self._listener.close()
        try:
            async with asyncio.timeout(seconds):
                await self._listener.wait_closed()
        except TimeoutError:
            _log.info("the host did not say that it listens no more on %s", self.place)


async def listen(
    link: Link,
    place: Place,
    accept: Callable[[Place], Awaitable[User]],
    seconds: float,
) -> Listening:
    """Have the host listen on `place`; each connection there asks `accept` for its end.

    `accept` raises OSError where there is nobody to connect to.

    Raises:
        DaemonError: The host refuses, does not answer, or is gone.
    """

    async def end(origin: Place) -> Tunnel:
        try:
            return Tunnel(await accept(origin))
        except OSError as error:
            why = error.strerror or str(error)
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, why) from None

    async def tcp(host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
        return _Tcp(await end(Place(host, port)))

    async def unix() -> asyncssh.SSHUNIXSession[bytes]:
        return _Unix(await end(Place()))

    connection, size = link.connection, {"window": _WINDOW, "max_pktsize": _PACKET}
    asking = (
        connection.create_unix_server(unix, place.path, **size)
        if place.path
        else connection.create_server(tcp, place.host, place.port, **size)
    )
    try:
        async with asyncio.timeout(seconds):
            listener = await _wanted(asking)
    except asyncssh.ChannelListenError:
        raise await _unheard(link, place, seconds) from None
    except TimeoutError:
        raise failure.too_slow(link.host, seconds, "a port to listen on") from None
    except (asyncssh.Error, OSError) as error:
        raise failure.LinkGone(link.host, failure.lost_reason(error)) from None
    link.proven = True
    listening = Listening(listener, _found(listener, place))
    if link.widened(place.host):
        await listening.close(seconds)
        raise _for_everybody(link, place)
    return listening


def _for_everybody(link: Link, place: Place) -> DaemonError:
    """Return the error for a host that would listen on more than it was asked to."""
    why = "its sshd, with GatewayPorts yes, would listen on all addresses instead"
    return StateError(
        Reason.FORWARD_REFUSED,
        f"{link.host.shown} does not listen on {place}: {why}, and everybody who"
        " reaches it could use the forward",
        hint="Set GatewayPorts to no or clientspecified there, or let it listen on a"
        " socket (remote_socket). A person may allow bind_address 0.0.0.0 by"
        " forward_wildcard = true in the configuration.",
        metadata={"host": link.host.shown, "listen": str(place), "why": why},
    )


async def _unheard(link: Link, place: Place, seconds: float) -> DaemonError:
    """Return the error for a refusal, of which SSH tells no reason: find out more."""
    if place.path:
        why = "a file is there already, its directory can't be written, or sshd forbids"
        why += " it (AllowStreamLocalForwarding, StreamLocalBindUnlink)"
    elif place.port and await _listens(link, place._replace(port=0), seconds):
        why = "that port is in use there, needs root, or sshd forbids it (PermitListen)"
    else:
        why = "its sshd forbids it (AllowTcpForwarding, PermitListen) or has no such"
        why += " address"
    if link.closed or link.connection.is_closed():
        # The library says the same of a host that can't answer any more.
        return failure.LinkGone(link.host, link.reason)
    return StateError(
        Reason.FORWARD_REFUSED,
        f"{link.host.shown} refuses to listen on {place}: {why}",
        hint="SSH gives no reason; the log of its sshd does. Try another port, or 0.",
        metadata={"host": link.host.shown, "listen": str(place), "why": why},
    )


async def _listens(link: Link, place: Place, seconds: float) -> bool:
    """Whether it listens there; it does so for a moment only."""
    try:
        async with asyncio.timeout(seconds):
            listener = await link.connection.create_server(_nobody, *place[:2])
            listener.close()
            await listener.wait_closed()
    except (asyncssh.Error, asyncssh.ChannelListenError, OSError):
        return False  # TimeoutError is an OSError; the second is no Error of asyncssh's
    return True


async def _nobody(host: str, port: int) -> asyncssh.SSHTCPSession[bytes]:
    raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, f"nobody: {host} {port}")


async def _wanted(asking: Awaitable[asyncssh.SSHListener]) -> asyncssh.SSHListener:
    """Return what is asked for; who gives up leaves no listener for nobody."""
    task = asyncio.ensure_future(asking)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # the host may say yes later
        task.add_done_callback(_unwanted)
        raise


def _found(listener: asyncssh.SSHListener, place: Place) -> Place:
    return place if place.path else place._replace(port=listener.get_port())


def _unwanted(task: asyncio.Future[asyncssh.SSHListener]) -> None:
    """Have the host listen no more, once it does."""
    if not task.cancelled() and task.exception() is None:
        task.result().close()


def _retrieve(task: asyncio.Task[None]) -> None:
    """Look at the outcome, so that one nobody waits for is no warning."""
    if not task.cancelled():
        task.exception()
