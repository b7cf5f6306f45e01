"""The terms a host is met on: algorithms, keepalive, what the library must not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import (
    decode_ssh_public_key,
    get_certificate_algs,
    get_public_key_algs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.visitor import Visitor
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.trust import Trust
    from holdfast_daemon.limits import Limits

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


def options(
    host: Host,
    limits: Limits,
    trust: Trust,
    visitor: Visitor,
    host_keys: Sequence[str],
) -> dict[str, object]:
    """Return what the library's `connect` is to be called with for `host`.

    Raises:
        ValueError: Of an algorithm list that was set, none is supported here.
    """
    lists = host.algorithms
    said: dict[str, object] = {
        "client_factory": lambda: visitor,
        "username": host.user,
        # No line is passed on: every verdict is ours, by the visitor. Only
        # certificates need the revoked ones here, for the key inside them.
        "known_hosts": ([], [], [decode_ssh_public_key(k.blob) for k in trust.revoked])
        if trust.has_authorities
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
        "encryption_algs": _usable(lists.ciphers or _CIPHERS, get_encryption_algs()),
    }
    known = {
        "kex_algs": (lists.key_exchange, get_kex_algs()),
        "mac_algs": (lists.macs, get_mac_algs()),
    }
    for name, (wanted, available) in known.items():
        if wanted:
            said[name] = _usable(wanted, available)
    if lists.signatures:
        available = get_public_key_algs()
        said["signature_algs"] = _usable(lists.signatures, available)
    return said


def offered_host_keys(host: Host, trust: Trust) -> list[list[str]]:
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
