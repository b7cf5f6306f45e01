"""What a host is offered to log in with, in order, and what was left out and why.

The order is OpenSSH's: certificates of CertificateFile, the agent's keys that are also
in files, its others, the remaining files, each before the certificate beside it, which
counts only without any CertificateFile. A password or a key given by the caller stands
alone. A key file whose passphrase is not at hand is offered by its public half: whether
it is worth asking for shows then.
"""

from __future__ import annotations

import asyncio
import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast_daemon.connection import agent as agents
from holdfast_daemon.connection import keyfile, strength
from holdfast_daemon.errors import DaemonError, NeedsError, Reason
from holdfast_daemon.hosts import vault
from holdfast_daemon.hosts.public_key import fingerprint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from asyncssh import SSHAgentClient, SSHCertificate, SSHKeyPair

    from holdfast_daemon.connection.keyfile import KeyFile
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Secret


@dataclass(slots=True)
class Offer:
    """One key to offer, and how to call it.

    Attributes:
        pair: None where not even the public half is known before it is unlocked.
        label: Where it comes from.
        locked: Why it can't sign yet; its `path` says which file a passphrase opens.
    """

    pair: SSHKeyPair | None
    label: str
    locked: NeedsError | None = None

    @property
    def touch(self) -> bool:
        """It lies in a security key, which may wait for a touch."""
        return self.pair is not None and self.pair.key_algorithm.startswith(b"sk-")


@dataclass(slots=True)
class Credentials:
    """All that may be offered to one host, for one login.

    Attributes:
        offers: Keys, in order.
        password: What the configuration names, looked up.
        secrets: All that was looked up.
        notes: What was left out, and why.
        agents: Which agents were asked.
        agent_path: The one whose keys are used.
    """

    offers: list[Offer] = field(default_factory=list[Offer])
    password: Secret | None = None
    secrets: list[Secret] = field(default_factory=list["Secret"])
    notes: list[str] = field(default_factory=list[str])
    agents: list[str] = field(default_factory=list[str])
    agent: SSHAgentClient | None = None
    agent_path: str = ""

    async def close(self) -> None:
        """Let go of the agent."""
        agent, self.agent = self.agent, None
        if agent is not None:
            agent.close()
            await agent.wait_closed()


async def gather(
    host: Host, environ: Mapping[str, str], limits: Limits, *, attended: bool
) -> Credentials:
    """Collect what `host` is to be offered; `attended`: a person can be asked.

    Raises:
        NeedsError: A key that was asked for by name is encrypted or can't be read.
    """
    found = Credentials()
    if host.password is not None:
        return found
    if host.private_key is None and host.password_from:
        found.password = await _fetch(found, host.password_from, environ, limits)
    if host.methods and "publickey" not in host.methods:
        return found
    phrase = _variable(host.passphrase_env, environ, found.notes)

    async def look_up() -> str | None:
        """Return the passphrase the configuration names, once one is needed."""
        if not host.passphrase_from:
            return None
        secret = await _fetch(found, host.passphrase_from, environ, limits)
        return secret.reveal() if secret is not None else None

    if host.private_key is not None:
        await _given(found, host, phrase, look_up)
        return found
    files = await asyncio.to_thread(keyfile.read_all, host, phrase)
    if any(file.locked for file in files) and (named := await look_up()):
        files = await asyncio.to_thread(keyfile.read_all, host, named)
    certificates = await asyncio.to_thread(keyfile.read_certificates, host, found.notes)
    held = await agents.find(host, environ, limits.agent_seconds)
    found.agents, found.agent = held.notes, held.client
    found.agent_path = held.path
    try:
        if host.explicit_identity:
            keys = _only(found, files, held.keys, attended=attended)
            _all(found, files, keys, certificates, only=True)
        else:
            only = host.identities_only
            _all(found, files, held.keys, certificates, only=only)
            _note_troubles(found, files, held.keys)
    except BaseException:
        await found.close()
        raise
    _drop_short(found, host)
    return found


def _note_troubles(
    found: Credentials, files: Sequence[KeyFile], keys: Sequence[SSHKeyPair]
) -> None:
    """Tell which files are of no use, but for those whose keys the agent holds."""
    held = {key.public_data for key in keys}
    found.notes += [
        file.trouble.message
        for file in files
        if file.trouble is not None and file.public not in held
    ]


def _variable(name: str, environ: Mapping[str, str], notes: list[str]) -> str | None:
    """Return the passphrase that a variable holds, if one is named."""
    if not name:
        return None
    phrase = environ.get(name)
    if phrase is None:
        notes.append(f"${name} is not set, which holds a passphrase")
    return phrase


def _drop_short(found: Credentials, host: Host) -> None:
    """Leave out RSA keys below RequiredRSASize, as ssh does."""
    for offer in list(found.offers):
        pair = offer.pair
        if pair is not None and strength.is_short(host, pair.key_public_data):
            found.offers.remove(offer)
            found.notes.append(
                f"the RSA key {offer.label} was left out: ssh config asks for"
                f" {host.required_rsa_size} bits (RequiredRSASize)"
            )


async def _fetch(
    found: Credentials, reference: str, environ: Mapping[str, str], limits: Limits
) -> Secret | None:
    """Look a secret up by its name; one that is not there is only noted."""
    try:
        secret = await vault.fetch(reference, environ, limits.keyring_seconds)
    except DaemonError as error:
        found.notes.append(f"{error.message} ({error.hint})")
        return None
    found.secrets.append(secret)
    return secret


async def _given(
    found: Credentials,
    host: Host,
    phrase: str | None,
    look_up: Callable[[], Awaitable[str | None]],
) -> None:
    """Offer the key whose text was given."""
    assert host.private_key is not None  # noqa: S101 - the caller looked
    text = (host.private_key.reveal().strip() + "\n").encode()
    try:
        pairs = await asyncio.to_thread(keyfile.import_key, host.name, text, phrase)
    except NeedsError as error:
        locked = error.reason is Reason.PASSPHRASE_NEEDED
        named = await look_up() if locked else None
        if named is None:
            error.hint = "; ".join([error.hint, *found.notes])
            raise
        pairs = await asyncio.to_thread(keyfile.import_key, host.name, text, named)
    found.offers = [Offer(pair, keyfile.KEY_CONTENT) for pair in pairs]


def _only(
    found: Credentials,
    files: Sequence[KeyFile],
    keys: Sequence[SSHKeyPair],
    *,
    attended: bool,
) -> list[SSHKeyPair]:
    """Return the agent's keys for the named files: of what is encrypted on disk.

    Raises:
        NeedsError: A file is of no use, nor does the agent hold its key.
    """
    wanted: list[SSHKeyPair] = []
    for file in files:
        if file.pair is not None:
            continue
        held = [key for key in keys if key.public_data == file.public]
        wanted += held
        if held or (attended and file.locked):
            continue
        trouble = file.trouble or keyfile.unreadable(file.path, "there is no key in it")
        if found.notes:
            trouble.hint = "; ".join([trouble.hint, *found.notes])
        raise trouble
    return wanted


def _all(
    found: Credentials,
    files: Sequence[KeyFile],
    keys: Sequence[SSHKeyPair],
    certificates: Sequence[SSHCertificate],
    *,
    only: bool,
) -> None:
    """Put everything in order; `only`: what the agent holds besides stays there."""
    named: dict[bytes, str] = {}
    for file in files:
        if file.public:
            named.setdefault(file.public, file.path)
        if file.beside:
            named.setdefault(file.beside.public_data, file.path)
    held = [
        Offer(key, f"{named[key.public_data]}, from the agent")
        for key in keys
        if key.public_data in named
    ]
    rest = [Offer(k, "from the agent") for k in keys if k.public_data not in named]
    own = {file.path: offer for file in files if (offer := _own(file)) is not None}
    signers = [*held, *rest, *own.values()]
    offers = [_certified(signers, certificate) for certificate in certificates]
    offers += [*held, *([] if only else rest)]
    for file in files:
        offers.append(own.get(file.path))
        if file.beside is not None:
            offers.append(_certified(signers, file.beside))
    seen: set[bytes] = set()
    for offer in offers:
        if offer is None:
            continue
        shown = offer.pair.public_data if offer.pair else offer.label.encode()
        if shown not in seen:
            seen.add(shown)
            found.offers.append(offer)


def _own(file: KeyFile) -> Offer | None:
    """Offer a file's key, or its public half until it is unlocked."""
    if file.pair is not None:
        return Offer(file.pair, file.path)
    return Offer(file.half, file.path, file.trouble) if file.locked else None


def _certified(signers: Sequence[Offer], certificate: SSHCertificate) -> Offer | None:
    """Offer a certificate with the first that can sign for it."""
    for signer in signers:
        pair = signer.pair
        if pair is not None and pair.public_data == certificate.key.public_data:
            pair = copy.copy(pair)
            pair.set_certificate(certificate)
            return Offer(pair, signer.label, signer.locked)
    return None


def describe(offer: Offer) -> str:
    """Return how an offered key is called in messages."""
    if offer.pair is None:
        return f"publickey ({offer.label})"
    kind = ", certificate" if offer.pair.has_cert else ""
    return f"publickey {fingerprint(offer.pair.key_public_data)} ({offer.label}{kind})"
