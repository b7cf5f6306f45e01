"""What lines of known_hosts say of a key that a host shows. Pure but for the clock."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from asyncssh import KeyImportError
from asyncssh.public_key import decode_ssh_certificate

from holdfast_daemon.hosts.known_hosts import AUTHORITY, REVOKED, KnownKey
from holdfast_daemon.hosts.public_key import fingerprint, key_type

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from holdfast_daemon.hosts.public_key import Certificate

# What ssh takes signatures of authorities with, unless told otherwise.
_SIGNATURES = frozenset(
    {
        "ssh-ed25519",
        "sk-ssh-ed25519@openssh.com",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ecdsa-sha2-nistp256@openssh.com",
        "rsa-sha2-256",
        "rsa-sha2-512",
    }
)
_NAMED = 5
_NAME = re.compile(r"[A-Za-z0-9._:*?@\[\]-]{1,253}")


class Status(StrEnum):
    """What is known about a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about a key that a host shows.

    Attributes:
        blob: The key, without the certificate that may have been around it.
        known: The lines that decided.
        authority: Whoever signed the key decided, not the key itself.
        why: What was wrong with its certificate, or where it is revoked.
        address: The host's address, where CheckHostIP has it decide, or be learnt.
    """

    status: Status
    blob: bytes
    known: tuple[KnownKey, ...] = ()
    authority: bool = False
    why: str = ""
    address: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA256:… of the key."""
        return fingerprint(self.blob)

    @property
    def key_type(self) -> str:
        """Its type, as `ssh-ed25519`."""
        return key_type(self.blob)


def judge(lines: Iterable[KnownKey], blob: bytes, why: str = "") -> Verdict:
    """Say what `lines` about a host know of a plain key."""
    plain = [key for key in lines if not key.marker]
    same = tuple(key for key in plain if key.blob == blob)
    if same:
        return Verdict(Status.KNOWN, blob, same)
    # Known types are asked for first, so another type means the known key is gone.
    kind = key_type(blob)
    others = tuple(k for k in plain if k.key_type == kind) or tuple(plain)
    status = Status.CHANGED if others else Status.UNKNOWN
    return Verdict(status, blob, others, why=why)


def revoking(lines: Iterable[KnownKey], blobs: Collection[bytes]) -> list[KnownKey]:
    """Return the lines that revoke one of `blobs`."""
    return [key for key in lines if key.marker == REVOKED and key.blob in blobs]


def authorities(lines: Iterable[KnownKey]) -> list[KnownKey]:
    """Return the lines that trust whoever signs for a host."""
    return [key for key in lines if key.marker == AUTHORITY]


def judge_certificate(
    lines: Iterable[KnownKey],
    blob: bytes,
    told: Certificate,
    name: str,
    signatures: Collection[str],
) -> Verdict:
    """Say what `lines` about a host know of its certificate; never that it changed.

    Args:
        lines: What is said about the host.
        blob: The certificate.
        told: The same, taken apart.
        name: The host as certificates name it.
        signatures: Algorithms that authorities may use; empty: the usual ones.
    """
    signer = fingerprint(told.authority)
    same = tuple(key for key in authorities(lines) if key.blob == told.authority)
    if not same:
        why = f"the authority {signer} that signed it is not known for {name}"
        return Verdict(Status.UNKNOWN, told.key, why=why)
    fault = _fault(blob, told, name, signatures or _SIGNATURES)
    if fault:
        why = f"the known authority {signer} signed it, but {fault}"
        return Verdict(Status.UNKNOWN, told.key, same, authority=True, why=why)
    return Verdict(Status.KNOWN, told.key, same, authority=True)


def _fault(
    blob: bytes, told: Certificate, name: str, signatures: Collection[str]
) -> str:
    """Return what is wrong with a certificate of the right authority."""
    now = time.time()
    fault = ""
    if not told.for_host:
        fault = "it is a user's certificate"
    elif told.options:
        fault = "it has conditions that are not understood"
    elif now < told.begins:
        fault = f"it is not valid before {_day(told.begins)}"
    elif now >= told.ends:
        fault = f"it expired at {_day(told.ends)}"
    elif told.principals and name not in told.principals:
        more = ", …" if len(told.principals) > _NAMED else ""
        others = ", ".join(map(_plain, told.principals[:_NAMED]))
        fault = f"it is for {others}{more}, not {name}"
    elif told.signed_with not in signatures:
        fault = f"it is signed with {told.signed_with}, which is not allowed"
    else:
        try:
            decode_ssh_certificate(blob)
        except KeyImportError as error:
            fault = f"it can't be taken: {error}"
    return fault


def _plain(name: str) -> str:
    """Return a name as it may be told; anybody can put anything into a certificate."""
    return name if _NAME.fullmatch(name) else "a name that no host has"


def _day(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, OSError, ValueError):
        return "a day that never comes"
