"""Private keys in files: read, locked, unlocked, or what is wrong with them."""

from __future__ import annotations

import base64
import binascii
import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.public_key import decode_ssh_public_key

from holdfast_daemon.connection import need
from holdfast_daemon.connection.key import PublicHalf
from holdfast_daemon.errors import NeedsError, Reason

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHCertificate, SSHKey, SSHKeyPair

    from holdfast_daemon.hosts.host import Host

_OPENSSH = b"-----BEGIN OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\0"
# Callers name such files: a device or a pipe must not hold us up, nor fill us.
_LARGEST = 1024 * 1024
KEY_CONTENT = "the key given as text"


@dataclass(slots=True)
class KeyFile:
    """A key file as found: the key, or at least its public half.

    Attributes:
        beside: The certificate that lies beside it, where it counts.
    """

    path: str
    pair: SSHKeyPair | None = None
    public: bytes | None = None
    half: PublicHalf | None = None
    beside: SSHCertificate | None = None
    trouble: NeedsError | None = None

    @property
    def locked(self) -> bool:
        """Only its passphrase is missing."""
        return self.trouble is not None and (
            self.trouble.reason is Reason.PASSPHRASE_NEEDED
        )


def unlock(path: str, phrase: str, like: SSHKeyPair | None) -> SSHKeyPair | None:
    """Return the key of a file, the one shown as `like`; None: `phrase` is not it.

    Raises:
        ValueError: The file can't be read any more.
    """
    try:
        data = read(path)
    except OSError as error:
        raise ValueError(str(error)) from error
    try:
        pair = _pair(data, phrase)
    except (asyncssh.KeyImportError, ValueError):
        return None
    fits = like is None or like.key_public_data == pair.key_public_data
    return pair if fits else None


def read(path: str | Path) -> bytes:
    """Return the content of a file of the size that keys have. Blocks briefly.

    Raises:
        OSError: It can't be read, is no file, or too large.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(_LARGEST + 1)
    if len(data) > _LARGEST:
        raise OSError(errno.EFBIG, "it is too large for a key")
    return data


def read_certificate(path: str) -> SSHCertificate:
    """Return the certificate in a file.

    Raises:
        OSError: It can't be read.
        KeyImportError: It is none.
    """
    return asyncssh.import_certificate(read(path))


def read_public(path: str | Path) -> SSHKey | None:
    """Return the public key in a file; None: there is none."""
    try:
        return asyncssh.import_public_key(read(path))
    except (OSError, asyncssh.KeyImportError, ValueError):
        return None


def _pair(data: bytes, phrase: str | None) -> SSHKeyPair:
    return asyncssh.load_keypairs(asyncssh.import_private_key(data, phrase))[-1]


def _beside(path: str) -> SSHCertificate | None:
    """Return the certificate that OpenSSH would find beside a key."""
    try:
        return read_certificate(f"{path}-cert.pub")
    except (OSError, asyncssh.KeyImportError):
        return None


def read_certificates(host: Host, notes: list[str]) -> list[SSHCertificate]:
    """Read the files of CertificateFile; tell those that can't be."""
    found: list[SSHCertificate] = []
    for path in host.certificate_files:
        try:
            found.append(read_certificate(path))
        except (OSError, asyncssh.KeyImportError) as error:
            notes.append(f"the certificate {path} can't be read: {error}")
    return found


def read_all(host: Host, phrase: str | None) -> list[KeyFile]:
    """Read the key files of `host` that are there, or were asked for by name."""
    files: list[KeyFile] = []
    for path in host.identity_files:
        there = Path(path).exists() or Path(f"{path}.pub").exists()
        if host.explicit_identity or there:
            file = _read(path, phrase, host)
            files.append(file)
    return files


def _read(path: str, phrase: str | None, host: Host) -> KeyFile:
    file = KeyFile(path)
    try:
        state = Path(path).stat()
        data = read(path)
    except OSError as error:
        file.public = _data(read_public(f"{path}.pub"))
        file.trouble = unreadable(path, error.strerror or str(error))
        return file
    if b"PRIVATE KEY" not in data:
        # as with ssh, a public key may stand for one in the agent
        file.public = _data(read_public(path))
        file.trouble = unreadable(path, "it is no private key, and no agent holds it")
        return file
    if state.st_uid == os.geteuid() and state.st_mode & 0o077:
        file.trouble = unreadable(path, f"it is open to others; chmod 600 {path}")
        return file
    public = _embedded(data) or read_public(f"{path}.pub")
    file.public = _data(public)
    file.half = PublicHalf(public) if public else None
    # as with ssh, CertificateFile stands in place of those beside the keys
    file.beside = None if host.certificate_files else _beside(path)
    try:
        file.pair = _pair(data, phrase)
    except (asyncssh.KeyImportError, OSError, ValueError) as error:
        file.trouble = _trouble(host.name, path, error, phrase)
    else:
        file.public = file.pair.key_public_data
    return file


def import_key(name: str, data: bytes, phrase: str | None) -> Sequence[SSHKeyPair]:
    """Return the key in a text that was given for the host `name`.

    Raises:
        NeedsError: It is encrypted, or no key.
    """
    try:
        key = asyncssh.import_private_key(data, phrase)
    except (asyncssh.KeyImportError, ValueError) as error:
        # from None: the text itself may be quoted nowhere
        raise _trouble(name, KEY_CONTENT, error, phrase) from None
    return asyncssh.load_keypairs(key)


def _data(key: SSHKey | None) -> bytes | None:
    return key.public_data if key else None


def _embedded(data: bytes) -> SSHKey | None:
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
    try:
        return decode_ssh_public_key(fields[3])
    except asyncssh.KeyImportError:
        return None


def _trouble(name: str, path: str, error: Exception, phrase: str | None) -> NeedsError:
    text = str(error).lower()
    if "bcrypt" in text and phrase is not None:
        return unreadable(path, "the package bcrypt, which decrypts it, is missing")
    encrypted = "passphrase" in text or "decrypt" in text
    if isinstance(error, asyncssh.KeyEncryptionError) or encrypted:
        return _locked(name, path, wrong=phrase is not None)
    return unreadable(path, "it is no private key, or a broken one")


def _locked(name: str, path: str, *, wrong: bool) -> NeedsError:
    what = (
        "the passphrase at hand does not fit" if wrong else "no passphrase is at hand"
    )
    return NeedsError(
        Reason.PASSPHRASE_NEEDED,
        f"the private key {path} is encrypted and {what}",
        hint=f"{need.ask_a_person(name)}, load it into ssh-agent (`ssh-add`), or name"
        " what holds the passphrase by ssh_key_passphrase_env or"
        " ssh_key_passphrase_from",
        metadata={"path": path, "name": name, "asks": f"passphrase of {path}"},
    )


def unreadable(path: str, why: str) -> NeedsError:
    """Return the error for a key file that is of no use."""
    return NeedsError(
        Reason.KEY_UNREADABLE,
        f"the private key {path} can't be used: {why}",
        hint="check the path and its mode, or name another key",
        metadata={"path": path},
    )
