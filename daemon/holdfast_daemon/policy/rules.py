"""What a caller may do. Pure: no clock, no files, no records."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason
from holdfast_daemon.policy.address import canonical
from holdfast_daemon.policy.entry import admits, names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.config import Config, HostEntry
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.policy.entry import Names


class Action(StrEnum):
    """What a call needs to be allowed to do: `holdfast.v1.Action`."""

    INSPECT = "inspect"
    READ = "read"
    EXECUTE = "execute"
    WRITE = "write"
    INSTALL = "install"
    MANAGE = "manage"


LOOKING = frozenset({Action.INSPECT, Action.READ})
_FILE = "allowed_hosts in config.toml"
_CLIENT = "SSH_ALLOWED_HOSTS of this client"


@dataclass(frozen=True, slots=True)
class Operation:
    """One call as the rules see it; without an event only refusals are recorded.

    Attributes:
        default_port: That of the client, where the call itself names no port.
        person: Only a person's own command line may call it.
    """

    method: str
    action: Action
    event: str
    caller: Caller
    default_port: int | None = None
    person: bool = False


def decide(
    operation: Operation,
    config: Config,
    host: Host | None,
    disabled: Sequence[Host] = (),
) -> None:
    """Return when the rules admit the call.

    `disabled` are the hosts that the configuration switched off, as resolved: their
    servers are refused under every other name too.

    Raises:
        DeniedError: They do not; it says which rule and what is allowed instead.
    """
    if operation.caller.read_only and operation.action not in LOOKING:
        raise DeniedError(
            Reason.READ_ONLY,
            f"this client is read-only, and {operation.method} "
            f"needs to be allowed to {operation.action}",
            hint="Start holdfast-mcp without --read-only to let this client act.",
            metadata={"action": operation.action.value},
        )
    if operation.person and (operation.caller.tool or not operation.caller.person):
        raise DeniedError(
            Reason.POLICY_DENIED,
            f"{operation.method} is for a person at the command line, and this client"
            " is none",
            hint="Ask a person to run `holdfast hosts trust NAME` in a terminal.",
            metadata={"rule": "person"},
        )
    if host is None:
        return
    if config.allowed_hosts or operation.caller.allowed_hosts:
        check_names(operation.caller, config, names_of(host), operation.default_port)
    # What only puts things in order here, as closing a connection, reaches no host.
    if operation.action is not Action.MANAGE:
        check_enabled(config, host, disabled)


def check_names(
    caller: Caller, config: Config, names: Names, default_port: int | None = None
) -> None:
    """Return when both allow-lists, the configuration's and the client's, admit a host.

    Each can only narrow: an empty list says nothing, and neither widens the other. An
    entry without a port stands for the port that the configuration gives the host; in
    the client's own list also for `default_port`, which comes from the same place.

    Raises:
        DeniedError: One of them does not; it names what is allowed.
    """
    own = names.usual or names.port == default_port
    lists = (
        (config.allowed_hosts, "the configuration", _FILE, names.usual),
        (caller.allowed_hosts, "this client", _CLIENT, own),
    )
    refusing = [
        row for row in lists if row[0] and not admits(row[0], names, usual=row[3])
    ]
    if not refusing:
        return
    shown = names.shown
    allowed = "; ".join(
        f"{whose} allows {', '.join(entries)}" for entries, whose, _, _ in refusing
    )
    places = " and ".join(place for _, _, place, _ in refusing)
    raise DeniedError(
        Reason.HOST_NOT_ALLOWED,
        f"{shown} is not an allowed host: {allowed}",
        hint=f"Use an allowed host, or ask the person to widen {places}.",
        metadata={
            "host": shown,
            "allowed": ", ".join(
                dict.fromkeys(entry for row in refusing for entry in row[0])
            ),
        },
    )


def check_enabled(config: Config, host: Host, disabled: Sequence[Host]) -> None:
    """Return unless the configuration switched the host's server off, or one before it.

    Raises:
        DeniedError: It did; it says under which name.
    """
    if host.proxy_jump is not None:
        # Whoever goes through a host logs in there.
        check_enabled(config, host.proxy_jump, disabled)
    name = host.name
    if host.enabled:
        same = (each for each in disabled if _is_one(config, host, each))
        found = next(same, None)
        if found is None:
            return
        name = found.name
    also = "" if name == host.name else f"{host.name} is {name}, and "
    raise DeniedError(
        Reason.HOST_DISABLED,
        f"{also}{name} is disabled in the configuration",
        hint=f"Set enabled = true under [hosts.{name}], or use another host.",
        metadata={"host": name},
    )


def _is_one(config: Config, host: Host, disabled: Host) -> bool:
    """Say whether `host` leads to the server, and the login, of a disabled entry."""
    if _place(host) != _place(disabled):
        return False
    entry = config.hosts.get(disabled.name)
    if entry is None:
        return False
    if _names_user(entry) and host.user != disabled.user:
        return False
    own = config.hosts.get(names_of(host).alias)
    # Behind different jump hosts the same private address is another server.
    return (
        own is None
        or own.proxy_jump == entry.proxy_jump
        or _way(host) == _way(disabled)
    )


def _names_user(entry: HostEntry) -> bool:
    return entry.user is not None or "@" in entry.host


def _way(host: Host) -> list[tuple[str, int]]:
    way: list[tuple[str, int]] = []
    hop = host.proxy_jump
    while hop is not None:
        way.append(_place(hop))
        hop = hop.proxy_jump
    return way


def _place(host: Host) -> tuple[str, int]:
    return canonical(host.hostname), host.port
