"""What there is to log in with, looked at and not used: agents, keys, certificates.

For `holdfast doctor`; a login collects its credentials itself.
"""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import asyncssh

from holdfast_daemon.connection import agent, keyfile
from holdfast_daemon.hosts.public_key import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncssh import SSHCertificate, SSHKeyPair

    from holdfast_daemon.hosts.host import Host

_OWN = "SSH_AUTH_SOCK"
_BY_CLIENT = "the client's SSH_AUTH_SOCK"
_BY_DAEMON = "the daemon's SSH_AUTH_SOCK"
_BY_CONFIG = "IdentityAgent of the ssh configuration"
_USUAL = "one of the usual places"
_OTHERS = 0o077
# What the format writes for a certificate that never ends.
_FOREVER = 2**64 - 1


class HeldKey(NamedTuple):
    """One key an agent holds."""

    kind: str
    fingerprint: str
    comment: str

    @property
    def told(self) -> str:
        """It in words."""
        return " ".join(filter(None, self))


@dataclass(frozen=True, slots=True)
class AgentSeen:
    """One agent that a login would ask.

    Attributes:
        path: Its socket; empty: several were looked for, and none has keys.
        source: Who named it.
        trouble: Why it gives no keys; empty: it does.
    """

    path: str
    source: str
    keys: tuple[HeldKey, ...] = ()
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class CertificateSeen:
    """One certificate; times in seconds since 1970, `until` None: for ever."""

    path: str
    since: float = 0.0
    until: float | None = None
    principals: tuple[str, ...] = ()
    trouble: str = ""

    def fault(self, now: float) -> str:
        """Return why it is of no use now, or nothing."""
        if self.trouble:
            return self.trouble
        if now < self.since:
            return f"it is valid only from {_date(self.since)} on"
        if self.until is not None and now >= self.until:
            return f"it expired on {_date(self.until)}"
        return ""

    @property
    def span(self) -> str:
        """Until when it is valid, in words."""
        return f"until {_date(self.until)}" if self.until is not None else "for ever"


@dataclass(frozen=True, slots=True)
class KeySeen:
    """One private key file as it lies there.

    Attributes:
        mode: Its permission bits.
        ours: It belongs to the daemon's user.
        trouble: Why it can't be used, whatever its mode; empty: it can.
        public: Its public half's fingerprint, as far as that is known.
        beside: Fingerprint of the `.pub` file; empty: none, or unreadable.
    """

    path: str
    there: bool = True
    mode: int = 0o600
    ours: bool = True
    trouble: str = ""
    encrypted: bool = False
    kind: str = ""
    public: str = ""
    beside: str = ""
    certificate: CertificateSeen | None = None

    @property
    def open_to_others(self) -> bool:
        """Others may read it: no ssh takes such a key."""
        return self.ours and bool(self.mode & _OTHERS)


async def agents(
    host: Host, environ: Mapping[str, str], seconds: float
) -> Sequence[AgentSeen]:
    """Ask every agent that a login to `host` might ask; those named come first."""
    if host.identity_agent == "none":
        return ()
    named: dict[str, str] = {}
    if host.identity_agent:
        named[host.identity_agent] = _BY_CONFIG
    else:
        for path, source in (
            (host.auth_sock, _BY_CLIENT),
            (environ.get(_OWN, ""), _BY_DAEMON),
        ):
            if path:
                named[path] = f"{named[path]} and {source}" if path in named else source
    found = [
        await _ask(replace(host, identity_agent=path), environ, seconds, source)
        for path, source in named.items()
    ]
    if host.identity_agent or any(seen.keys for seen in found):
        return found
    rest = {name: value for name, value in environ.items() if name != _OWN}
    usual = await _ask(replace(host, auth_sock=""), rest, seconds, _USUAL)
    return [*found, usual]


async def _ask(
    host: Host, environ: Mapping[str, str], seconds: float, source: str
) -> AgentSeen:
    asked = await agent.find(host, environ, seconds)
    if asked.client is not None:
        asked.client.close()
        await asked.client.wait_closed()
    if asked.keys:
        return AgentSeen(asked.path, source, tuple(map(_held, asked.keys)))
    told = "; ".join(asked.notes)
    path = host.identity_agent
    return AgentSeen(path, source, (), told.removeprefix(f"the agent {path} "))


def _held(pair: SSHKeyPair) -> HeldKey:
    return HeldKey(
        pair.get_algorithm(),
        fingerprint(pair.key_public_data),
        pair.get_comment(errors="replace") or "",
    )


def key_file(path: str) -> KeySeen:
    """Look at one private key. Blocks."""
    try:
        state = Path(path).stat()
        data = keyfile.read(path)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        return KeySeen(
            path,
            there=not missing,
            trouble=error.strerror or str(error),
            beside=_beside(path),
        )
    seen = KeySeen(
        path,
        mode=stat.S_IMODE(state.st_mode),
        ours=state.st_uid == os.geteuid(),
        beside=_beside(path),
        certificate=_certificate_beside(path),
    )
    try:
        key = asyncssh.import_private_key(data)
    except (asyncssh.KeyImportError, ValueError) as error:
        return _unread(seen, data, error)
    return replace(seen, kind=key.get_algorithm(), public=fingerprint(key.public_data))


def _unread(seen: KeySeen, data: bytes, error: Exception) -> KeySeen:
    """Tell a locked key from what is none."""
    text = str(error).lower()
    if isinstance(error, asyncssh.KeyEncryptionError) or "passphrase" in text:
        return replace(seen, encrypted=True, public=seen.beside)
    if b"PRIVATE KEY" in data:
        return replace(seen, trouble="it is a broken private key, or of a kind unknown")
    public = keyfile.read_public(seen.path)
    if public is not None:
        told = "it is a public key, which stands for one in the agent"
        data = fingerprint(public.public_data).encode()
        return replace(seen, mode=0o600, trouble=told, public=data.decode())
    return replace(seen, trouble="it is no private key")


def certificate(path: str) -> CertificateSeen:
    """Look at one certificate. Blocks."""
    try:
        found = keyfile.read_certificate(path)
    except OSError as error:
        return CertificateSeen(path, trouble=error.strerror or str(error))
    except asyncssh.KeyImportError:
        return CertificateSeen(path, trouble="it is no certificate")
    return _seen(path, found)


def _certificate_beside(path: str) -> CertificateSeen | None:
    beside = f"{path}-cert.pub"
    return certificate(beside) if Path(beside).exists() else None


def _seen(path: str, found: SSHCertificate) -> CertificateSeen:
    # The library checks these itself and has no public names for the times.
    since = cast("float", getattr(found, "_valid_after", 0.0))
    until = cast("float", getattr(found, "_valid_before", _FOREVER))
    return CertificateSeen(
        path,
        since=float(since),
        until=None if until >= _FOREVER else float(until),
        principals=tuple(cast("Sequence[str]", getattr(found, "principals", ()))),
    )


def _beside(path: str) -> str:
    public = keyfile.read_public(f"{path}.pub")
    return fingerprint(public.public_data) if public else ""


def _date(seconds: float) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
    except (OverflowError, OSError, ValueError):
        return f"{seconds:.3g} seconds after 1970"  # as far off as it may be written
