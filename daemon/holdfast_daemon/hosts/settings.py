"""From the words `ssh -G` prints to values: lists, spans, tokens. Runs nothing.

Paths may name other users (`~name`), which the user database is asked for: whoever
reads them does so in a thread.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pwd
import re
import shlex
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from holdfast_daemon.hosts.host import Algorithms, HostKeyChecking

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Raw = dict[str, list[str]]

_TOKEN = re.compile(r"%(.)")
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_METHODS = {
    "publickey": "pubkeyauthentication",
    "keyboard-interactive": "kbdinteractiveauthentication",
    "password": "passwordauthentication",
}
_NO = frozenset({"no", "false", "off"})


class Me(NamedTuple):
    """Who runs this, as the user database and the system have it."""

    name: str
    home: str
    uid: int
    machine: str


@functools.cache
def me() -> Me:
    """Look up once who runs this: the database may be a slow directory service."""
    account = pwd.getpwuid(os.getuid())
    return Me(account.pw_name, account.pw_dir, account.pw_uid, socket.gethostname())


def home() -> str:
    """Return the home OpenSSH uses: that of the user database, not of $HOME."""
    return me().home


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
        value = self.one("proxyjump")
        return "" if value.lower() == "none" else value

    @property
    def proxy_command(self) -> str:
        """The proxy command with its tokens filled in; empty for none."""
        value = self.one("proxycommand")
        return "" if value.lower() in ("", "none") else self.tokens(value, files=False)

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
            return os.environ.get(value[1:], "")
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
        )

    def files(self, name: str) -> tuple[str, ...]:
        """Return the paths of an option that lists several."""
        value = self.one(name)
        words = shlex.split(value) if '"' in value else value.split()
        return self.paths(words)

    def paths(self, values: Sequence[str]) -> tuple[str, ...]:
        """Return `values` as paths, without "none"."""
        return tuple(self.path(value) for value in values if value.lower() != "none")

    def path(self, value: str) -> str:
        """Fill in tokens, variables and the home directory."""
        if value == "~" or value.startswith("~/"):
            value = home() + value[1:]
        else:
            value = os.path.expanduser(value)  # noqa: PTH111  ~user, and no Path needed
        return self.tokens(value, files=True)

    def tokens(self, value: str, *, files: bool) -> str:
        """Fill in what ssh leaves to whoever uses the value."""
        name, port, user = self.hostname, str(self.port), self.user
        known = {"%": "%", "h": name, "n": self.original, "p": port, "r": user}
        if files:
            mine = me()
            local = mine.machine
            jump = self.one("proxyjump")
            text = local + name + port + user
            known |= {
                "C": hashlib.sha1(text.encode()).hexdigest(),  # noqa: S324  ssh's own
                "d": mine.home,
                "i": str(mine.uid),
                "j": jump,
                "k": self.one("hostkeyalias") or self.original,
                "L": local.partition(".")[0],
                "l": local,
                "u": mine.name,
            }
            value = _VARIABLE.sub(lambda m: os.environ.get(m[1], ""), value)
        return _TOKEN.sub(lambda m: known.get(m[1], m[0]), value)

    def _allows(self, option: str) -> bool:
        return self.one(option, "yes").lower() not in _NO

    def _changed(self, name: str) -> tuple[str, ...]:
        value = self.one(name)
        plain = self.plain.get(name, [""])[0]
        if not value or value == plain:
            return ()
        return tuple(value.split(","))
