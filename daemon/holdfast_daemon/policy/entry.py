"""Entries of an allow-list, and the names a host may be allowed under. Pure."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts import target

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_daemon.hosts.host import Host

_PORT = re.compile(r"[0-9*?\[\]!-]+")
# What an IPv6 address may begin with: `fe80:*` is a pattern of addresses.
_GROUP = re.compile(r"[0-9a-f]{1,4}")


class Names(NamedTuple):
    """The names one host goes by.

    Attributes:
        alias: The host as the caller named it.
        usual: The port is the one that the configuration gives this host.
    """

    alias: str
    hostname: str
    user: str
    port: int = target.DEFAULT_PORT
    usual: bool = True

    @property
    def shown(self) -> str:
        """The name for messages, with a port that is not the usual one."""
        name = self.alias or self.hostname
        if self.usual or not name:
            return name
        return f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}"


class Pattern(NamedTuple):
    """One reading of an entry; without a port it stands for the usual one."""

    text: str
    login: bool
    port: str | None


def names_of(host: Host) -> Names:
    """Return what `host` may be allowed under."""
    alias, usual = _alias(host.name)
    return Names(alias, host.hostname, host.user, host.port, usual)


def names_from(name: str, shown: str) -> Names:
    """Return the same for a host of which only the name and `user@host` were kept."""
    alias, usual = _alias(name)
    # ssh config names users that no caller may
    user, _, place = shown.rpartition("@")
    try:
        parsed = target.parse(place)
    except InputError:
        return Names(alias, "", "", 0, usual)
    port = parsed.port or target.DEFAULT_PORT
    return Names(alias, parsed.host, user, port, usual)


def admits(entries: Iterable[str], names: Names, *, usual: bool) -> bool:
    """Say whether an entry admits the host; `usual`: one without a port may."""
    hosts = [name.lower() for name in (names.alias, names.hostname) if name]
    logins = [f"{names.user.lower()}@{host}" for host in hosts]
    for entry in entries:
        for pattern in _patterns(entry):
            if not _admits_port(pattern, names.port, usual=usual):
                continue
            # The login name is the caller's choice: `web*` must not admit web@evil.
            candidates = logins if pattern.login else hosts
            if any(_matches(pattern.text, candidate) for candidate in candidates):
                return True
    return False


def _admits_port(pattern: Pattern, port: int, *, usual: bool) -> bool:
    # The port is the caller's choice too: `box` must not admit what else runs there.
    return usual if pattern.port is None else fnmatchcase(str(port), pattern.port)


def _matches(pattern: str, candidate: str) -> bool:
    return pattern == candidate or fnmatchcase(candidate, pattern)


@lru_cache(maxsize=1000)
def _patterns(entry: str) -> tuple[Pattern, ...]:
    """Return the readings of `entry`: `[user@]host[:port]`, `[user@][v6]:port`."""
    user, at, place = entry.strip().lower().rpartition("@")
    login, before = bool(at), user + at
    inner, bracket, rest = place[1:].partition("]")
    # Brackets without a colon are a glob's set of characters.
    if place.startswith("[") and bracket and ":" in inner:
        if rest and not rest.startswith(":"):
            return ()
        return (Pattern(before + inner, login, rest[1:] or None),)
    host, _, port = place.partition(":")
    if place.count(":") != 1 or not _PORT.fullmatch(port):
        return (Pattern(before + place, login, None),)
    whole = Pattern(before + place, login, None)
    of_addresses = _GROUP.fullmatch(host) and not port.isdigit()
    split = Pattern(before + host, login, port)
    return (split, whole) if of_addresses else (split,)


def _alias(name: str) -> tuple[str, bool]:
    """Return the host part of a name as the caller wrote it, and that it has no port.

    The door leaves a port in a name only where it is not the usual one.
    """
    try:
        parsed = target.parse(name)
    except InputError:
        return "" if "@" in name else name, True
    return parsed.host, parsed.port is None
