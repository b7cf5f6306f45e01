"""From the words `ssh -G` prints to values: lists, spans, tokens. Runs nothing.

Paths may name other users (`~name`), which the user database is asked for: whoever
reads them does so in a thread.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast_daemon.hosts.host import (
    Algorithms,
    HostKeyChecking,
    RequestTty,
    SessionType,
    UpdateHostKeys,
    Wire,
)
from holdfast_daemon.hosts.tokens import Tokens, me

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

Raw = dict[str, list[str]]

_METHODS = {
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
_NO = frozenset({"no", "false", "off"})
_TTY: dict[str, RequestTty] = {"no": "no", "false": "no", "yes": "yes", "true": "yes"}
_SESSIONS: dict[str, SessionType] = {"none": "none", "subsystem": "subsystem"}
# Type of service by name, RFC 1349; DSCP classes are computed (RFC 2474, 2597, 3246).
_SERVICE = {"lowdelay": 0x10, "throughput": 0x08, "reliability": 0x04, "le": 0x04}
_CLASS = re.compile(r"af([1-4])([1-3])|cs([0-7])|(ef)")
_EXPEDITED = 46
# Left to whoever has the host's key at hand: see KnownHostsCommand in the manual.
_LATER = frozenset("fHIKt")
# Those of ProxyJump; anything else may be the zone of an address.
_JUMP_TOKEN = re.compile(r"%[%hnpr]")
# What a path that ssh prints may begin with; else it goes on after a blank.
_PATH_START = ("/", "~", "%", "${")
# Variables that are never sent: they are ours, ssh's, or the service manager's.
_OWN = (
    "HOLDFAST_",
    "SSH_",
    "MCP_",
    "NOTIFY_",
    "LISTEN_",
    "WATCHDOG_",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "CREDENTIALS_DIRECTORY",
)


def parse(text: str) -> Raw:
    """Return what `ssh -G` printed, values in order under their lower-case names."""
    raw: Raw = {}
    for line in text.splitlines():
        name, _, value = line.strip().partition(" ")
        if name:
            raw.setdefault(name.lower(), []).append(value)
    return raw


@dataclass(frozen=True, slots=True)
class Settings:
    """The resolved options of one host, beside those of ssh without any file."""

    raw: Mapping[str, Sequence[str]]
    plain: Mapping[str, Sequence[str]]
    original: str

    def one(self, name: str, default: str = "") -> str:
        """Return the first value of an option."""
        values = self.raw.get(name)
        return values[0] if values else default

    def flag(self, name: str) -> bool:
        """Whether an option is on."""
        return self.one(name, "no").lower() not in _NO

    @property
    def hostname(self) -> str:
        """Name or address to connect to."""
        return self.one("hostname", self.original)

    @property
    def port(self) -> int:
        """Port to connect to."""
        return int(self.one("port", "22"))

    @property
    def user(self) -> str:
        """Who to log in as."""
        return self.one("user") or me().name

    @property
    def jump(self) -> str:
        """Jump hosts as `ssh -J` takes them; empty for none."""
        value = self._jump
        return _JUMP_TOKEN.sub(
            lambda found: self._tokens.fill(found[0], files=False), value
        )

    @property
    def _jump(self) -> str:
        value = self.one("proxyjump")
        return "" if value.lower() == "none" else value

    @property
    def proxy_command(self) -> str:
        """The proxy command with its tokens filled in; empty for none."""
        value = self.one("proxycommand")
        return (
            ""
            if value.lower() in ("", "none")
            else self._tokens.fill(value, files=False)
        )

    @property
    def known_hosts_command(self) -> str:
        """KnownHostsCommand, but for what only the host's key tells; empty for none."""
        value = self.one("knownhostscommand")
        if value.lower() in ("", "none"):
            return ""
        return self._tokens.fill(value, files=True, later=_LATER)

    @property
    def local_command(self) -> str:
        """What runs on this machine after the login; empty for none."""
        value = self.one("localcommand")
        if value.lower() in ("", "none") or not self.flag("permitlocalcommand"):
            return ""
        return self._tokens.fill(value, files=True)

    @property
    def remote_command(self) -> str:
        """What runs instead of a shell; empty for none. Used in messages only."""
        value = self.one("remotecommand")
        return "" if value.lower() == "none" else value

    @property
    def control_path(self) -> str:
        """Socket of a master connection of the person's own; empty for none."""
        value = self.one("controlpath")
        return value if value.startswith("/") else ""

    @property
    def session_type(self) -> SessionType:
        """What a session is."""
        return _SESSIONS.get(self.one("sessiontype").lower(), "default")

    @property
    def request_tty(self) -> RequestTty:
        """When commands get a terminal."""
        value = self.one("requesttty").lower()
        return "force" if value == "force" else _TTY.get(value, "auto")

    @property
    def update_host_keys(self) -> UpdateHostKeys:
        """Whether further keys of a known host are learnt."""
        value = self.one("updatehostkeys").lower()
        if value == "ask":
            return "ask"
        return "yes" if value in ("yes", "true") else "no"

    @property
    def forward_agent(self) -> str:
        """The agent to lend: "yes" for the one in use, a socket, or empty."""
        value = self.one("forwardagent", "no")
        if value.lower() in ("yes", "true"):
            return "yes"
        if value.lower() in (*_NO, "none"):
            return ""
        if value.startswith("$") and not value.startswith("${"):
            return os.environ.get(value[1:], "")
        return self.path(value)

    @property
    def wire(self) -> Wire:
        """How the TCP connection is made and kept."""
        size, _, seconds = self.one("rekeylimit", "0 0").partition(" ")
        return Wire(
            attempts=max(1, int(self.one("connectionattempts", "1"))),
            bind_interface=self.one("bindinterface"),
            tcp_keepalive=self.one("tcpkeepalive", "yes").lower() not in _NO,
            qos=self._service(),
            rekey_bytes=int(size) if size.isdigit() else 0,
            rekey_seconds=int(seconds) if seconds.isdigit() else 0,
        )

    def environment(
        self, environ: Mapping[str, str], secret: Iterable[str]
    ) -> tuple[tuple[str, str], ...]:
        """Return the variables to send: SetEnv's, and those SendEnv picks of `environ`.

        Variables named in `secret` are not picked, nor holdfast's and ssh's own.
        """
        kept = frozenset(secret)
        patterns = [p for value in self.raw.get("sendenv", ()) for p in value.split()]
        found = {
            name: value
            for name, value in environ.items()
            if any(fnmatch.fnmatchcase(name, _literal(p)) for p in patterns)
            and name not in kept
            and not name.startswith(_OWN)
        }
        chosen: dict[str, str] = {}
        for item in self.raw.get("setenv", ()):
            name, _, value = item.partition("=")
            chosen.setdefault(name, value)
        return tuple((found | chosen).items())

    def _service(self) -> int | None:
        """Return the type of service that commands get; None: the system's own."""
        values = self.raw.get("ipqos")
        if not values or list(values) == list(self.plain.get("ipqos", ())):
            return None
        word = values[0].split()[-1].lower()
        if word in _SERVICE:
            return _SERVICE[word]
        found = _CLASS.fullmatch(word)
        if found is None:
            return int(word, 0) if word[:1].isdigit() else None
        if found[4]:
            return _EXPEDITED << 2
        major = int(found[1] or found[3])
        return (major << 5) | (int(found[2]) << 3 if found[2] else 0)

    @property
    def identity_files(self) -> tuple[str, ...]:
        """Paths of private keys, in order."""
        return self.paths(self.raw.get("identityfile", ()))

    @property
    def certificate_files(self) -> tuple[str, ...]:
        """Paths of certificates, in order."""
        return self.paths(self.raw.get("certificatefile", ()))

    @property
    def identity_agent(self) -> str:
        """Socket of an agent, "none", or empty where nothing is said."""
        value = self.one("identityagent")
        if value in ("", "none"):
            return value
        if value == "SSH_AUTH_SOCK":
            return ""
        if value.startswith("$") and not value.startswith("${"):
            # one that is not set is no agent, as with ssh, and no other one either
            return os.environ.get(value[1:], "") or value
        return self.path(value)

    @property
    def host_key_checking(self) -> HostKeyChecking | None:
        """What the user's files say; None when they leave it at asking."""
        value = self.one("stricthostkeychecking").lower()
        if value == "accept-new":
            return "accept-new"
        if value in _NO:
            return "no"
        return "yes" if value in ("yes", "true") else None

    @property
    def connect_timeout(self) -> float | None:
        """Seconds, or None where nothing is said."""
        value = self.one("connecttimeout", "none")
        return float(value) if value.isdigit() and int(value) else None

    @property
    def keepalive(self) -> tuple[float | None, int | None]:
        """Seconds and misses; None where they are left at ssh's own."""
        interval = int(self.one("serveraliveinterval", "0"))
        if not interval:
            return None, None
        return float(interval), int(self.one("serveralivecountmax", "3"))

    @property
    def address_family(self) -> Literal["any", "inet", "inet6"]:
        """Which addresses may be used."""
        value = self.one("addressfamily", "any")
        if value == "inet":
            return "inet"
        return "inet6" if value == "inet6" else "any"

    @property
    def methods(self) -> tuple[str, ...]:
        """Ways to log in, best first; empty where they are left at ssh's own."""
        allowed = [name for name, option in _METHODS.items() if self._allows(option)]
        preferred = self.one("preferredauthentications")
        if preferred:
            allowed = [name for name in preferred.split(",") if name in allowed]
        elif len(allowed) == len(_METHODS):
            return ()
        return tuple(allowed) or ("none",)

    @property
    def algorithms(self) -> Algorithms:
        """The lists the user's files changed."""
        return Algorithms(
            key_exchange=self._changed("kexalgorithms"),
            ciphers=self._changed("ciphers"),
            macs=self._changed("macs"),
            host_keys=self._changed("hostkeyalgorithms"),
            signatures=self._changed("pubkeyacceptedalgorithms"),
            authorities=self._changed("casignaturealgorithms"),
        )

    def files(self, name: str) -> tuple[str, ...]:
        """Return the paths of an option that lists several.

        ssh prints them without quotes: what can't begin a path goes on with the one
        before.
        """
        value = self.one(name)
        words = shlex.split(value) if '"' in value else value.split(" ")
        paths: list[str] = []
        for word in words:
            if paths and '"' not in value and not word.startswith(_PATH_START):
                paths[-1] += f" {word}"
            else:
                paths.append(word)
        return self.paths(paths)

    def paths(self, values: Sequence[str]) -> tuple[str, ...]:
        """Return `values` as paths, without "none"."""
        return tuple(
            self.path(value) for value in values if value.lower() not in ("", "none")
        )

    def path(self, value: str) -> str:
        """Fill in tokens, variables and the home directory."""
        return self._tokens.path(value)

    @property
    def _tokens(self) -> Tokens:
        return Tokens(
            self.hostname,
            self.original,
            str(self.port),
            self.user,
            self.one("hostkeyalias"),
            self._jump,
        )

    def _allows(self, option: str) -> bool:
        return self.one(option, "yes").lower() not in _NO

    def _changed(self, name: str) -> tuple[str, ...]:
        value = self.one(name)
        plain = self.plain.get(name, [""])[0]
        if not value or value == plain:
            return ()
        return tuple(value.split(","))


def _literal(pattern: str) -> str:
    """Return a pattern of ssh for fnmatch: only * and ? are special."""
    return pattern.replace("[", "[[]")
