"""The terms a host is met on: algorithms, keepalive, what the library must not do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asyncssh.encryption import get_encryption_algs
from asyncssh.kex import get_kex_algs
from asyncssh.mac import get_mac_algs
from asyncssh.public_key import (
    get_certificate_algs,
    get_public_key_algs,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHClient

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
# OpenSSH's own order, of what is done here.
_LOGINS = ("publickey", "keyboard-interactive", "password")
_CERTIFICATES = tuple(
    name.removesuffix("@openssh.com") + "-cert-v01@openssh.com" for name in _HOST_KEYS
)


def options(
    host: Host,
    limits: Limits,
    visitor: SSHClient,
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
        # No line is passed on: every verdict is ours, by the visitor.
        "known_hosts": ([], [], []),
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
        "preferred_auth": list(host.methods or _LOGINS),
        "encoding": None,
        "send_env": None,
        "env": None,
        "command": None,
        "request_pty": False,
        "connect_timeout": None,
        "login_timeout": 0,
        "tcp_keepalive": host.wire.tcp_keepalive,
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
    if host.wire.rekey_bytes:
        said["rekey_bytes"] = host.wire.rekey_bytes
    if host.wire.rekey_seconds:
        said["rekey_seconds"] = host.wire.rekey_seconds
    if lists.signatures:
        available = get_public_key_algs()
        said["signature_algs"] = _usable(lists.signatures, available)
    return said


def offered_host_keys(host: Host, trust: Trust) -> list[list[str]]:
    """Return the lists of host key algorithms to ask for, one per attempt.

    Known types come first, so that a server with several keys shows the one we know.
    With a pinned fingerprint each type is asked for alone until one fits.

    Raises:
        ValueError: Nothing that the configuration allows can be used.
    """
    listed = host.algorithms.host_keys
    plain = [name for name in listed or _HOST_KEYS if name in _HOST_KEYS]
    if host.pinned_fingerprint:
        alone = [[name] for name in plain if name not in _RSA]
        rsa = [name for name in plain if name in _RSA]
        return [plain, *alone, *([rsa] if rsa else [])]
    known: set[str] = set()
    for kind in trust.key_types:
        known.update(_RSA if kind == "ssh-rsa" else (kind,))
    first = [name for name in plain if name in known]
    ordered = list(dict.fromkeys([*first, *plain]))
    kinds = [ordered] if ordered else []
    if trust.has_authorities:
        usable = {name.decode("ascii") for name in get_certificate_algs()}
        wanted = [n for n in listed or _CERTIFICATES if n in _CERTIFICATES]
        certificates = [name for name in wanted if name in usable]
        if certificates:
            kinds.insert(0, [*certificates, *ordered])
    if not kinds:
        raise ValueError(f"none of {', '.join(listed)} (HostKeyAlgorithms) can be used")
    return kinds


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
