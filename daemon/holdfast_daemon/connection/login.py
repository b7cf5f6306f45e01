"""One login: reach the host, judge its key, then and only then offer credentials."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import (
    decode_ssh_public_key,
    get_certificate_algs,
    get_public_key_algs,
)

from holdfast_daemon.connection import credential, failure
from holdfast_daemon.connection.proxy import Proxy
from holdfast_daemon.connection.visitor import Visitor
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.trust import Status, Trust, Verdict, learn, refusal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHClientConnection, SSHKey

    from holdfast_daemon.connection.credential import Credentials
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

# Fastest first: AES-GCM moves about twice what chacha20 and AES-CTR do.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes128-ctr",
    "aes192-ctr",
    "aes256-ctr",
)
_HOST_KEYS = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "rsa-sha2-512",
    "rsa-sha2-256",
)
_RSA = ("rsa-sha2-512", "rsa-sha2-256")
_CERTIFICATES = tuple(
    name.removesuffix("@openssh.com") + "-cert-v01@openssh.com" for name in _HOST_KEYS
)
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
        kinds = _offered_host_keys(self._host, self._trust)
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
                **self._options(visitor, host_keys),
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

    def _options(self, visitor: Visitor, host_keys: Sequence[str]) -> dict[str, object]:
        host, limits, lists = self._host, self._limits, self._host.algorithms
        options: dict[str, object] = {
            "client_factory": lambda: visitor,
            "username": host.user,
            # No line is passed on: every verdict is ours, by the visitor. Only
            # certificates need the revoked ones here, for the key inside them.
            "known_hosts": ([], [], [self._key(k.blob) for k in self._trust.revoked])
            if self._trust.has_authorities
            else ([], [], []),
            "host_key_alias": host.host_key_alias or None,
            "server_host_key_algs": list(host_keys),
            # Keys come one by one from the visitor, never from the library's defaults.
            "client_keys": None,
            "agent_path": None,
            "agent_forwarding": False,
            "x11_forwarding": False,
            "pkcs11_provider": None,
            "x509_trusted_certs": None,
            "gss_host": None,
            "gss_kex": False,
            "gss_auth": False,
            "host_based_auth": False,
            "preferred_auth": [],
            "encoding": None,
            "send_env": None,
            "env": None,
            "command": None,
            "request_pty": False,
            "connect_timeout": None,
            "login_timeout": 0,
            "keepalive_interval": host.keepalive_seconds or limits.keepalive_seconds,
            "keepalive_count_max": host.keepalive_misses or limits.keepalive_misses,
            "compression_algs": ["zlib@openssh.com", "none"]
            if host.compression
            else ["none"],
            "encryption_algs": _usable(
                lists.ciphers or _CIPHERS, get_encryption_algs()
            ),
        }
        known = {
            "kex_algs": (lists.key_exchange, get_kex_algs()),
            "mac_algs": (lists.macs, get_mac_algs()),
        }
        for name, (wanted, available) in known.items():
            if wanted:
                options[name] = _usable(wanted, available)
        if lists.signatures:
            available = get_public_key_algs()
            options["signature_algs"] = _usable(lists.signatures, available)
        return options

    @staticmethod
    def _key(blob: bytes) -> SSHKey:
        return decode_ssh_public_key(blob)

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


def _offered_host_keys(host: Host, trust: Trust) -> list[list[str]]:
    """Return the lists of host key algorithms to ask for, one per attempt.

    Known types come first, so that a server with several keys shows the one we know.
    With a pinned fingerprint each type is asked for alone until one fits.
    """
    allowed = [name for name in host.algorithms.host_keys if "-cert-" not in name]
    plain = [name for name in allowed or _HOST_KEYS if name in _HOST_KEYS]
    if host.pinned_fingerprint:
        alone = [[name] for name in plain if name not in _RSA]
        rsa = [name for name in plain if name in _RSA]
        return [plain, *alone, *([rsa] if rsa else [])]
    first: list[str] = []
    for kind in trust.key_types:
        names = _RSA if kind == "ssh-rsa" else (kind,)
        first += [name for name in names if name in plain]
    ordered = list(dict.fromkeys([*first, *plain]))
    if trust.has_authorities:
        wanted = [n for n in host.algorithms.host_keys if n in _CERTIFICATES]
        usable = get_certificate_algs()
        certificates = _usable(wanted or _CERTIFICATES, usable)
        return [[*certificates, *ordered], ordered]
    return [ordered]


def _usable(wanted: Sequence[str], available: Sequence[bytes]) -> list[str]:
    """Return those of `wanted` that this side can do.

    Raises:
        ValueError: None of them.
    """
    can = {name.decode("ascii") for name in available}
    found = [name for name in wanted if name in can]
    if not found:
        raise ValueError(f"none of {', '.join(wanted)} is supported")
    return found
