"""Looks at the key a host shows now: a handshake, and nothing is offered."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, Never

import asyncssh
from asyncssh.constants import DISC_BY_APPLICATION

from holdfast_daemon.connection import failure, presented, terms
from holdfast_daemon.connection.dial import dial
from holdfast_daemon.connection.proxy import Proxy
from holdfast_daemon.hosts.public_key import CERTIFICATE

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from asyncssh import SSHClientConnection, SSHKey

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.trust import Trust
    from holdfast_daemon.limits import Limits


class Glance(NamedTuple):
    """What was seen.

    Attributes:
        blob: The key, which the host has proved to hold.
        address: Where it was met; empty: behind a proxy or a jump host.
    """

    blob: bytes
    address: str


async def glance(
    host: Host, limits: Limits, trust: Trust, tunnel: SSHClientConnection | None
) -> Glance:
    """Return the key that a login would meet, over `tunnel` behind a jump host.

    Raises:
        DaemonError: The host can't be reached, or shows none.
    """
    seconds = host.connect_timeout or limits.connect_timeout_seconds
    looker = _Looker()
    try:
        async with asyncio.timeout(seconds):
            await _look(host, limits, looker, _kinds(host, trust), tunnel)
    except TimeoutError:
        step = "the key exchange" if looker.spoke else "a word from it"
        raise failure.too_slow(host, seconds, step) from None
    except ValueError as error:
        raise failure.unsupported(host, str(error)) from None
    except (OSError, asyncssh.Error) as error:
        if not looker.proved:
            raise failure.unreachable(
                host, error, spoke=looker.spoke, hop=host.proxy_jump
            ) from None
    direct = host.proxy_jump is None and not host.proxy_command
    return Glance(looker.blob, looker.address if direct else "")


class _Looker(asyncssh.SSHClient):
    """Takes any key, and leaves once the host has proved to hold it.

    Attributes:
        proved: It has.
    """

    def __init__(self) -> None:
        self._connection: SSHClientConnection | None = None
        self.blob = b""
        self.address = ""
        self.proved = False

    @property
    def spoke(self) -> bool:
        """The server introduced itself."""
        made = self._connection
        return made is not None and bool(made.get_extra_info("server_version"))

    def connection_made(self, conn: SSHClientConnection) -> None:
        """Meet the key, and go before anything is asked for."""
        self._connection = conn
        self.address = str((conn.get_extra_info("peername") or ("",))[0])
        presented.attend(conn, self._see)
        # The library begins to log in as soon as the keys are agreed upon.
        setattr(conn, conn.send_service_request.__name__, self._leave)

    def validate_host_public_key(
        self,
        host: str,  # noqa: ARG002
        addr: str,  # noqa: ARG002
        port: int,  # noqa: ARG002
        key: SSHKey,
    ) -> bool:
        """Take the key that was seen."""
        return key.public_data == self.blob

    async def _see(self, blob: bytes) -> bytes:
        self.blob = blob
        return blob

    def _leave(self, service: bytes) -> Never:  # noqa: ARG002
        self.proved = True
        raise asyncssh.DisconnectError(
            DISC_BY_APPLICATION, "only the key was to be seen"
        )


def _kinds(host: Host, trust: Trust) -> Sequence[str]:
    """Return plain kinds only: a certificate is trusted by its authority.

    Raises:
        ValueError: There are none.
    """
    kinds = terms.offered_host_keys(host, trust)[-1]
    if all(kind.endswith(CERTIFICATE) for kind in kinds):
        raise ValueError("only certificates are taken (HostKeyAlgorithms)")
    return kinds


async def _look(
    host: Host,
    limits: Limits,
    looker: _Looker,
    kinds: Sequence[str],
    tunnel: SSHClientConnection | None,
) -> None:
    proxy: Proxy | None = None
    sock: socket.socket | None = None
    seconds = host.connect_timeout or limits.connect_timeout_seconds
    said = terms.options(host, limits, looker, kinds)
    try:
        if host.proxy_command and tunnel is None:
            proxy, sock = await Proxy.start(host.proxy_command)
        elif tunnel is None:
            sock = await dial(host, seconds)
        connection = await asyncssh.connect(
            host.hostname,
            host.port,
            sock=sock,
            tunnel=tunnel or (),
            options=None,
            config=None,
            **said,
        )
        connection.abort()
    except BaseException as error:
        early = failure.is_early_close(error, spoke=looker.spoke)
        if proxy is not None and early and not looker.proved:
            await proxy.close()
            raise failure.proxy_ended(host, proxy.said) from None
        raise
    finally:
        if sock is not None:
            sock.close()
        if proxy is not None:
            await proxy.close()
