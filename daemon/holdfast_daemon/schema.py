"""Every key that `config.toml` may have, and what its value may be.

Knows keys and values; nothing of files, lines or who uses them.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from holdfast_daemon.limits import Limits, bounds

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[object], Any]

LOG_LEVELS = ("debug", "info", "warning", "error")
HOST_KEY_CHECKING = ("yes", "accept-new", "no")
SHOWS = ("all", "purpose")

_TEXT_LENGTH = 1024

# A variable of the daemon's environment, an entry of the keyring, a private file.
_REFERENCE = re.compile(
    r"env:[A-Za-z_][A-Za-z0-9_]{0,254}"
    r"|keyring:[\w.@+-][\w.@+ -]{0,254}"
    r"|file:(?:/|~/)[^\0-\x1f\x7f]{1,1000}"
)


class Wrong(ValueError):  # noqa: N818 - said of a value, and always caught
    """A value that can't be taken; never quotes the value of what may be secret."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


_KINDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    list: "a list",
    dict: "a table",
}


def kind(value: object) -> str:
    """Return what sort of TOML value this is, in words."""
    return _KINDS.get(type(value), "a date or time")


def figure(value: float) -> str:
    """Return `value` as one would write it in TOML."""
    return f"{int(value):_}" if value == int(value) else str(value)


def _must_be(wanted: str, value: object) -> Wrong:
    return Wrong(f"must be {wanted}, not {kind(value)}")


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _must_be("true or false", value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise _must_be("a text in quotes", value)
    if "PRIVATE KEY-----" in value:
        raise Wrong(
            "holds a private key",
            "Keep the key in a file of its own and give its path, or use ssh-agent.",
        )
    if not value.strip():
        raise Wrong("must not be empty", "Leave the key out instead.")
    if len(value) > _TEXT_LENGTH:
        raise Wrong(f"is longer than {_TEXT_LENGTH} characters")
    if not value.isprintable():
        raise Wrong("holds a line break or another control character")
    return value


def _matching(pattern: str, wanted: str) -> Check:
    regex = re.compile(pattern)

    def check(value: object) -> str:
        text = _text(value)
        if not regex.fullmatch(text):
            raise Wrong(f"must be {wanted}")
        return text

    return check


def _one_of(*values: str) -> Check:
    def check(value: object) -> str:
        if not isinstance(value, str):
            raise _must_be("a text in quotes", value)
        if value not in values:
            raise Wrong("must be one of: " + ", ".join(f'"{item}"' for item in values))
        return value

    return check


def _range(low: float, high: float, unit: str, *, whole: bool) -> Check:
    def check(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise _must_be("a number", value)
        if whole and not isinstance(value, int):
            raise _must_be("a whole number", value)
        if not low <= value <= high:  # also refuses nan
            span = f"from {figure(low)} to {figure(high)} {unit}"
            raise Wrong(f"must be {span.rstrip()}")
        return value if whole else float(value)

    return check


def _limit(name: str, *, like: str) -> Check:
    """Check against the bounds of the limit `like`."""
    bound = bounds(like)
    if bound is None:
        raise LookupError(f"{name}: no limit {like}")
    whole = isinstance(getattr(Limits(), like), int)
    return _range(bound.low, bound.high, bound.unit, whole=whole)


def _list(check: Check) -> Callable[[object], tuple[str, ...]]:
    def checked(value: object) -> tuple[str, ...]:
        if not isinstance(value, list):
            raise _must_be("a list of texts", value)
        return tuple(check(item) for item in value)

    return checked


def _hosts_allowed(value: object) -> tuple[str, ...]:
    patterns = _list(_TARGET)(value)
    if not patterns:
        raise Wrong(
            "must name at least one host",
            "Leave the key out to allow every host.",
        )
    return patterns


def _user(value: object) -> str:
    text = _text(value)
    # what OpenSSH refuses too: it could end up in a ProxyCommand
    if text.startswith("-") or re.search(r"""[\s'"`;&<>|(){}]""", text):
        raise Wrong("is not a user name")
    return text


def reference(value: object) -> str:
    """Check the name of a place that holds a secret; never quotes what it is given."""
    if not isinstance(value, str):
        raise _must_be("a text in quotes", value)
    if not _REFERENCE.fullmatch(value):
        raise Wrong(
            "must name what holds the secret: env:NAME, keyring:NAME or file:/PATH",
            "The secret itself does not belong here; change it if this was it.",
        )
    return value


def _path(value: object) -> str:
    text = _text(value)
    if not text.startswith(("/", "~/", "%d/")):
        raise Wrong(
            "must be an absolute path, or begin with ~/",
            "The daemon does not stand in the directory you stand in.",
        )
    return text


_TARGET = _matching(
    r"[^\s-]\S*", "a host or a pattern, without blanks or a leading dash"
)
_HOST = _matching(
    r"(?!-)[\w.:%\[\]-]{1,255}", "a host name or address, or an alias of ssh_config"
)
_JUMPS = _matching(
    r"(?!-)[^\s'\"`;&<>|(){}]+", "hosts to jump through: [user@]host[:port], …"
)
_VARIABLE = _matching(
    r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable: letters, digits, _"
)
_OPTION = _matching(r"[A-Za-z][A-Za-z0-9]*", "the name of an option of ssh")
_FINGERPRINT = _matching(
    r"SHA256:[A-Za-z0-9+/]{43}", "a fingerprint as ssh-keygen -l shows it: SHA256:…"
)
_PORT = _range(1, 65535, "", whole=True)

# An entry's name is used as a target, so it must not read as user@host or host:port.
HOST_NAME = _matching(
    r"[\w][\w.+-]{0,254}", "a name of letters, digits, dots, dashes and underscores"
)

DEFAULTS: Mapping[str, Check] = {
    "user": _user,
    "port": _PORT,
    "timeout_seconds": _limit("timeout_seconds", like="command_timeout_seconds"),
    "connect_timeout_seconds": _limit(
        "connect_timeout_seconds", like="connect_timeout_seconds"
    ),
    "max_output_chars": _limit("max_output_chars", like="answer_chars"),
    "host_key_checking": _one_of(*HOST_KEY_CHECKING),
    "ssh_options_ignored": _list(_OPTION),
}

HOST: Mapping[str, Check] = {
    "host": _HOST,
    "port": _PORT,
    "user": _user,
    "ssh_key_path": _path,
    "ssh_key_passphrase_env": _VARIABLE,
    "ssh_key_passphrase_from": reference,
    "password_from": reference,
    "sudo_password_from": reference,
    "tags": _list(_text),
    "enabled": _boolean,
    "description": _text,
    "proxy_jump": _JUMPS,
    "known_hosts_file": _path,
    "host_key_checking": _one_of(*HOST_KEY_CHECKING),
    "host_key": _FINGERPRINT,
    "show": _one_of(*SHOWS),
    "default": _boolean,
}

LIMITS: Mapping[str, Check] = {
    item.name: _limit(item.name, like=item.name) for item in fields(Limits)
}

# Keys with a value; the tables `defaults`, `limits` and `hosts` stand beside them.
ROOT: Mapping[str, Check] = {
    "default_host": _TARGET,
    "allowed_hosts": _hosts_allowed,
    "log_level": _one_of(*LOG_LEVELS),
    "forward_wildcard": _boolean,
    "local_roots": _list(_path),
}
TABLES = ("defaults", "limits", "hosts")

# The first of each pair must not exceed the second.
ORDERED_LIMITS = (
    ("wait_seconds", "wait_max_seconds"),
    ("segment_bytes", "spool_bytes"),
    ("spool_bytes", "spool_total_bytes"),
)

# What other programs call it, where spelling does not lead to our name.
OTHER_NAMES: Mapping[str, str] = {
    "address": "host",
    "hostname": "host",
    "identity_file": "ssh_key_path",
    "identityfile": "ssh_key_path",
    "key": "ssh_key_path",
    "jump": "proxy_jump",
    "server": "hosts",
    "servers": "hosts",
    "username": "user",
    "strict_host_key_checking": "host_key_checking",
    "timeout": "timeout_seconds",
}

# A key of ours never asks for a secret; one that sounds like it gets its own answer.
SECRET_KEY = re.compile(
    r"pass(?:word|wd|phrase)(?!_env|_from)|private_?key$|api_?key$"
    r"|(?:^|_)(?:secret|credential|token)s?$"
)

# Longer lists of known keys are no help in a message.
LISTED_KEYS = 20
