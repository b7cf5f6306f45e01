"""One login: reach the host, judge its key, then and only then offer credentials."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection import credential, failure, terms
from holdfast_daemon.connection.proxy import Proxy
from holdfast_daemon.connection.visitor import Visitor
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.trust import Status, Trust, Verdict, learn, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHClientConnection

    from holdfast_daemon.connection.credential import Credentials
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

_FAMILIES = {
    "any": socket.AF_UNSPEC,
    "inet": socket.AF_INET,
    "inet6": socket.AF_INET6,
}


class Login:
    """What a finished login hands over."""

    def __init__(
        self, connection: SSHClientConnection, visitor: Visitor, proxy: Proxy | None
    ) -> None:
        self.connection = connection
        self.visitor = visitor
        self.proxy = proxy


async def log_in(
    host: Host, limits: Limits, tunnel: SSHClientConnection | None = None
) -> Login:
    """Log in to `host`, over `tunnel` where it is behind a jump host.

    Raises:
        DaemonError: Typed, with what was wrong and the next step; nothing ran.
    """
    trust = await asyncio.to_thread(Trust.load, host)
    credentials = await credential.gather(host, os.environ, limits.agent_seconds)
    seconds = host.connect_timeout or limits.connect_timeout_seconds
    attempt = _Attempt(host, limits, trust, credentials, tunnel)
    clock = asyncio.timeout(seconds)
    try:
        async with clock:
            return await attempt.run()
    except TimeoutError:
        if not clock.expired():
            raise
        raise failure.too_slow(host, seconds, attempt.waiting_for) from None
    finally:
        await credentials.close()
        await attempt.write_down()


class _Attempt:
    """The steps of one login."""

    def __init__(
        self,
        host: Host,
        limits: Limits,
        trust: Trust,
        credentials: Credentials,
        tunnel: SSHClientConnection | None,
    ) -> None:
        self._host = host
        self._limits = limits
        self._trust = trust
        self._credentials = credentials
        self._tunnel = tunnel
        self._visitor: Visitor | None = None

    @property
    def waiting_for(self) -> str:
        return self._visitor.waiting_for if self._visitor else "reaching it"

    async def run(self) -> Login:
        """Connect; where another kind of host key may fit better, once more."""
        kinds = terms.offered_host_keys(self._host, self._trust)
        first: DaemonError | None = None
        while True:
            kind = kinds.pop(0)
            visitor = Visitor(self._host, self._trust, self._credentials)
            self._visitor = visitor
            try:
                return await self._connect(visitor, kind)
            except asyncssh.HostKeyNotVerifiable as error:
                trouble = self._untrusted(visitor.verdict, str(error.reason))
                if not kinds or not self._may_differ(visitor.verdict):
                    unknown = trouble.reason is Reason.HOST_KEY_UNKNOWN
                    raise (first if first and unknown else trouble) from None
                first = first or trouble
            except (OSError, asyncssh.Error, DaemonError) as error:
                # A server without this kind of key hangs up in the key exchange.
                early = visitor.spoke and visitor.verdict is None
                if not (early and kinds):
                    raise (early and first) or self._failed(error, visitor) from None
            except ValueError as error:
                raise failure.unsupported(self._host, str(error)) from None

    async def write_down(self) -> None:
        """Learn a new key of a host that has proved to hold it."""
        visitor = self._visitor
        if visitor is None or visitor.verdict is None or visitor.doing != "the login":
            return
        if not self._trust.learns(visitor.verdict):
            return
        blob = visitor.verdict.blob
        try:
            await asyncio.to_thread(learn, self._host, blob)
        except OSError as error:
            _log.warning("a new host key was not written down: %s", error)

    async def _connect(self, visitor: Visitor, host_keys: Sequence[str]) -> Login:
        host = self._host
        proxy: Proxy | None = None
        sock: socket.socket | None = None
        try:
            if host.proxy_command and self._tunnel is None:
                proxy, sock = await Proxy.start(host.proxy_command)
            connection = await asyncssh.connect(
                host.hostname,
                host.port,
                sock=sock,
                tunnel=self._tunnel or (),
                family=_FAMILIES[host.address_family],
                local_addr=(host.bind_address, 0) if host.bind_address else None,
                options=None,
                config=None,
                **terms.options(host, self._limits, self._trust, visitor, host_keys),
            )
        except BaseException as error:
            if sock is not None:
                sock.close()
            if proxy is not None:
                await proxy.close()
                if failure.is_early_close(error, spoke=visitor.spoke):
                    raise failure.proxy_ended(host, proxy.said) from None
            raise
        return Login(connection, visitor, proxy)

    def _may_differ(self, verdict: Verdict | None) -> bool:
        """Whether the host may hold another key that is the right one."""
        if verdict is None or verdict.status is Status.REVOKED:
            return False
        return verdict.authority or bool(self._host.pinned_fingerprint)

    def _untrusted(self, verdict: Verdict | None, why: str) -> DaemonError:
        trust, host = self._trust, self._host
        if verdict is not None and not trust.accepts(verdict):
            return refusal(host, verdict)
        if "revoked" in why and trust.revoked:
            key = trust.revoked[0]
            return refusal(host, Verdict(Status.REVOKED, key.blob, (key,)))
        if verdict is not None:
            return failure.bad_certificate(host, why, verdict.fingerprint)
        return failure.unreachable(
            host, asyncssh.ProtocolError(why), spoke=True, hop=host.proxy_jump
        )

    def _failed(self, error: BaseException, visitor: Visitor) -> DaemonError:
        host = self._host
        if failure.is_auth_refusal(error):
            notes = list(self._credentials.notes)
            if host.password is not None and any(
                "more than" in t for t in visitor.tried
            ):
                notes.append(
                    "the host asks for more than a password: a person must log in"
                )
            why = "" if isinstance(error, asyncssh.PermissionDenied) else str(error)
            return failure.auth_refused(
                host,
                methods=list(visitor.methods),
                tried=visitor.tried,
                notes=notes,
                why=why,
            )
        return failure.unreachable(
            host, error, spoke=visitor.spoke, hop=host.proxy_jump
        )
