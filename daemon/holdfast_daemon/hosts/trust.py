"""Whether a host's key is the right one, by everything the person's ssh goes by.

Gives verdicts on key blobs; knows no connection and no credential, and writes nothing.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from holdfast_daemon.errors import LinkError, Reason
from holdfast_daemon.hosts import known_command, public_key, revoked
from holdfast_daemon.hosts.known_hosts import KnownHosts, KnownKey
from holdfast_daemon.hosts.public_key import fingerprint
from holdfast_daemon.hosts.target import DEFAULT_PORT
from holdfast_daemon.hosts.verdict import (
    Status,
    Verdict,
    authorities,
    judge,
    judge_certificate,
    revoking,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.public_key import Certificate

_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Trust:
    """Everything known about one host's keys, and the rule for new ones.

    Attributes:
        named: Lines about the host.
        without_port: Lines about its bare name, where its port is not 22.
        guards: Lines of the person's own files, where a call named another.
        ordering: Lines that only say which kinds of keys to ask for first.
        seconds: How long a KnownHostsCommand may take.
    """

    host: Host
    named: tuple[KnownKey, ...]
    without_port: tuple[KnownKey, ...]
    guards: tuple[KnownKey, ...]
    ordering: tuple[KnownKey, ...] = ()
    seconds: float = _SECONDS

    @classmethod
    def load(cls, host: Host, seconds: float = _SECONDS) -> Trust:
        """Read the files of `host`. Blocks; call it in a thread.

        Raises:
            DaemonError: Its KnownHostsCommand fails, or a file is far too large.
        """
        name, plain = names(host)
        found = KnownHosts.read(files(host))
        guard = KnownHosts.read(host.guard_known_hosts)
        ordering: tuple[KnownKey, ...] = ()
        if host.known_hosts_command:
            ordering = tuple(known_command.told(host, name, "ORDER", seconds))
        return cls(
            host,
            tuple(found.about(name)),
            tuple(found.about(plain)) if plain else (),
            tuple(guard.about(name)),
            ordering,
            seconds,
        )

    @property
    def has_authorities(self) -> bool:
        """A line trusts certificates for this host."""
        return bool(authorities((*self.named, *self.without_port, *self.ordering)))

    @property
    def key_types(self) -> list[str]:
        """Types of the keys known for this host, the ones to ask for first."""
        lines = (*self.named, *self.ordering, *self.guards, *self.without_port)
        return list(dict.fromkeys(key.key_type for key in lines if not key.marker))

    @property
    def blocks(self) -> bool:
        """Whether a verdict reads files or runs programs."""
        host = self.host
        return bool(
            host.revoked_host_keys or host.known_hosts_command or host.check_host_ip
        )

    def judge(self, blob: bytes, address: str = "") -> Verdict:
        """Say what is known of the key, or the certificate, that the host shows.

        May block, see `blocks`.

        Args:
            blob: As the host sent it.
            address: Where it was met; empty: behind a proxy or a jump host.

        Raises:
            DaemonError: What must be asked can't be, so nothing can be trusted.
        """
        told = self._certificate(blob)
        key = told.key if told else blob
        own = (*self.named, *self._commanded("HOSTNAME", names(self.host)[0], blob))
        if refused := self._revoked(own, blob, told):
            return refused
        if self.host.pinned_fingerprint:
            return self._judge_pinned(key)
        local = is_loopback(address)
        # Who gives it another name asks for just that host behind a port of this one.
        unnamed = not self.host.host_key_alias
        if local and unnamed and self.host.no_host_authentication_for_localhost:
            return Verdict(Status.KNOWN, key)
        verdict = self._guarded(self._judge_named(own, blob, key, told))
        if local or not address or not self.host.check_host_ip or verdict.authority:
            return verdict
        return self._with_address(verdict, blob, address)

    def accepts(self, verdict: Verdict) -> bool:
        """Whether to go on with a host that showed this key."""
        if verdict.status is Status.UNKNOWN:
            return self.host.host_key_checking != "yes"
        return verdict.status is Status.KNOWN

    def learns(self, verdict: Verdict) -> list[str]:
        """Return the names under which the key is to be written down."""
        address = [verdict.address] if verdict.address else []
        if not own_files(self.host):
            return []
        if verdict.status is Status.KNOWN:
            return address
        new = verdict.status is Status.UNKNOWN
        if not new or self.host.host_key_checking != "accept-new":
            return []
        return [names(self.host)[0], *address]

    def _certificate(self, blob: bytes) -> Certificate | None:
        told = public_key.certificate(blob)
        if told is None and public_key.is_certificate(blob):
            raise LinkError(
                Reason.PROTOCOL_ERROR,
                f"the certificate {self.host.shown} shows can't be read;"
                " no credential was sent",
                metadata={"host": self.host.shown},
            )
        return told

    def _commanded(
        self, invocation: known_command.Invocation, name: str, blob: bytes
    ) -> tuple[KnownKey, ...]:
        if not self.host.known_hosts_command:
            return ()
        return tuple(
            known_command.told(self.host, name, invocation, self.seconds, blob)
        )

    def _revoked(
        self, own: tuple[KnownKey, ...], blob: bytes, told: Certificate | None
    ) -> Verdict | None:
        """Return the verdict on a key that is revoked, whatever else is known of it."""
        if path := revoked.revoked_by(self.host, blob):
            key = told.key if told else blob
            return Verdict(Status.REVOKED, key, why=f"RevokedHostKeys ({path})")
        lines = (*own, *self.without_port, *self.guards)
        for key in (told.key, told.authority) if told else (blob,):
            if found := revoking(lines, {key}):
                signer = told is not None and key == told.authority
                return Verdict(Status.REVOKED, key, tuple(found), authority=signer)
        return None

    def _guarded(self, verdict: Verdict) -> Verdict:
        """Have the person's own files decide beside the one that a call named."""
        guard = judge(self.guards, verdict.blob, verdict.why)
        known = guard.status is Status.KNOWN and verdict.status is Status.UNKNOWN
        return guard if known or guard.status is Status.CHANGED else verdict

    def _judge_pinned(self, key: bytes) -> Verdict:
        if hmac.compare_digest(fingerprint(key), self.host.pinned_fingerprint):
            return Verdict(Status.KNOWN, key)
        return Verdict(Status.CHANGED, key)

    def _judge_named(
        self,
        own: tuple[KnownKey, ...],
        blob: bytes,
        key: bytes,
        told: Certificate | None,
    ) -> Verdict:
        """Judge by the host's name, as ssh does: certificate, key, bare name."""
        why = ""
        for lines in (own, self.without_port) if told else ():
            assert told is not None  # noqa: S101 - the loop is empty without one
            verdict = judge_certificate(
                lines,
                blob,
                told,
                self.host.host_key_alias.lower() or self.host.hostname.lower(),
                self.host.algorithms.authorities,
            )
            if verdict.status is Status.KNOWN:
                return verdict
            why = verdict.why if verdict.authority else why or verdict.why
        verdict = judge(own, key, why)
        if verdict.status is Status.UNKNOWN:
            # as ssh: a line for the bare name may vouch for a port, but not accuse it
            bare = judge(self.without_port, key)
            if bare.status is Status.KNOWN:
                return bare
        return verdict

    def _with_address(self, verdict: Verdict, blob: bytes, address: str) -> Verdict:
        """Have the address decide too, as CheckHostIP wants it."""
        name = with_port(address, self.host.port)
        if verdict.status is Status.CHANGED or name == names(self.host)[0]:
            return verdict
        found = KnownHosts.read(files(self.host)).about(name)
        found += self._commanded("ADDRESS", name, blob)
        if refused := revoking(found, {verdict.blob}):
            return Verdict(Status.REVOKED, verdict.blob, tuple(refused), address=name)
        there = judge(found, verdict.blob)
        if there.status is Status.CHANGED:
            return replace(there, address=name, why=f"CheckHostIP asks of {name} too")
        new = there.status is Status.UNKNOWN
        return replace(verdict, address=name if new else "")


def files(host: Host) -> list[str]:
    """Return the known_hosts files of a host, the person's own first."""
    return [*host.user_known_hosts, *host.global_known_hosts]


def own_files(host: Host) -> Sequence[str]:
    """Return the files that a login may write to; never one that a call named."""
    own = host.own_known_hosts
    return host.user_known_hosts if own is None else own


def names(host: Host) -> tuple[str, str]:
    """Return the name of `host` in known_hosts, and the bare one that may vouch too."""
    if host.host_key_alias:
        return host.host_key_alias.lower(), ""
    name = host.hostname.lower()
    if host.port == DEFAULT_PORT:
        return name, ""
    return with_port(name, host.port), name


def with_port(name: str, port: int) -> str:
    """Return a name or an address as known_hosts writes it."""
    return name if port == DEFAULT_PORT else f"[{name}]:{port}"


def is_loopback(address: str) -> bool:
    """Whether an address is of this machine only: it says nothing of a host."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return False


def is_allowed(host: Host, key: bytes) -> bool:
    """Whether HostKeyAlgorithms allows a plain key."""
    listed, kind = host.algorithms.host_keys, public_key.key_type(key)
    if not listed:
        return True
    return kind in listed or (
        kind == "ssh-rsa" and any(name.startswith("rsa-sha2-") for name in listed)
    )
