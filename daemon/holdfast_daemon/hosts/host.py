"""One host as resolved: all that is needed to reach it and to log in. Values only."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Literal, NamedTuple

from holdfast_daemon.hosts.target import DEFAULT_PORT, display

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from holdfast_daemon.secrets import Secret

HostKeyChecking = Literal["yes", "accept-new", "no"]
UpdateHostKeys = Literal["yes", "ask", "no"]
SessionType = Literal["default", "none", "subsystem"]
RequestTty = Literal["auto", "no", "yes", "force"]
Show = Literal["all", "purpose"]

# Options of a call that say by which keys to log in.
_KEYS = frozenset(
    {"certificatefile", "identitiesonly", "identityagent", "identityfile"}
)
# Credentials are compared by a keyed digest, so that no table of connections holds one.
_SALT = secrets.token_bytes(32)


def _digest(secret: Secret | None) -> str:
    if secret is None:
        return ""
    data = secret.reveal().encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, key=_SALT, digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class Algorithms:
    """Algorithm lists the user's ssh configuration changed; an empty one was not."""

    key_exchange: tuple[str, ...] = ()
    ciphers: tuple[str, ...] = ()
    macs: tuple[str, ...] = ()
    host_keys: tuple[str, ...] = ()
    signatures: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Wire:
    """How the TCP connection is made and kept.

    Attributes:
        qos: Type of service of its packets; None leaves the system's.
        rekey_bytes: Data after which keys are changed; 0 is the library's own.
        rekey_seconds: Time after which keys are changed; 0 is the library's own.
    """

    attempts: int = 1
    bind_interface: str = ""
    tcp_keepalive: bool = True
    qos: int | None = None
    rekey_bytes: int = 0
    rekey_seconds: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """How to reach one host, and what it is for.

    Attributes:
        name: As the caller wrote it; an alias where there is one.
        identity_agent: Socket of IdentityAgent; "" none named, "none" forbids agents.
        guard_known_hosts: Files of the person's configuration when the call named
            another one: what they call changed or revoked stays refused.
        own_known_hosts: The person's own files, when the call named another one: what
            is learnt goes there. None: the call named none.
        explicit_identity: The caller named the key file; only it is tried.
        revoked_host_keys: Files of RevokedHostKeys, plain lists or KRLs.
        known_hosts_command: KnownHostsCommand with the tokens filled in that are known
            before the host has answered; %H, %I, %K, %f and %t are left.
        check_host_ip: CheckHostIP: the address is to have the same key as the name.
        required_rsa_size: Smaller RSA keys are not used, nor taken from a host.
        environment: Variables that SendEnv and SetEnv ask for, for every command.
        forward_agent: "yes", the socket of the agent to lend the host, or empty.
        local_command: Runs on this machine when a connection was made.
        remote_command: What the configuration runs instead of a shell.
        session_type: none and subsystem leave no room for a command.
        control_path: Socket of a master connection of the person's own ssh.
        notes: What the configuration asks for that is not done here, in sentences.
        asked: What to ask the configuration for to have it anew.
        proxy_jump: The hop before this host, which may have one of its own.
        connect_timeout: Seconds; None is the limit of the daemon.
        keepalive_seconds: Seconds; None is the limit of the daemon.
    """

    name: str
    hostname: str
    user: str
    port: int = DEFAULT_PORT
    identity_files: tuple[str, ...] = ()
    explicit_identity: bool = False
    identities_only: bool = False
    identity_agent: str = ""
    certificate_files: tuple[str, ...] = ()
    user_known_hosts: tuple[str, ...] = ()
    global_known_hosts: tuple[str, ...] = ()
    guard_known_hosts: tuple[str, ...] = ()
    own_known_hosts: tuple[str, ...] | None = None
    hash_known_hosts: bool = False
    host_key_alias: str = ""
    host_key_checking: HostKeyChecking = "yes"
    pinned_fingerprint: str = ""
    revoked_host_keys: tuple[str, ...] = ()
    known_hosts_command: str = ""
    no_host_authentication_for_localhost: bool = False
    check_host_ip: bool = False
    update_host_keys: UpdateHostKeys = "no"
    required_rsa_size: int = 0
    proxy_jump: Host | None = None
    proxy_command: str = ""
    connect_timeout: float | None = None
    keepalive_seconds: float | None = None
    keepalive_misses: int | None = None
    address_family: Literal["any", "inet", "inet6"] = "any"
    bind_address: str = ""
    compression: bool = False
    wire: Wire = Wire()
    algorithms: Algorithms = Algorithms()
    environment: tuple[tuple[str, str], ...] = ()
    forward_agent: str = ""
    request_tty: RequestTty = "auto"
    local_command: str = ""
    remote_command: str = ""
    session_type: SessionType = "default"
    control_path: str = ""
    methods: tuple[str, ...] = ()
    password: Secret | None = field(default=None, repr=False)
    private_key: Secret | None = field(default=None, repr=False)
    passphrase_env: str = ""
    password_from: str = ""
    passphrase_from: str = ""
    sudo_password_from: str = ""
    auth_sock: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    show: Show = "all"
    notes: tuple[str, ...] = ()
    asked: Asked | None = field(default=None, repr=False, compare=False)

    @property
    def display(self) -> str:
        """`user@hostname`, with the port where it is not 22."""
        return display(self.user, self.hostname, self.port)

    @property
    def shown(self) -> str:
        """What messages call it: by its purpose only, when the person wants that."""
        return self.name if self.show == "purpose" else self.display

    @property
    def place(self) -> tuple[str, int]:
        """The address. Private ones stand for other servers behind other jump hosts."""
        return (self.hostname.lower(), self.port)

    @property
    def server(self) -> Hashable:
        """The server itself, whoever logs in: what limits and pauses count by."""
        return (*self.place, *self._way)

    @property
    def _way(self) -> tuple[Hashable, str]:
        hop = self.proxy_jump.account if self.proxy_jump else None
        return (hop, self.proxy_command)

    @property
    def account(self) -> Hashable:
        """The server, the way to it and the user, whatever name or options were given.

        What `Pool.disconnect` closes and `Pool.connected` and `Row` tell by. Equal
        accounts may still have connections apart: other credentials, another trust.
        """
        return (*self.place, self.user, *self._way)

    def needs(self, other: Host) -> bool:
        """Whether closing the connections to `other` ends what runs here.

        So it is for the same account, and for hosts that are reached through it.
        """
        hop: Host | None = self
        while hop is not None:
            if hop.account == other.account:
                return True
            hop = hop.proxy_jump
        return False

    @property
    def own_credentials(self) -> bool:
        """A credential was named, so only a connection made with it will do."""
        return (
            self.password is not None
            or self.private_key is not None
            or self.explicit_identity
        )

    @property
    def names_keys(self) -> bool:
        """The call says by options which keys to log in with."""
        said = self.asked.over.options if self.asked is not None else ()
        return any(name.lower() in _KEYS for name in said)

    @property
    def keys(self) -> Hashable:
        """The keys to log in with, in order, and whether an agent's others count."""
        return (
            self.identity_files,
            self.certificate_files,
            self.identity_agent,
            self.identities_only,
            _digest(self.private_key),
        )

    @property
    def asked_keys(self) -> str:
        """A mark of the keys the call itself names, the same in later runs; or ""."""
        over = self.asked.over if self.asked is not None else Overrides()
        named = {n: over.options[n] for n in over.options if n.lower() in _KEYS}
        if not (over.identity_file or over.private_key or named):
            return ""
        key = over.private_key.reveal() if over.private_key else ""
        said = json.dumps([over.identity_file, key, sorted(named.items())])
        return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def _is_unchecked(self) -> bool:
        """Whether a key may be taken that is known neither before nor after."""
        if self.host_key_checking != "accept-new":
            return self.host_key_checking == "no"
        own = self.own_known_hosts
        own = self.user_known_hosts if own is None else own
        return not own or own[0] == os.devnull

    @property
    def endpoint(self) -> Hashable:
        """Where and as whom, and by which trust: equal ones may share a connection.

        Whether the key was checked belongs to it: nobody strict is put on a connection
        that was opened without a check.
        """
        return (
            *self.place,
            self.user,
            self.proxy_jump.endpoint if self.proxy_jump else None,
            self.proxy_command,
            self.host_key_alias,
            self._is_unchecked,
            self.pinned_fingerprint,
            self.user_known_hosts,
            self.global_known_hosts,
            self.guard_known_hosts,
            self.revoked_host_keys,
            self.known_hosts_command,
            self.no_host_authentication_for_localhost,
            self.check_host_ip,
            self.required_rsa_size,
            self.address_family,
            self.bind_address,
            self.compression,
            self.wire,
            # one that nobody asks for long would not be noticed to be dead
            self.keepalive_seconds,
            self.keepalive_misses,
            self.algorithms,
            self.environment,
            self.forward_agent,
            self.local_command,
        )

    @property
    def identity(self) -> Hashable:
        """Endpoint and credentials; a changed configuration makes another one."""
        return (
            self.endpoint,
            self.identity_files,
            self.explicit_identity,
            self.identities_only,
            self.identity_agent,
            self.certificate_files,
            self.methods,
            _digest(self.password),
            _digest(self.private_key),
            self.password_from,
        )


def may_share(have: Host, want: Host) -> bool:
    """Whether `want` may use what is open to `have`, whoever logged in.

    Who names no credential may, where it leads to the same account: that is what
    logging in once means. Who names one, by an option too, gets only what that made.
    """
    if want.own_credentials or want.names_keys:
        return False
    return have.endpoint == want.endpoint and keys_fit(have, want)


def keys_fit(have: Host, want: Host) -> bool:
    """Whether the one may have what the keys of the other opened.

    A server may bind each key to a command of its own. IdentitiesOnly says which keys
    are meant, and then no other stands for them.
    """
    bound = have.identities_only or want.identities_only
    return not bound or have.keys == want.keys


class Asked(NamedTuple):
    """What a host was resolved from."""

    name: str
    over: Overrides


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What a call and its client say about reaching a host.

    `user`, `port`, `password` and so on win over every configuration, `default_*` yield
    to it.
    """

    user: str | None = None
    port: int | None = None
    identity_file: str | None = None
    password: Secret | None = field(default=None, repr=False)
    private_key: Secret | None = field(default=None, repr=False)
    known_hosts_file: str | None = None
    host_key_checking: HostKeyChecking | None = None
    jump: str | None = None
    connect_timeout: float | None = None
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    default_user: str | None = None
    default_port: int | None = None
    auth_sock: str | None = None

    @property
    def key(self) -> Hashable:
        """All that is said, for tables; holds secrets as such."""
        said: list[object] = [getattr(self, item.name) for item in fields(self)]
        return tuple(
            tuple(sorted(self.options.items())) if value is self.options else value
            for value in said
        )
