"""What a key blob says of its strength: the size of an RSA key, who signed it and how.

RFC 4253 6.6 and OpenSSH's PROTOCOL.certkeys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, DeniedError, Reason

if TYPE_CHECKING:
    from holdfast_daemon.hosts.host import Host

_CERTIFICATE = b"-cert-v01@openssh.com"
# How many fields make the key itself, behind its type.
_FIELDS = {
    b"ssh-rsa": 2,
    b"ssh-dss": 4,
    b"ssh-ed25519": 1,
    b"sk-ssh-ed25519": 2,
    b"ecdsa-sha2-nistp256": 2,
    b"ecdsa-sha2-nistp384": 2,
    b"ecdsa-sha2-nistp521": 2,
    b"sk-ecdsa-sha2-nistp256": 3,
}
_RSA = b"ssh-rsa"
_SERIAL_AND_KIND = 8 + 4
_VALID_FROM_AND_TO = 8 + 8


def rsa_bits(blob: bytes) -> int | None:
    """Return the size of an RSA key or certificate; None for every other kind."""
    reader = _Reader(blob)
    kind = reader.text()
    if kind.removesuffix(_CERTIFICATE) != _RSA:
        return None
    if kind.endswith(_CERTIFICATE):
        reader.text()  # the nonce
    reader.text()  # the exponent
    return int.from_bytes(reader.text(), "big").bit_length()


def signed_with(blob: bytes) -> str:
    """Return the algorithm a certificate is signed with; empty: it is none."""
    reader = _Reader(blob)
    kind = reader.text()
    fields = _FIELDS.get(kind.removesuffix(_CERTIFICATE).removesuffix(b"@openssh.com"))
    if not kind.endswith(_CERTIFICATE) or fields is None:
        return ""
    for _ in range(1 + fields):  # the nonce, and the key
        reader.text()
    reader.skip(_SERIAL_AND_KIND)
    for _ in range(2):  # its name, and whom it is for
        reader.text()
    reader.skip(_VALID_FROM_AND_TO)
    for _ in range(4):  # options, extensions, nothing yet, and the authority
        reader.text()
    return _Reader(reader.text()).text().decode("ascii", "replace")


def refusal(host: Host, blob: bytes) -> DaemonError | None:
    """Return why a host's key is too weak for its configuration, before any verdict."""
    bits, least = rsa_bits(blob), host.required_rsa_size
    if bits is not None and bits < least:
        return _denied(
            host,
            f"the RSA key {host.shown} shows has {bits} bits; RequiredRSASize in ssh"
            f" config asks for {least}",
        )
    wanted, used = host.algorithms.authorities, signed_with(blob)
    if used and wanted and used not in wanted:
        return _denied(
            host,
            f"the certificate {host.shown} shows is signed with {used};"
            f" CASignatureAlgorithms in ssh config allows {', '.join(wanted)}",
        )
    return None


def is_short(host: Host, blob: bytes) -> bool:
    """Whether a key of our own is one that RequiredRSASize forbids to use."""
    return (rsa_bits(blob) or host.required_rsa_size) < host.required_rsa_size


def _denied(host: Host, what: str) -> DaemonError:
    return DeniedError(
        Reason.UNSUPPORTED,
        f"{what}; no credential was sent",
        hint="a person gives the host a stronger key, or changes ssh config",
        metadata={"host": host.shown},
    )


class _Reader:
    """Takes a blob apart; what is missing reads as empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def text(self) -> bytes:
        size = int.from_bytes(self._data[self._at : self._at + 4], "big")
        start = self._at + 4
        self._at = start + size
        return self._data[start : self._at]

    def skip(self, size: int) -> None:
        self._at += size
