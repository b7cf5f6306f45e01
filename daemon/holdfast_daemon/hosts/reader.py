"""Reads ssh configuration where there is no ssh to ask: the same answers, or none.

What only ssh can do (programs and networks in `Match`, canonical names, lists relative
to its own defaults) is refused by name where it applies. Blocks; runs nothing.
"""

from __future__ import annotations

import fnmatch
import glob
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.hosts.files import SYSTEM
from holdfast_daemon.hosts.line import split
from holdfast_daemon.hosts.meaning import MEANINGS
from holdfast_daemon.hosts.tokens import home, me

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_DEEPEST = 16
_SIMPLE = frozenset({"host", "originalhost", "user", "localuser", "tagged"})
_APPENDED = frozenset(
    {"certificatefile", "dynamicforward", "identityfile", "localforward"}
    | {"remoteforward"}
)
_ALGORITHMS = frozenset(
    {"casignaturealgorithms", "ciphers", "hostbasedacceptedalgorithms"}
    | {"hostkeyalgorithms", "kexalgorithms", "macs", "pubkeyacceptedalgorithms"}
)
_OLD_NAMES = {
    "challengeresponseauthentication": "kbdinteractiveauthentication",
    "dsaauthentication": "pubkeyauthentication",
    "hostbasedkeytypes": "hostbasedacceptedalgorithms",
    "keepalive": "tcpkeepalive",
    "pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms",
    "skeyauthentication": "kbdinteractiveauthentication",
}
# Whichever is said first is the way.
_PROXIES = {"proxycommand": "proxyjump", "proxyjump": "proxycommand"}
_SPANS = frozenset({"connecttimeout", "serveraliveinterval"})
_NUMBERS = frozenset(
    {"connectionattempts", "port", "requiredrsasize", "serveralivecountmax"}
)
_FLAGS = frozenset(
    {"checkhostip", "compression", "hashknownhosts", "identitiesonly"}
    | {"kbdinteractiveauthentication", "passwordauthentication"}
    | {"nohostauthenticationforlocalhost", "permitlocalcommand", "tcpkeepalive"}
)
_CHOICES = {
    **dict.fromkeys(_FLAGS, frozenset({"yes", "no", "true", "false"})),
    "addressfamily": frozenset({"any", "inet", "inet6"}),
    "requesttty": frozenset({"yes", "no", "true", "false", "force", "auto"}),
    "sessiontype": frozenset({"none", "subsystem", "default"}),
    "stricthostkeychecking": frozenset(
        {"yes", "no", "true", "false", "ask", "off", "accept-new"}
    ),
}
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+)([smhdw]?)", re.IGNORECASE)
_SIZE = re.compile(r"(\d+)([kmg]?)", re.IGNORECASE)
_SIZES = {"": 0, "k": 10, "m": 20, "g": 30}


class UnreadableError(ValueError):
    """The configuration can't be followed without ssh, or is wrong; says where."""


class _Place(NamedTuple):
    path: Path
    number: int


class Reader:
    """One reading of the configuration, for one name."""

    def __init__(self, name: str) -> None:
        self.raw: dict[str, list[str]] = {}
        self._original = name
        self._host = name
        self._final = False
        self._wants_final = False
        self._active = True
        self._ignored: list[str] = []
        self._place = _Place(Path(), 0)

    def say(self, pairs: Iterable[tuple[str, str]]) -> None:
        """Take options from outside the files; what is said earlier wins."""
        self._place = _Place(Path(), 0)
        self._active = True
        for name, value in pairs:
            self._take(name.lower(), [value])

    def read(self, files: Sequence[Path]) -> None:
        """Read the files, and once more for the final pass where one is wanted.

        Raises:
            UnreadableError: They can't be followed.
        """
        self._read_all(files)
        self._check_canonical()
        if self._wants_final:
            self._final = True
            self._host = self.hostname
            self._read_all(files)

    @property
    def hostname(self) -> str:
        """Name or address to connect to, as far as was read."""
        value = self.raw.get("hostname", [self._original])[0]
        named = value.replace("%%", "\0").replace("%h", self._original)
        named = named.replace("\0", "%")
        return named if ":" in named else named.lower()

    def _read_all(self, files: Sequence[Path]) -> None:
        for path in files:
            self._active = True
            base = path.parent if path == SYSTEM else Path(home(), ".ssh")
            if path.exists():
                self._read(path, base, 0)

    def _read(self, path: Path, base: Path, depth: int) -> None:
        if depth > _DEEPEST:
            raise self._wrong("too many files include each other")
        try:
            text = path.read_text("utf-8", "replace")
        except OSError as error:
            raise self._wrong(f"{path} can't be read: {error.strerror}") from None
        for number, line in enumerate(text.split("\n"), 1):
            self._place = _Place(path, number)
            try:
                keyword, words = split(line)
            except ValueError as error:
                raise self._wrong(str(error)) from None
            if keyword == "include":
                self._include(words, base, depth)
            elif keyword:
                self._line(keyword, words)

    def _include(self, patterns: Sequence[str], base: Path, depth: int) -> None:
        place, active = self._place, self._active
        if not active:
            return
        for pattern in patterns:
            if "%" in pattern or "${" in pattern:
                raise self._wrong(f"Include {pattern} has tokens, which need ssh")
            place_of = Path(pattern).expanduser()
            full = str(place_of if place_of.is_absolute() else base / place_of)
            for name in sorted(glob.glob(full)):  # noqa: PTH207  ssh's own glob rules
                self._read(Path(name), base, depth + 1)
                self._active = active
        self._place = place

    def _line(self, keyword: str, words: list[str]) -> None:
        if not words:
            raise self._wrong(f"{keyword} has no value")
        if keyword == "host":
            self._active = self._host_matches(words)
        elif keyword == "match":
            self._active = self._match(words)
        elif self._active:
            self._take(keyword, words)

    # blocks

    def _host_matches(self, patterns: Sequence[str]) -> bool:
        found = False
        for pattern in patterns:
            if _matches(self._host, pattern.removeprefix("!")):
                if pattern.startswith("!"):
                    return False
                found = True
        return found

    def _match(self, words: list[str]) -> bool:
        left = [part for word in words for part in _criterion(word)]
        result = True
        while left:
            word = left.pop(0)
            name = word.lower().removeprefix("!")
            negated = word.startswith("!")
            if name == "all":
                holds = True
            elif name == "canonical":
                holds = False
            elif name == "final":
                self._wants_final = True
                holds = self._final
            elif not left:
                raise self._wrong(f"Match {name} has no value")
            else:
                patterns = left.pop(0)
                holds = result and self._holds(name, patterns)
            result = result and holds is not negated
        return result

    def _holds(self, name: str, patterns: str) -> bool:
        """Whether one criterion holds; asked only where all before it do."""
        if name not in _SIMPLE:
            raise self._wrong(f"`Match {name}` needs ssh")
        user = self.raw.get("user", [me().name])[0]
        value = {
            "host": self.hostname if "hostname" in self.raw else self._host,
            "originalhost": self._original,
            "user": user,
            "localuser": me().name,
            "tagged": self.raw.get("tag", [""])[0],
        }[name]
        if name == "host":
            patterns, value = patterns.lower(), value.lower()
        found = False
        for pattern in patterns.split(","):
            if _matches(value, pattern.removeprefix("!")):
                if pattern.startswith("!"):
                    return False
                found = True
        return found

    # options

    def _take(self, keyword: str, words: list[str]) -> None:
        name = _OLD_NAMES.get(keyword, keyword)
        if name == "ignoreunknown":
            self._ignored += words[0].split(",")
        if name not in MEANINGS:
            if any(_matches(name, pattern.lower()) for pattern in self._ignored):
                return
            raise self._wrong(f"{keyword} is not known here")
        if name == "sendenv":
            self._send(words)
        elif name in _APPENDED:
            values = self.raw.setdefault(name, [])
            value = " ".join(words)
            if value not in values:
                values.append(value)
        elif name not in self.raw and _PROXIES.get(name, "") not in self.raw:
            self.raw[name] = self._values(name, words)

    def _values(self, name: str, words: list[str]) -> list[str]:
        value = " ".join(words)
        if name == "setenv":
            return list(words)
        if name in _ALGORITHMS and value[:1] in ("+", "-", "^"):
            raise self._wrong(f"{name} {value} changes ssh's own list, and needs ssh")
        if name in _CHOICES and value.lower() not in _CHOICES[name]:
            raise self._wrong(f"{name} can't be {value!r}")
        if name in _NUMBERS and not value.isdigit():
            raise self._wrong(f"{name} is no number: {value!r}")
        if name in _SPANS and value.lower() != "none":
            return [str(self._span(value))]
        if name == "rekeylimit":
            size = words[0].lower()
            seconds = words[1] if len(words) > 1 else "none"
            later = 0 if seconds.lower() == "none" else self._span(seconds)
            return [f"{0 if size == 'default' else self._size(size)} {later}"]
        return [value]

    def _send(self, words: Sequence[str]) -> None:
        patterns = self.raw.setdefault("sendenv", [])
        for word in words:
            if word.startswith("-"):
                patterns[:] = [p for p in patterns if not _matches(p, word[1:])]
            elif word not in patterns:
                patterns.append(word)

    def _span(self, text: str) -> int:
        parts = _SPAN.findall(text)
        if not text or "".join(a + b for a, b in parts) != text:
            raise self._wrong(f"{text!r} is no span of time")
        return sum(int(number) * _UNITS[unit.lower()] for number, unit in parts)

    def _size(self, text: str) -> int:
        found = _SIZE.fullmatch(text)
        if found is None:
            raise self._wrong(f"{text!r} is no amount of data")
        return int(found[1]) << _SIZES[found[2].lower()]

    def _check_canonical(self) -> None:
        value = self.raw.get("canonicalizehostname", ["no"])[0]
        if value.lower() not in ("no", "false", "none"):
            raise UnreadableError(f"CanonicalizeHostname {value} needs ssh")

    def _wrong(self, what: str) -> UnreadableError:
        path, number = self._place
        return UnreadableError(f"{path}, line {number}: {what}" if number else what)


def _criterion(word: str) -> list[str]:
    """Return a word of a Match line, apart where it is `name=value`."""
    name, equals, value = word.partition("=")
    if equals and name.lower().removeprefix("!") in {*_SIMPLE, "exec"}:
        return [name, value]
    return [word]


def _matches(value: str, pattern: str) -> bool:
    """Whether a pattern of ssh, in which only * and ? are special, matches."""
    return fnmatch.fnmatchcase(value, pattern.replace("[", "[[]"))
