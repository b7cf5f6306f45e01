"""What the blob of a public key, or of a certificate, says of itself. Pure.

RFC 4253 6.6, RFC 5656 3.1, RFC 8709 4 and OpenSSH's PROTOCOL.certkeys.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

CERTIFICATE = "-cert-v01@openssh.com"
_OF_OPENSSH = "@openssh.com"
# How many fields make the key itself, behind its type.
_FIELDS = {
    "ssh-rsa": 2,
    "ssh-dss": 4,
    "ssh-ed25519": 1,
    "sk-ssh-ed25519@openssh.com": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
}
# Types by the short names ssh-keygen shows, and their bits where the type tells them.
_SHORT = {
    "ssh-rsa": ("RSA", 0),
    "ssh-dss": ("DSA", 0),
    "ssh-ed25519": ("ED25519", 256),
    "sk-ssh-ed25519@openssh.com": ("ED25519-SK", 256),
    "ecdsa-sha2-nistp256": ("ECDSA", 256),
    "ecdsa-sha2-nistp384": ("ECDSA", 384),
    "ecdsa-sha2-nistp521": ("ECDSA", 521),
    "sk-ecdsa-sha2-nistp256@openssh.com": ("ECDSA-SK", 256),
}
_HOST = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate, taken apart; whether it is signed as it says is not known here.

    Attributes:
        key: The blob of the key that it is for.
        for_host: It is a host's, and no user's.
        options: Conditions that must be understood.
        authority: The blob of the key that signed it.
        signed_with: The algorithm of that signature.
    """

    key: bytes
    for_host: bool
    principals: tuple[str, ...]
    begins: int
    ends: int
    options: bool
    authority: bytes
    signed_with: str


def key_type(blob: bytes) -> str:
    """Return the type a blob names first."""
    return _Reader(blob).text().decode("ascii", "replace")


def is_certificate(blob: bytes) -> bool:
    """Whether it is a certificate, and no plain key."""
    return key_type(blob).endswith(CERTIFICATE)


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return "SHA256:" + digest.decode("ascii").rstrip("=")


def md5(blob: bytes) -> str:
    """Return the fingerprint as OpenSSH printed it until 2015, and devices still do."""
    digest = hashlib.md5(blob, usedforsecurity=False).digest()
    return "MD5:" + digest.hex(":")


def short_type(blob: bytes) -> str:
    """Return the type as ssh-keygen shows it: ED25519."""
    kind = key_type(blob)
    return _SHORT.get(kind, (kind, 0))[0]


def bits(blob: bytes) -> int:
    """Return the size of a plain key; 0 where it can't be told."""
    reader = _Reader(blob)
    kind = reader.text().decode("ascii", "replace")
    if kind == "ssh-rsa":
        reader.text()  # the exponent
    elif kind != "ssh-dss":
        return _SHORT.get(kind, ("", 0))[1]
    return int.from_bytes(reader.text(), "big").bit_length()


def certificate(blob: bytes) -> Certificate | None:
    """Take a certificate apart; None: it is none, or broken."""
    reader = _Reader(blob)
    kind = reader.text().decode("ascii", "replace")
    plain = kind.removesuffix(CERTIFICATE)
    names = (plain, plain + _OF_OPENSSH)
    plain = next((name for name in names if name in _FIELDS), "")
    if not kind.endswith(CERTIFICATE) or not plain:
        return None
    reader.text()  # the nonce
    fields = [reader.text() for _ in range(_FIELDS[plain])]
    reader.number(8)  # its serial number
    for_host = reader.number(4) == _HOST
    reader.text()  # its name
    names_in = _Reader(reader.text())
    principals: list[str] = []
    while names_in.left:
        principals.append(names_in.text().decode("utf-8", "replace"))
    begins, ends = reader.number(8), reader.number(8)
    options = reader.text()
    for _ in range(2):  # extensions, and nothing yet
        reader.text()
    authority = reader.text()
    signature = reader.text()
    if reader.short or reader.left or names_in.short:
        return None
    return Certificate(
        key=string(plain.encode()) + b"".join(map(string, fields)),
        for_host=for_host,
        principals=tuple(principals),
        begins=begins,
        ends=ends,
        options=bool(options),
        authority=authority,
        signed_with=_Reader(signature).text().decode("ascii", "replace"),
    )


def string(data: bytes) -> bytes:
    """Return `data` as a blob holds it."""
    return len(data).to_bytes(4, "big") + data


class _Reader:
    """Takes a blob apart; what is missing reads as empty, and is noted.

    Attributes:
        short: Something was missing.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self.short = False

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def text(self) -> bytes:
        return self._take(self.number(4))

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _take(self, size: int) -> bytes:
        if size > self.left:
            self.short = True
            size = self.left
        self._at += size
        return self._data[self._at - size : self._at]
