"""The format of known_hosts files: lines, patterns, hashed names.

What a line means for a host is decided elsewhere.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.hosts import key_list
from holdfast_daemon.hosts.public_key import fingerprint, key_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

AUTHORITY = "@cert-authority"
REVOKED = "@revoked"
_HASH_MAGIC = "|1|"
_LINE = re.compile(
    r"[ \t]*(?P<markers>(?:@\S*[ \t]+)*)(?P<patterns>\S+)[ \t]+(?P<type>\S+)[ \t]+"
    r"(?P<key>\S+)"
)
_SALT_BYTES = 20


class KnownKey(NamedTuple):
    """What one line says, without whom it speaks about."""

    blob: bytes
    marker: str
    file: str
    line: int
    patterns: str = ""

    @property
    def fingerprint(self) -> str:
        """SHA256:… of the key."""
        return fingerprint(self.blob)

    @property
    def key_type(self) -> str:
        """Its type, as `ssh-ed25519`."""
        return key_type(self.blob)

    @property
    def place(self) -> str:
        """`file:line`, or the file alone."""
        return f"{self.file}:{self.line}" if self.line else self.file


class KnownHosts:
    """The lines of some known_hosts files, in order."""

    def __init__(self, keys: Iterable[KnownKey] = ()) -> None:
        self.keys = list(keys)

    @classmethod
    def read(cls, files: Sequence[str]) -> KnownHosts:
        """Read `files`; one that is missing or unreadable says nothing, as with ssh.

        Raises:
            DaemonError: One is far too large.
        """
        keys: list[KnownKey] = []
        for file in files:
            try:
                data = key_list.read(file)
            except OSError:
                continue
            keys += parse(file, data.decode("utf-8", "surrogateescape"))
        return cls(keys)

    def about(self, name: str) -> list[KnownKey]:
        """Return what is said about `name`: `[host]:port` where the port is not 22."""
        return [key for key in self.keys if matches(key.patterns, name)]


def parse(file: str, text: str) -> Iterator[KnownKey]:
    """Yield the lines of `text` that say something; ssh passes over the others too."""
    for number, line in enumerate(text.split("\n"), 1):
        key = parse_line(line, file, number)
        if key is not None:
            yield key


def parse_line(line: str, file: str = "", number: int = 0) -> KnownKey | None:
    """Return what one line says; None: nothing."""
    found = _LINE.match(line.rstrip("\r"))
    if found is None or line.lstrip(" \t").startswith("#"):
        return None
    marker = found["markers"].strip()
    if marker not in ("", AUTHORITY, REVOKED):
        return None
    blob = decode(found["key"])
    if blob is None or key_type(blob) != found["type"]:
        return None
    return KnownKey(blob, marker, file, number, found["patterns"])


def decode(text: str) -> bytes | None:
    """Return the blob that `text` encodes; None: it is none."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def written(name: str, blob: bytes) -> str:
    """Return a new line, without its end."""
    data = base64.b64encode(blob).decode("ascii")
    return f"{name} {key_type(blob)} {data}"


def matches(patterns: str, name: str) -> bool:
    """Whether the first word of a line stands for `name`."""
    if patterns.startswith(_HASH_MAGIC):
        return _matches_hash(patterns, name)
    found = False
    for item in patterns.split(","):
        negated = item.startswith("!")
        if _stands_for(item.removeprefix("!").lower(), name):
            if negated:
                return False
            found = True
    return found


def is_hashed(patterns: str) -> bool:
    """Whether nobody can read which name is meant."""
    return patterns.startswith(_HASH_MAGIC)


def hashed(name: str, salt: bytes | None = None) -> str:
    """Return `name` as HashKnownHosts writes it."""
    salt = secrets.token_bytes(_SALT_BYTES) if salt is None else salt
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    encoded = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return _HASH_MAGIC + "|".join(encoded)


def _matches_hash(pattern: str, name: str) -> bool:
    salt, _, digest = pattern.removeprefix(_HASH_MAGIC).partition("|")
    key, wanted = decode(salt), decode(digest)
    if key is None or wanted is None:
        return False
    return hmac.compare_digest(
        hmac.new(key, name.encode(), hashlib.sha1).digest(), wanted
    )


def _stands_for(pattern: str, name: str) -> bool:
    # most are plain names, thousands of them, of which no expression is to be made
    wild = "*" in pattern or "?" in pattern
    return bool(_glob(pattern).fullmatch(name)) if wild else pattern == name


@lru_cache(maxsize=1000)
def _glob(pattern: str) -> re.Pattern[str]:
    # only * and ? are special to ssh; brackets are part of [host]:port
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c) or re.escape(c) for c in pattern))
