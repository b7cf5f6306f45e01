"""OpenSSH options a call may set, and those it may not in any spelling. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from holdfast_daemon.errors import InputError
from holdfast_daemon.hosts.meaning import MEANINGS, Kind
from holdfast_daemon.hosts.target import check_user

if TYPE_CHECKING:
    from collections.abc import Mapping

_FIELD = "connect.options"
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_LONGEST_VALUE = 4096

# Honoured by resolve and login; everything else is refused by name, never ignored.
ACCEPTED = {
    name.lower(): name
    for name in (
        "AddressFamily",
        "BindAddress",
        "BindInterface",
        "CASignatureAlgorithms",
        "CertificateFile",
        "Ciphers",
        "Compression",
        "ConnectTimeout",
        "ConnectionAttempts",
        "HostKeyAlgorithms",
        "IdentitiesOnly",
        "IdentityAgent",
        "IdentityFile",
        "IPQoS",
        "KbdInteractiveAuthentication",
        "KexAlgorithms",
        "MACs",
        "PasswordAuthentication",
        "Port",
        "PreferredAuthentications",
        "PubkeyAcceptedAlgorithms",
        "PubkeyAuthentication",
        "RekeyLimit",
        "RequestTTY",
        "ServerAliveCountMax",
        "ServerAliveInterval",
        "TCPKeepAlive",
        "User",
    )
}

_RUNS_PROGRAMS = "it runs a program on this machine"
_OPENS_PORTS = "it opens ports or tunnels; forwards have tools of their own"
_LENDS = "it lends this machine's agent, display or environment to the host"
_SELECTS = "it changes which configuration or connection is used"
_TRUST = "it would go round the check of the host's key"

# AU-08. Old names of the same options are here too: ssh still takes them.
REFUSED: dict[str, str] = {
    **dict.fromkeys(
        (
            "proxycommand",
            "localcommand",
            "permitlocalcommand",
            "knownhostscommand",
            "pkcs11provider",
            "smartcarddevice",
            "securitykeyprovider",
            "xauthlocation",
            "enablesshkeysign",
            "proxyusefdpass",
            "remotecommand",
            "escapechar",
            "enableescapecommandline",
        ),
        _RUNS_PROGRAMS,
    ),
    **dict.fromkeys(
        (
            "localforward",
            "remoteforward",
            "dynamicforward",
            "permitremoteopen",
            "gatewayports",
            "tunnel",
            "tunneldevice",
            "streamlocalbindunlink",
            "streamlocalbindmask",
            "clearallforwardings",
            "exitonforwardfailure",
        ),
        _OPENS_PORTS,
    ),
    **dict.fromkeys(
        (
            "forwardagent",
            "addkeystoagent",
            "forwardx11",
            "forwardx11trusted",
            "forwardx11timeout",
            "sendenv",
            "gssapidelegatecredentials",
            "gssapiclientidentity",
            "gssapiserveridentity",
        ),
        _LENDS,
    ),
    **dict.fromkeys(
        (
            "include",
            "match",
            "host",
            "hostname",
            "tag",
            "controlpath",
            "controlmaster",
            "controlpersist",
            "ignoreunknown",
            "refuseconnection",
            "channeltimeout",
            "forkafterauthentication",
            "stdinnull",
            "sessiontype",
            "canonicalizehostname",
            "canonicaldomains",
            "canonicalizefallbacklocal",
            "canonicalizemaxdots",
            "canonicalizepermittedcnames",
        ),
        _SELECTS,
    ),
    **dict.fromkeys(
        (
            "hostkeyalias",
            "checkhostip",
            "nohostauthenticationforlocalhost",
            "verifyhostkeydns",
            "updatehostkeys",
            "revokedhostkeys",
            "globalknownhostsfile",
            "hostbasedauthentication",
            "hashknownhosts",
            "requiredrsasize",
        ),
        _TRUST,
    ),
}

# A call may do without what the configuration asks for.
_DONE_WITHOUT = {
    "remotecommand": ("RemoteCommand", "none"),
    "sessiontype": ("SessionType", "default"),
    "forwardagent": ("ForwardAgent", "no"),
}

_INSTEAD = {
    "stricthostkeychecking": "connect.host_key_checking",
    "userknownhostsfile": "connect.known_hosts_file",
    "proxyjump": "connect.jump",
    "setenv": "env",
}


def check(options: Mapping[str, str]) -> dict[str, str]:
    """Return `options` under OpenSSH's own spelling.

    Raises:
        InputError: One is refused, unknown or malformed; names it and the reason.
    """
    checked: dict[str, str] = {}
    for given, value in options.items():
        # what ssh itself would see in "-oName=…", " name ", "Name=" and the like
        bare = re.sub(r"\A-*o?(?=[\s=])|\A-+o", "", given.strip())
        word = re.split(r"[\s=]", bare.strip(" \t\r\n\f\v=\"'"), maxsplit=1)[0]
        name = word.lower()
        own, without = _DONE_WITHOUT.get(name, ("", ""))
        if without and given.lower() == name and value.strip().lower() == without:
            checked[own] = without
            continue
        if name in REFUSED:
            raise InputError(
                _FIELD,
                f"the option {word} is refused: {REFUSED[name]}",
                hint="a person may set it in ~/.ssh/config, where it is honoured"
                " as far as holdfast supports it",
            )
        if name in _INSTEAD:
            raise InputError(
                _FIELD,
                f"{word} has an argument of its own",
                hint=f"use {_INSTEAD[name]}",
            )
        meaning = MEANINGS.get(given.lower())
        if meaning is not None and meaning.kind is Kind.HARMLESS:
            raise InputError(
                _FIELD,
                f"the option {meaning.name} has no effect here: {meaning.text}",
                hint="leave it out",
            )
        if not _NAME.fullmatch(given) or name not in ACCEPTED:
            raise InputError(
                _FIELD,
                f"{given[:80]!r} is no option a call may set",
                hint="known are " + ", ".join(sorted(ACCEPTED.values())),
            )
        checked[ACCEPTED[name]] = _value(ACCEPTED[name], value)
    return checked


# What of them is filled in from the daemon's environment.
_PATHS = frozenset({"CertificateFile", "IdentityAgent", "IdentityFile"})


def _value(name: str, value: str) -> str:
    if not value.strip():
        raise InputError(_FIELD, f"the option {name} has no value")
    if len(value) > _LONGEST_VALUE or not value.isprintable():
        raise InputError(
            _FIELD, f"the value of {name} is too long or has control characters"
        )
    if name == "User":
        check_user(value, _FIELD)
    if name in _PATHS and "$" in value:
        raise InputError(
            _FIELD,
            f"{name} of a call names no variable: the daemon's are not the caller's",
            hint="write the path out; a person may name variables in ~/.ssh/config",
        )
    return value
