"""What a host is offered to log in with, in order, and what was left out and why.

The order is OpenSSH's: certificates, agent keys named by IdentityFile, the other agent
keys, the remaining files. A password or a key given by the caller stands alone.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import copy
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
from asyncssh import SSHKeyPair

from holdfast_daemon.errors import NeedsError, Reason
from holdfast_daemon.hosts.trust import fingerprint

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from asyncssh import SSHAgentClient, SSHCertificate

    from holdfast_daemon.hosts.host import Host

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
_KEY_CONTENT = "the key given as text"


@dataclass(slots=True)
class Offer:
    """One key to offer, and how to call it."""

    pair: SSHKeyPair
    label: str


@dataclass(slots=True)
class Credentials:
    """All that may be offered to one host, for one login."""

    offers: list[Offer] = field(default_factory=list[Offer])
    notes: list[str] = field(default_factory=list[str])
    agent: SSHAgentClient | None = None

    async def close(self) -> None:
        """Let go of the agent."""
        agent, self.agent = self.agent, None
        if agent is not None:
            agent.close()
            await agent.wait_closed()


@dataclass(slots=True)
class _File:
    """A key file as found: its pairs, or at least its public half."""

    path: str
    pairs: Sequence[SSHKeyPair] = ()
    public: bytes | None = None
    trouble: NeedsError | None = None


async def gather(
    host: Host, environ: Mapping[str, str], agent_seconds: float
) -> Credentials:
    """Collect what `host` is to be offered.

    Raises:
        NeedsError: A key that was asked for by name is encrypted or can't be read.
    """
    found = Credentials()
    if host.password is not None or (host.methods and "publickey" not in host.methods):
        return found
    phrase = environ.get(host.passphrase_env) if host.passphrase_env else None
    if host.passphrase_env and phrase is None:
        found.notes.append(
            f"${host.passphrase_env} is not set, which holds a passphrase"
        )
    if host.private_key is not None:
        text = host.private_key.reveal().strip() + "\n"
        pairs = await asyncio.to_thread(_import, text.encode(), phrase)
        found.offers = [Offer(pair, _KEY_CONTENT) for pair in pairs]
        return found
    files = await asyncio.to_thread(_read_all, host, phrase)
    certificates = await asyncio.to_thread(_read_certificates, host, found.notes)
    keys = await _agent_keys(host, environ, agent_seconds, found)
    if host.explicit_identity:
        _only(found, files, keys, certificates)
    else:
        _all(found, files, keys, certificates, only=host.identities_only)
    return found


def agent_path(host: Host, environ: Mapping[str, str]) -> str:
    """Return the agent to ask: IdentityAgent, the caller's own, the daemon's."""
    if host.identity_agent == "none":
        return ""
    return host.identity_agent or host.auth_sock or environ.get("SSH_AUTH_SOCK", "")


async def _agent_keys(
    host: Host, environ: Mapping[str, str], seconds: float, found: Credentials
) -> list[SSHKeyPair]:
    path = agent_path(host, environ)
    if not path:
        return []
    trouble = await asyncio.to_thread(_agent_trouble, path)
    if trouble:
        found.notes.append(f"the agent {path} was not asked: {trouble}")
        return []
    agent = asyncssh.SSHAgentClient(path)
    try:
        async with asyncio.timeout(seconds):
            keys = list(await agent.get_keys())
    except (TimeoutError, OSError, ValueError) as error:
        agent.close()
        reason = "no answer" if isinstance(error, TimeoutError) else str(error)
        found.notes.append(f"the agent {path} did not answer: {reason}")
        return []
    found.agent = agent
    return keys


def _agent_trouble(path: str) -> str:
    try:
        state = Path(path).stat()
    except OSError as error:
        return error.strerror or str(error)
    if not stat.S_ISSOCK(state.st_mode):
        return "it is no socket"
    if state.st_uid != os.geteuid():
        return "it belongs to another user"
    return ""


def _only(
    found: Credentials,
    files: Sequence[_File],
    keys: Sequence[SSHKeyPair],
    certificates: Sequence[SSHCertificate],
) -> None:
    """Offer just the named files; the agent may hold what is encrypted on disk."""
    for file in files:
        if file.pairs:
            found.offers += [Offer(pair, file.path) for pair in file.pairs]
            continue
        held = [key for key in keys if key.public_data == file.public]
        if not held:
            raise file.trouble or _unreadable(file.path, "there is no key in it")
        found.offers += _with_certificates(held, file.path, certificates)


def _all(
    found: Credentials,
    files: Sequence[_File],
    keys: Sequence[SSHKeyPair],
    certificates: Sequence[SSHCertificate],
    *,
    only: bool,
) -> None:
    named: list[SSHKeyPair] = []
    offers: list[Offer] = []
    for file in files:
        held = [key for key in keys if key.public_data == file.public]
        named += held
        offers += _with_certificates(held, f"{file.path}, from the agent", certificates)
    if not only:
        rest = [key for key in keys if key not in named]
        offers += _with_certificates(rest, "from the agent", certificates)
    for file in files:
        offers += [Offer(pair, file.path) for pair in file.pairs]
        if file.trouble and not any(key.public_data == file.public for key in named):
            found.notes.append(file.trouble.message)
    seen: set[bytes] = set()
    for offer in sorted(offers, key=lambda item: not item.pair.has_cert):
        if offer.pair.public_data not in seen:
            seen.add(offer.pair.public_data)
            found.offers.append(offer)


def _with_certificates(
    keys: Sequence[SSHKeyPair], label: str, certificates: Sequence[SSHCertificate]
) -> list[Offer]:
    offers: list[Offer] = []
    for key in keys:
        for certificate in certificates:
            if certificate.key.public_data == key.public_data:
                pair = copy.copy(key)
                pair.set_certificate(certificate)
                offers.append(Offer(pair, f"{label}, certificate"))
        offers.append(Offer(key, label))
    return offers


def describe(offer: Offer) -> str:
    """Return how an offered key is called in messages."""
    return f"publickey {fingerprint(offer.pair.key_public_data)} ({offer.label})"


def _read_certificates(host: Host, notes: list[str]) -> list[SSHCertificate]:
    found: list[SSHCertificate] = []
    for path in host.certificate_files:
        try:
            found.append(asyncssh.read_certificate(path))
        except (OSError, asyncssh.KeyImportError) as error:
            notes.append(f"the certificate {path} can't be read: {error}")
    return found


def _read_all(host: Host, phrase: str | None) -> list[_File]:
    files: list[_File] = []
    for path in host.identity_files:
        there = Path(path).exists() or Path(f"{path}.pub").exists()
        if host.explicit_identity or there:
            file = _read(path, phrase, host.certificate_files)
            files.append(file)
    return files


def _read(path: str, phrase: str | None, certificates: Sequence[str]) -> _File:
    file = _File(path)
    try:
        state = Path(path).stat()
        data = Path(path).read_bytes()
    except OSError as error:
        file.public = _public(Path(f"{path}.pub"))
        file.trouble = _unreadable(path, error.strerror or str(error))
        return file
    if b"PRIVATE KEY" not in data:
        # as with ssh, a public key may stand for one in the agent
        file.public = _public(Path(path))
        file.trouble = _unreadable(path, "it is no private key, and no agent holds it")
        return file
    if state.st_uid == os.geteuid() and state.st_mode & 0o077:
        file.trouble = _unreadable(path, f"it is open to others; chmod 600 {path}")
        return file
    file.public = _embedded(data) or _public(Path(f"{path}.pub"))
    try:
        usable = [name for name in certificates if Path(name).exists()]
        file.pairs = asyncssh.load_keypairs([path], phrase, usable)
    except (asyncssh.KeyImportError, OSError, ValueError) as error:
        file.trouble = _trouble(path, error, phrase)
    else:
        file.public = file.pairs[-1].key_public_data if file.pairs else file.public
    return file


def _import(data: bytes, phrase: str | None) -> Sequence[SSHKeyPair]:
    try:
        key = asyncssh.import_private_key(data, phrase)
    except (asyncssh.KeyImportError, ValueError) as error:
        # from None: the text itself may be quoted nowhere
        raise _trouble(_KEY_CONTENT, error, phrase) from None
    return asyncssh.load_keypairs(key)


def _public(path: Path) -> bytes | None:
    try:
        return asyncssh.read_public_key(path).public_data
    except (OSError, asyncssh.KeyImportError):
        return None


def _embedded(data: bytes) -> bytes | None:
    """Return the public half that OpenSSH's format keeps in the clear."""
    _, marker, rest = data.partition(_OPENSSH)
    if not marker:
        return None
    try:
        body = base64.b64decode(rest.partition(b"-----END")[0])
    except (binascii.Error, ValueError):
        return None
    if not body.startswith(_MAGIC):
        return None
    fields: list[bytes] = []
    at = len(_MAGIC)
    for index in range(4):
        if index == 3:  # noqa: PLR2004  cipher, KDF, its options, then a count of keys
            at += 4
        size = int.from_bytes(body[at : at + 4], "big")
        fields.append(body[at + 4 : at + 4 + size])
        at += 4 + size
    return fields[3] or None


def _trouble(path: str, error: Exception, phrase: str | None) -> NeedsError:
    text = str(error).lower()
    if "bcrypt" in text and phrase is not None:
        return _unreadable(path, "the package bcrypt, which decrypts it, is missing")
    encrypted = "passphrase" in text or "decrypt" in text
    if isinstance(error, asyncssh.KeyEncryptionError) or encrypted:
        return _locked(path, wrong=phrase is not None)
    return _unreadable(path, "it is no private key, or a broken one")


def _locked(path: str, *, wrong: bool) -> NeedsError:
    what = (
        "the passphrase at hand does not fit" if wrong else "no passphrase is at hand"
    )
    return NeedsError(
        Reason.PASSPHRASE_NEEDED,
        f"the private key {path} is encrypted and {what}",
        hint="load it into ssh-agent (`ssh-add`), or name a variable that holds the"
        " passphrase by ssh_key_passphrase_env",
        metadata={"path": path},
    )


def _unreadable(path: str, why: str) -> NeedsError:
    return NeedsError(
        Reason.KEY_UNREADABLE,
        f"the private key {path} can't be used: {why}",
        hint="check the path and its mode, or name another key",
        metadata={"path": path},
    )
