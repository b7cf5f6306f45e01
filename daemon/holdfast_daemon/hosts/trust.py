"""Whether a host's key is the right one, by OpenSSH's known_hosts files.

Gives verdicts on key blobs and learns new keys; knows no connection and no credential.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.errors import DaemonError, DeniedError, Reason
from holdfast_daemon.hosts.target import DEFAULT_PORT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from holdfast_daemon.hosts.host import Host

_AUTHORITY = "@cert-authority"
_REVOKED = "@revoked"
_HASH_MAGIC = "|1|"


class Status(StrEnum):
    """What known_hosts says about a key."""

    KNOWN = "known"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


class KnownKey(NamedTuple):
    """One line that speaks about a host."""

    blob: bytes
    marker: str
    file: str
    line: int

    @property
    def fingerprint(self) -> str:
        """SHA256:… of the key."""
        return fingerprint(self.blob)

    @property
    def place(self) -> str:
        """`file:line`, or the file alone."""
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known about a presented key; `known` are the lines that decided."""

    status: Status
    blob: bytes
    known: tuple[KnownKey, ...] = ()
    authority: bool = False

    @property
    def fingerprint(self) -> str:
        """SHA256:… of the presented key."""
        return fingerprint(self.blob)

    @property
    def key_type(self) -> str:
        """Its type, as `ssh-ed25519`."""
        return key_type(self.blob)


def fingerprint(blob: bytes) -> str:
    """Return a key's fingerprint as OpenSSH prints it."""
    digest = base64.b64encode(hashlib.sha256(blob).digest())
    return "SHA256:" + digest.decode("ascii").rstrip("=")


def key_type(blob: bytes) -> str:
    """Return the type a key blob names first."""
    length = int.from_bytes(blob[:4], "big")
    return blob[4 : 4 + length].decode("ascii", "replace")


class KnownHosts:
    """The lines of some known_hosts files."""

    def __init__(self, lines: Iterable[tuple[str, KnownKey]] = ()) -> None:
        self._lines = list(lines)

    @classmethod
    def read(cls, files: Sequence[str]) -> KnownHosts:
        """Read `files`; one that is missing or unreadable says nothing, as with ssh."""
        lines: list[tuple[str, KnownKey]] = []
        for file in files:
            try:
                data = Path(file).read_bytes()
            except OSError:
                continue
            lines += _parse(file, data.decode("utf-8", "replace"))
        return cls(lines)

    def about(self, name: str) -> list[KnownKey]:
        """Return what is said about `name`: `[host]:port` where the port is not 22."""
        return [key for patterns, key in self._lines if _matches(patterns, name)]


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything known about one host's keys, and the rule for new ones."""

    host: Host
    named: tuple[KnownKey, ...]
    without_port: tuple[KnownKey, ...]
    guards: tuple[KnownKey, ...]

    @classmethod
    def load(cls, host: Host) -> Trust:
        """Read the files of `host`. Blocks; call it in a thread."""
        name, plain = names(host)
        found = KnownHosts.read([*host.user_known_hosts, *host.global_known_hosts])
        guard = KnownHosts.read(host.guard_known_hosts)
        return cls(
            host,
            tuple(found.about(name)),
            tuple(found.about(plain)) if plain else (),
            tuple(guard.about(name)),
        )

    @property
    def has_authorities(self) -> bool:
        """A line trusts certificates for this host."""
        return any(key.marker == _AUTHORITY for key in self._all)

    @property
    def key_types(self) -> list[str]:
        """Types of the keys known for this host, the ones to ask for first."""
        types: dict[str, None] = {}
        for key in (*self.named, *self.guards, *self.without_port):
            if not key.marker:
                types[key_type(key.blob)] = None
        return list(types)

    @property
    def revoked(self) -> list[KnownKey]:
        """Keys this host must never show."""
        return [key for key in (*self._all, *self.guards) if key.marker == _REVOKED]

    def judge(self, blob: bytes) -> Verdict:
        """Say what known_hosts knows of a presented plain key."""
        revoked = tuple(key for key in self.revoked if key.blob == blob)
        if revoked:
            return Verdict(Status.REVOKED, blob, revoked)
        if self.host.pinned_fingerprint:
            return self._judge_pinned(blob)
        guard = _judge(self.guards, blob)
        if guard.status is Status.CHANGED:
            return guard
        verdict = _judge(self.named, blob)
        if verdict.status is Status.UNKNOWN and guard.status is Status.KNOWN:
            return guard
        if verdict.status is Status.UNKNOWN:
            # as ssh: a line for the bare name may vouch for a port, but not accuse it
            bare = _judge(self.without_port, blob)
            if bare.status is Status.KNOWN:
                return bare
        return verdict

    def judge_authority(self, blob: bytes) -> Verdict:
        """Say what known_hosts knows of the authority that signed a certificate."""
        revoked = tuple(key for key in self.revoked if key.blob == blob)
        if revoked:
            return Verdict(Status.REVOKED, blob, revoked, authority=True)
        authorities = [key for key in self._all if key.marker == _AUTHORITY]
        same = tuple(key for key in authorities if key.blob == blob)
        if same:
            return Verdict(Status.KNOWN, blob, same, authority=True)
        status = Status.CHANGED if authorities else Status.UNKNOWN
        return Verdict(status, blob, tuple(authorities), authority=True)

    def accepts(self, verdict: Verdict) -> bool:
        """Whether to go on with a host that showed this key."""
        if verdict.status is Status.UNKNOWN:
            return not verdict.authority and self.host.host_key_checking != "yes"
        return verdict.status is Status.KNOWN

    def learns(self, verdict: Verdict) -> bool:
        """Whether the key is to be written down."""
        return (
            verdict.status is Status.UNKNOWN
            and self.host.host_key_checking == "accept-new"
            and bool(self.host.user_known_hosts)
        )

    def _judge_pinned(self, blob: bytes) -> Verdict:
        if hmac.compare_digest(fingerprint(blob), self.host.pinned_fingerprint):
            return Verdict(Status.KNOWN, blob)
        return Verdict(Status.CHANGED, blob)

    @property
    def _all(self) -> tuple[KnownKey, ...]:
        return (*self.named, *self.without_port)


def names(host: Host) -> tuple[str, str]:
    """Return the name of `host` in known_hosts, and the bare one that may vouch too."""
    if host.host_key_alias:
        return host.host_key_alias.lower(), ""
    name = host.hostname.lower()
    if host.port == DEFAULT_PORT:
        return name, ""
    return f"[{name}]:{host.port}", name


def learn(host: Host, blob: bytes) -> str:
    """Append a new key to the first known_hosts file and return its path. Blocks.

    One write to a file opened for appending: nobody beside us meets half a line.
    """
    path = Path(host.user_known_hosts[0])
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    name = names(host)[0]
    if host.hash_known_hosts:
        name = hashed(name)
    data = base64.b64encode(blob).decode("ascii")
    line = f"{name} {key_type(blob)} {data}\n".encode()
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            line = b"\n" + line
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return str(path)


def hashed(name: str, salt: bytes | None = None) -> str:
    """Return `name` as HashKnownHosts writes it."""
    salt = secrets.token_bytes(20) if salt is None else salt
    digest = hmac.new(salt, name.encode(), hashlib.sha1).digest()
    encoded = (base64.b64encode(part).decode("ascii") for part in (salt, digest))
    return _HASH_MAGIC + "|".join(encoded)


def refusal(host: Host, verdict: Verdict) -> DaemonError:
    """Return the error for a key that is not taken; nothing was sent to the host."""
    what = "certificate authority" if verdict.authority else "key"
    metadata = {
        "fingerprint": verdict.fingerprint,
        "key_type": verdict.key_type,
        "host": host.shown,
    }
    presented = f"{verdict.key_type} {verdict.fingerprint}"
    if verdict.known:
        metadata["known_fingerprint"] = ", ".join(k.fingerprint for k in verdict.known)
        metadata["known_in"] = ", ".join(k.place for k in verdict.known)
    if verdict.status is Status.REVOKED:
        return DeniedError(
            Reason.HOST_KEY_REVOKED,
            f"the {what} {host.shown} shows ({presented}) is marked @revoked in"
            f" {metadata['known_in']}; no credential was sent",
            hint="do not connect; a person must find out why this key was revoked",
            metadata=metadata,
        )
    if verdict.status is Status.CHANGED:
        return _changed(host, verdict, what, presented, metadata)
    port = f"-p {host.port} " if host.port != DEFAULT_PORT else ""
    spot = f"{port}{host.user}@{host.hostname}" if host.show == "all" else host.name
    return DeniedError(
        Reason.HOST_KEY_UNKNOWN,
        f"the {what} of {host.shown} is not known: it shows {presented};"
        " no credential was sent",
        hint="a person compares the fingerprint with the host's own and takes it with"
        f" `ssh {spot}` in a terminal, or allows"
        " host_key_checking accept-new for hosts seen for the first time",
        metadata=metadata,
    )


def _changed(
    host: Host, verdict: Verdict, what: str, presented: str, metadata: dict[str, str]
) -> DaemonError:
    if not verdict.known:
        pinned = host.pinned_fingerprint
        return DeniedError(
            Reason.HOST_KEY_CHANGED,
            f"{host.shown} shows the {what} {presented}, but {pinned} is pinned"
            " for it; no credential was sent",
            hint="a person checks the host and corrects host_key in the configuration",
            metadata={**metadata, "known_fingerprint": pinned},
        )
    known = ", ".join(
        f"{key_type(key.blob)} {key.fingerprint} ({key.place})" for key in verdict.known
    )
    files = " and ".join(
        f"`ssh-keygen -R '{names(host)[0]}' -f {file}`"
        for file in dict.fromkeys(key.file for key in verdict.known)
    )
    return DeniedError(
        Reason.HOST_KEY_CHANGED,
        f"the {what} of {host.shown} has CHANGED: it shows {presented}, known is"
        f" {known}; no credential was sent",
        hint="the host was reinstalled, or somebody stands in between: a person finds"
        f" out which; if the new key is right, they run {files} and connect again."
        " No argument of a call gets past this",
        metadata=metadata,
    )


def _judge(lines: Sequence[KnownKey], blob: bytes) -> Verdict:
    plain = [key for key in lines if not key.marker]
    same = tuple(key for key in plain if key.blob == blob)
    if same:
        return Verdict(Status.KNOWN, blob, same)
    # Known types are asked for first, so another type means the known key is gone.
    kind = key_type(blob)
    others = tuple(k for k in plain if key_type(k.blob) == kind) or tuple(plain)
    return Verdict(Status.CHANGED if others else Status.UNKNOWN, blob, others)


def _parse(file: str, text: str) -> list[tuple[str, KnownKey]]:
    lines: list[tuple[str, KnownKey]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        marker = words.pop(0) if words[0].startswith("@") else ""
        if marker not in ("", _AUTHORITY, _REVOKED) or len(words) < len("hks"):
            continue
        try:
            blob = base64.b64decode(words[2], validate=True)
        except (binascii.Error, ValueError):
            continue
        if key_type(blob) == words[1]:
            lines.append((words[0], KnownKey(blob, marker, file, number)))
    return lines


def _matches(patterns: str, name: str) -> bool:
    if patterns.startswith(_HASH_MAGIC):
        return _matches_hash(patterns, name)
    found = False
    for item in patterns.split(","):
        negated = item.startswith("!")
        pattern = item[1:] if negated else item
        if _glob(pattern.lower()).fullmatch(name):
            if negated:
                return False
            found = True
    return found


def _matches_hash(pattern: str, name: str) -> bool:
    parts = pattern[len(_HASH_MAGIC) :].split("|")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in parts)
    except (binascii.Error, ValueError):
        return False
    return hmac.compare_digest(
        hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest
    )


def _glob(pattern: str) -> re.Pattern[str]:
    # only * and ? are special to ssh; brackets are part of [host]:port
    parts = {"*": ".*", "?": "."}
    return re.compile("".join(parts.get(c) or re.escape(c) for c in pattern))
