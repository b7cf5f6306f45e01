"""Every host there is: the configuration's own and those of the user's ssh config.

Turns what a caller asked for into a `Host`, hop by hop; opens no connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

from holdfast_daemon.clock import SystemClock
from holdfast_daemon.errors import DaemonError, InputError, Reason, StateError
from holdfast_daemon.hosts import fidelity, options
from holdfast_daemon.hosts.host import Asked, Host, HostKeyChecking, Overrides, Show
from holdfast_daemon.hosts.resolve import Question, Resolver
from holdfast_daemon.hosts.target import Target, check_user, display, parse

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Hashable,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.config import Config, HostEntry
    from holdfast_daemon.hosts.settings import Settings
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)

K = TypeVar("K")
V = TypeVar("V")

_MOST_HOPS = 8
# each that is new asks ssh, by a process of its own
_AT_ONCE = 4
_KEPT = 1000
_NAMED_IN_ERRORS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownHost:
    """A host one can name, as listed; `target` is what its own entry says."""

    name: str
    target: str
    tags: tuple[str, ...] = ()
    description: str = ""
    enabled: bool = True
    show: Show = "all"


class _Made(NamedTuple):
    """A host as put together, and what it was made of."""

    config: Config
    settings: Settings
    host: Host


class Inventory:
    """The hosts of the configuration and of ssh."""

    def __init__(
        self,
        config: Callable[[], Config],
        limits: Limits,
        clock: Clock | None = None,
        *,
        config_file: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self._config = config
        self._environ = os.environ if environ is None else environ
        self._made: dict[tuple[str, Hashable], _Made] = {}
        self._accounts: dict[str, Hashable] = {}
        self._resolver = Resolver(
            limits, clock or SystemClock(), config_file=config_file, environ=environ
        )

    def default_target(self, caller_default: str | None) -> str:
        """Return the target of a call that names none; see `default_target`."""
        return default_target(caller_default, self._config())

    async def resolve(self, target: str, overrides: Overrides | None = None) -> Host:
        """Return how to reach `target`.

        Raises:
            InputError: The target, or something said about it, is wrong.
            StateError: ssh refuses its configuration.
        """
        over = overrides or Overrides()
        host = await self._resolve(parse(target), target, over, 0)
        if not (over.user or over.port or over.jump or over.options):
            self._accounts.pop(target, None)
            _trim(self._accounts)
            self._accounts[target] = host.account
        return host

    async def renew(self, host: Host) -> Host:
        """Return how the same account is reached now; `host`, where nobody can say.

        Whoever has it asks often, for weeks: ssh is asked only where a file changed.
        """
        if host.asked is None:
            return host
        named = parse(host.asked.name)
        try:
            now = await self._resolve(named, *host.asked, 0, kept=True)
        except (DaemonError, OSError) as error:
            _log.info("%s is reached as before: %s", host.name, error)
            return host
        if now.account != host.account:
            return host
        # the door tells by a name's port whether that is the usual one
        own = parse(host.name).host == named.host
        return replace(now, name=host.name) if own else now

    async def those(self, names: Iterable[str]) -> list[Host]:
        """Return the hosts of these names; without any that can't be resolved."""
        return await those(names, self.resolve)

    def account(self, name: str) -> Hashable | None:
        """Return the `Host.account` that `name` had when it was last resolved.

        Cheap: nobody is asked. None where it was not resolved yet, or only with options
        or another user, port or jump host than its own.
        """
        return self._accounts.get(name)

    def agents(self) -> set[str]:
        """Return the agents that the hosts name which were resolved so far."""
        return {made.host.identity_agent for made in self._made.values()}

    async def known(self) -> list[KnownHost]:
        """Return the hosts one can name: the configuration's first, then ssh's."""
        found: dict[str, KnownHost] = {}
        for entry in self._config().hosts.values():
            found[entry.name] = KnownHost(
                name=entry.name,
                target=_display(entry.host, entry.user or "", entry.port or 22),
                tags=entry.tags,
                description=entry.description,
                enabled=entry.enabled,
                show=cast("Show", entry.show),
            )
        for alias in await self._resolver.aliases():
            port = int(alias.port) if alias.port.isdigit() else 22
            place = _display(alias.hostname, alias.user, port)
            found.setdefault(alias.name, KnownHost(name=alias.name, target=place))
        return list(found.values())

    async def troubles(self) -> list[str]:
        """Return which files may name more hosts and can't be read, and why."""
        return await self._resolver.troubles()

    async def _resolve(
        self,
        target: Target,
        name: str,
        over: Overrides,
        depth: int,
        *,
        kept: bool = False,
    ) -> Host:
        if depth > _MOST_HOPS:
            raise InputError(
                "connect.jump",
                f"more than {_MOST_HOPS} jump hosts in a row, or a circle of them",
                hint="look at ProxyJump in ssh config, proxy_jump in the configuration",
            )
        config = self._config()
        entry = config.hosts.get(target.host)
        question = _question(config, entry, target, over)
        settings = await self._resolver.settings(question, kept=kept)
        host = await self._put_together(config, entry, settings, over, name)
        chain = settings.jump
        if not chain:
            return host
        hop = await self._hop(chain, over, depth, kept=kept)
        return replace(host, proxy_jump=hop)

    async def _put_together(
        self,
        config: Config,
        entry: HostEntry | None,
        settings: Settings,
        over: Overrides,
        name: str,
    ) -> Host:
        """Put a host together, once while nothing it is made of changes."""
        key = (name, over.key)
        made = self._made.get(key)
        if made is not None and made.config is config and made.settings is settings:
            return made.host
        # in a thread: `~name` in a path asks the user database
        host = await asyncio.to_thread(_host, config, entry, settings, over, name)
        sent = settings.environment(self._environ, _secret_names(config))
        host = replace(host, environment=sent, asked=Asked(name, over))
        self._made.pop(key, None)
        _trim(self._made)
        self._made[key] = _Made(config, settings, host)
        return host

    async def _hop(
        self, chain: str, over: Overrides, depth: int, *, kept: bool
    ) -> Host:
        """Return the last hop of `chain`; the hops before it lead to it."""
        before, _, last = chain.rpartition(",")
        hop = Overrides(
            jump=before.strip(),
            # A key proves who we are without giving anything away; a password does not.
            private_key=over.private_key,
            connect_timeout=over.connect_timeout,
            auth_sock=over.auth_sock,
        )
        target = parse(last.strip(), field="connect.jump")
        return await self._resolve(target, last.strip(), hop, depth + 1, kept=kept)


async def those(
    names: Iterable[str], resolve: Callable[[str], Awaitable[Host]]
) -> list[Host]:
    """Return the hosts of these names, in order; without any that can't be resolved."""
    turn = asyncio.Semaphore(_AT_ONCE)

    async def one(name: str) -> Host | None:
        async with turn:
            try:
                return await resolve(name)
            except DaemonError as error:
                _log.info("%s can't be compared: %s", name, error.message)
                return None

    found = await asyncio.gather(*map(one, names))
    return [host for host in found if host is not None]


def default_target(caller_default: str | None, config: Config) -> str:
    """Return the target of a call that names none.

    Raises:
        StateError: There is no single default; names what could be meant.
    """
    if caller_default:
        return caller_default
    if config.default_host:
        return config.default_host
    marked = [entry.name for entry in config.hosts.values() if entry.default]
    if len(marked) == 1:
        return marked[0]
    names = marked or [e.name for e in config.hosts.values() if e.enabled]
    shown = ", ".join(names[:_NAMED_IN_ERRORS])
    if len(names) > _NAMED_IN_ERRORS:
        shown += f" and {len(names) - _NAMED_IN_ERRORS} more"
    raise StateError(
        Reason.NO_TARGET,
        "no target was given and there is no single default host",
        hint=f"give target; known are {shown}"
        if shown
        else "give target: an alias of ~/.ssh/config, user@host or user@host:port",
        metadata={"candidates": shown},
    )


def _trim(table: dict[K, V]) -> None:
    """Make room for one more, at the cost of the oldest."""
    while len(table) >= _KEPT:
        del table[next(iter(table))]


def _display(hostname: str, user: str, port: int) -> str:
    if user:
        return display(user, hostname, port)
    return display("", hostname, port).removeprefix("@")


def _question(
    config: Config, entry: HostEntry | None, target: Target, over: Overrides
) -> Question:
    """Put together what is to be said to ssh above and below its own files."""
    said: dict[str, str] = {}
    user = over.user or target.user or (entry.user if entry else None)
    if user:
        said["User"] = check_user(user, "connect.user")
    port = over.port or target.port or (entry.port if entry else None)
    if port:
        said["Port"] = str(port)
    jump = over.jump or (entry.proxy_jump if entry else None)
    if jump:
        said["ProxyJump"] = _checked_jump(jump)
    for name, value in options.check(over.options).items():
        said.setdefault(name, value)
    below: dict[str, str] = {}
    default_user = over.default_user or config.defaults.user
    if default_user and not user:
        below["User"] = check_user(default_user)
    default_port = over.default_port or config.defaults.port
    if default_port and not port:
        below["Port"] = str(default_port)
    place = parse(entry.host) if entry else target
    if place.user and "User" not in said:
        said["User"] = place.user
    if place.port and "Port" not in said:
        said["Port"] = str(place.port)
    return Question(place.host, tuple(said.items()), tuple(below.items()))


def _checked_jump(jump: str) -> str:
    if jump.lower() == "none":
        return jump
    for hop in jump.split(","):
        parse(hop.strip(), field="connect.jump")
    return ",".join(hop.strip() for hop in jump.split(","))


def _host(
    config: Config,
    entry: HostEntry | None,
    settings: Settings,
    over: Overrides,
    name: str,
) -> Host:
    notes = fidelity.check(settings, config.defaults.ssh_options_ignored)
    # who chooses an agent by a call would choose which one the host is lent
    chosen = any(name.lower() == "identityagent" for name in over.options)
    seconds, misses = settings.keepalive
    host = Host(
        name=name,
        hostname=settings.hostname,
        port=settings.port,
        user=settings.user,
        identity_files=settings.identity_files,
        identities_only=settings.flag("identitiesonly"),
        identity_agent=settings.identity_agent,
        certificate_files=settings.certificate_files,
        user_known_hosts=settings.files("userknownhostsfile"),
        global_known_hosts=settings.files("globalknownhostsfile"),
        hash_known_hosts=settings.flag("hashknownhosts"),
        host_key_alias=settings.one("hostkeyalias"),
        host_key_checking=_checking(config, entry, settings, over),
        revoked_host_keys=settings.files("revokedhostkeys"),
        known_hosts_command=settings.known_hosts_command,
        no_host_authentication_for_localhost=settings.flag(
            "nohostauthenticationforlocalhost"
        ),
        check_host_ip=settings.flag("checkhostip"),
        update_host_keys=settings.update_host_keys,
        required_rsa_size=int(settings.one("requiredrsasize", "0")),
        proxy_command=settings.proxy_command,
        connect_timeout=over.connect_timeout
        or settings.connect_timeout
        or config.defaults.connect_timeout_seconds,
        keepalive_seconds=seconds,
        keepalive_misses=misses,
        address_family=settings.address_family,
        bind_address=settings.one("bindaddress"),
        compression=settings.flag("compression"),
        wire=settings.wire,
        algorithms=settings.algorithms,
        forward_agent="" if chosen else settings.forward_agent,
        request_tty=settings.request_tty,
        local_command=settings.local_command,
        remote_command=settings.remote_command,
        session_type=settings.session_type,
        control_path=settings.control_path,
        notes=notes,
        methods=settings.methods,
        password=over.password,
        private_key=over.private_key,
        auth_sock=over.auth_sock or "",
    )
    if entry is not None:
        host = _with_entry(host, entry)
    if over.identity_file:
        path = _local_path("connect.identity_file", over.identity_file)
        host = replace(host, identity_files=(path,), explicit_identity=True)
    if over.known_hosts_file:
        path = _local_path("connect.known_hosts_file", over.known_hosts_file)
        host = replace(
            host,
            guard_known_hosts=(*host.user_known_hosts, *host.global_known_hosts),
            own_known_hosts=host.user_known_hosts,
            user_known_hosts=(path,),
            global_known_hosts=(),
        )
    return host


def _secret_names(config: Config) -> Iterator[str]:
    """Yield the variables that hold a secret, as the configuration names them."""
    for entry in config.hosts.values():
        for item in fields(entry):
            value = getattr(entry, item.name)
            if not isinstance(value, str):
                continue
            if item.name.endswith("_env"):
                yield value
            elif item.name.endswith("_from") and value.startswith("env:"):
                yield value.removeprefix("env:")


def _with_entry(host: Host, entry: HostEntry) -> Host:
    host = replace(
        host,
        pinned_fingerprint=entry.host_key or "",
        passphrase_env=entry.ssh_key_passphrase_env or "",
        passphrase_from=entry.ssh_key_passphrase_from or "",
        password_from=entry.password_from or "",
        sudo_password_from=entry.sudo_password_from or "",
        tags=entry.tags,
        description=entry.description,
        enabled=entry.enabled,
        show=cast("Show", entry.show),
    )
    if entry.ssh_key_path:
        path = str(Path(entry.ssh_key_path).expanduser())
        host = replace(host, identity_files=(path,), explicit_identity=True)
    if entry.known_hosts_file:
        path = str(Path(entry.known_hosts_file).expanduser())
        host = replace(host, user_known_hosts=(path,), global_known_hosts=())
    return host


def _checking(
    config: Config, entry: HostEntry | None, settings: Settings, over: Overrides
) -> HostKeyChecking:
    """What the nearest says: the call, the entry, ssh, the defaults; else strict."""
    said: Sequence[str | None] = (
        over.host_key_checking,
        entry.host_key_checking if entry else None,
        settings.host_key_checking,
        config.defaults.host_key_checking,
    )
    return cast("HostKeyChecking", next((value for value in said if value), "yes"))


def _local_path(field: str, value: str) -> str:
    if "\0" in value:
        raise InputError(field, f"{field} contains a NUL character")
    return str(Path(value).expanduser())
