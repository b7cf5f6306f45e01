"""What a caller may write as `target`, taken apart. Pure; knows no configuration."""

from __future__ import annotations

import ipaddress
from typing import NamedTuple
from urllib.parse import unquote

from holdfast_daemon.errors import InputError

# What OpenSSH 9.6 refuses too: names reach a shell by `Match exec` or ProxyCommand.
_UNSAFE = frozenset("'\"`$\\;&<>|(){}")
_SCHEME = "ssh://"
_LONGEST = 1025
_FORMS = "give an alias, user@host, user@host:port, ssh://user@host:port or [IPv6]"


class Target(NamedTuple):
    """A target as written; None is what was left to the configuration."""

    user: str | None
    host: str
    port: int | None


def parse(text: str, *, field: str = "target") -> Target:
    """Take `text` apart.

    Raises:
        InputError: It is no target; the message says why, without guessing.
    """
    if not text:
        raise InputError(field, f"{field} is empty", hint=_FORMS)
    if len(text) > _LONGEST:
        raise InputError(field, f"{field} is longer than {_LONGEST} characters")
    if text.lower().startswith(_SCHEME):
        return _url(text[len(_SCHEME) :], field)
    user, at, rest = text.rpartition("@")
    host, port = _host_port(rest, field)
    return Target(check_user(user, field) if at else None, host, port)


def check_user(user: str, field: str = "user") -> str:
    """Return `user` if it is safe to hand to ssh, else raise InputError."""
    if not user:
        raise InputError(field, "the user name is empty", hint=_FORMS)
    if user.startswith("-"):
        raise InputError(field, "a user name may not start with a dash")
    if user.startswith("#"):  # the rest of a ProxyCommand would be a comment
        raise InputError(field, "a user name may not start with #")
    _check_characters(user, field, "user name")
    return user


def check_host(host: str, field: str = "target") -> str:
    """Return `host` if it is safe to hand to ssh, else raise InputError."""
    if not host:
        raise InputError(field, "the host name is empty", hint=_FORMS)
    if host.startswith("-"):
        raise InputError(field, "a host name may not start with a dash")
    _check_characters(host, field, "host name")
    if "/" in host:
        raise InputError(field, "a host name may not contain a slash", hint=_FORMS)
    return host


def display(user: str, host: str, port: int) -> str:
    """Return `user@host`, with the port where it is not 22."""
    if port == DEFAULT_PORT:
        return f"{user}@{host}"
    return f"{user}@[{host}]:{port}" if ":" in host else f"{user}@{host}:{port}"


DEFAULT_PORT = 22
_HIGHEST_PORT = 65535


def _url(rest: str, field: str) -> Target:
    rest = rest.removesuffix("/")
    if "/" in rest or "?" in rest or "#" in rest:
        raise InputError(field, "an ssh:// URL may have no path", hint=_FORMS)
    user, at, place = rest.rpartition("@")
    host, port = _host_port(place, field)
    if not at:
        return Target(None, host, port)
    if ":" in user:
        raise InputError(
            field,
            "an ssh:// URL may not carry a password",
            hint="give it as connect.password",
        )
    return Target(check_user(unquote(user), field), host, port)


def _host_port(text: str, field: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise InputError(field, "a bracket is not closed", hint=_FORMS)
        if not _is_ipv6(host):
            raise InputError(field, f"[{host}] is no IPv6 address", hint=_FORMS)
        return check_host(host, field), _port(rest[1:], field) if rest else None
    if text.count(":") > 1:
        if _is_ipv6(text):
            return check_host(text, field), None
        raise InputError(
            field,
            "more than one colon, and no IPv6 address",
            hint="write an IPv6 address with a port as [address]:port",
        )
    host, colon, port = text.partition(":")
    return check_host(host, field), _port(port, field) if colon else None


def _port(text: str, field: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= len("65535")):
        raise InputError(field, "the port is no number", hint="1 to 65535")
    port = int(text)
    if not 1 <= port <= _HIGHEST_PORT:
        raise InputError(field, f"port {port} is out of range", hint="1 to 65535")
    return port


def _is_ipv6(text: str) -> bool:
    address, percent, scope = text.partition("%")
    if percent and not scope:
        return False
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return False
    return True


def _check_characters(text: str, field: str, what: str) -> None:
    for character in text:
        if character.isspace():
            raise InputError(field, f"a {what} may not contain blanks")
        if not character.isprintable():
            raise InputError(
                field, f"a {what} may not contain control characters ({character!r})"
            )
        if character in _UNSAFE:
            raise InputError(field, f"a {what} may not contain {character}")
