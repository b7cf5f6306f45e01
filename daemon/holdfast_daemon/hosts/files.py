"""The user's ssh configuration as files: which ones there are and what they name."""

from __future__ import annotations

import glob
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from holdfast_daemon.hosts.line import split
from holdfast_daemon.hosts.tokens import home

SYSTEM = Path("/etc/ssh/ssh_config")
_DEEPEST = 16
_PATTERN = frozenset("*?!")


class Alias(NamedTuple):
    """A concrete name of a `Host` line, with what its own block says plainly."""

    name: str
    hostname: str
    user: str
    port: str


Stamp = tuple[str, int, int, int]


@dataclass(frozen=True, slots=True)
class _Read:
    """One file as read: its state, what it includes, its names; or why it was not."""

    stamp: Stamp
    includes: tuple[str, ...] = ()
    aliases: tuple[Alias, ...] = ()
    trouble: str = ""


class ConfigFiles:
    """The configuration and everything it includes, read again only when it changed.

    All methods look at the disk: call them in threads, several at once if need be.
    """

    def __init__(self, config_file: Path | None) -> None:
        self._config_file = config_file
        self._known: dict[str, _Read] = {}
        self._lock = threading.Lock()

    @property
    def roots(self) -> list[Path]:
        """Where reading starts, the user's own file first."""
        if self._config_file is None:
            return [Path(home(), ".ssh", "config"), SYSTEM]
        return [self._config_file]

    def signature(self) -> tuple[Stamp, ...]:
        """Return what changes when any file, or the set of files, changes."""
        return tuple(item.stamp for item in self._walk())

    def aliases(self) -> list[Alias]:
        """Return the concrete names, in order and each once."""
        found: dict[str, Alias] = {}
        for item in self._walk():
            for alias in item.aliases:
                found.setdefault(alias.name, alias)
        return list(found.values())

    def troubles(self) -> list[str]:
        """Return which files are there and can't be read, each with the reason."""
        return [item.trouble for item in self._walk() if item.trouble]

    def _walk(self) -> list[_Read]:
        found: list[_Read] = []
        with self._lock:
            for root in self.roots:
                base = root.parent if root == SYSTEM else Path(home(), ".ssh")
                self._visit(root, base, found, 0)
            kept = {item.stamp[0] for item in found}
            known = self._known
            self._known = {path: known[path] for path in kept if path in known}
        return found

    def _visit(self, path: Path, base: Path, found: list[_Read], depth: int) -> None:
        item = self._read(path)
        found.append(item)
        if depth >= _DEEPEST:
            return
        for pattern in item.includes:
            place = Path(pattern).expanduser()
            full = str(place if place.is_absolute() else base / place)
            for name in sorted(glob.glob(full)):  # noqa: PTH207  ssh's own glob rules
                self._visit(Path(name), base, found, depth + 1)

    def _read(self, path: Path) -> _Read:
        try:
            state = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return _Read((str(path), 0, 0, 0))
        except OSError as error:
            return _unread((str(path), 0, 0, 0), error)
        stamp = (str(path), state.st_mtime_ns, state.st_size, state.st_ino)
        known = self._known.get(str(path))
        if known is not None and known.stamp == stamp:
            return known
        try:
            text = path.read_text("utf-8", "replace")
        except OSError as error:
            # who may read it can change without its stamp
            return _unread(stamp, error)
        item = _scan(stamp, text)
        self._known[str(path)] = item
        return item


def _unread(stamp: Stamp, error: OSError) -> _Read:
    path = stamp[0].encode("utf-8", "replace").decode()
    return _Read(stamp, trouble=f"{path} can't be read: {error.strerror or error}")


def _scan(stamp: Stamp, text: str) -> _Read:
    includes: list[str] = []
    aliases: list[Alias] = []
    names: list[str] = []
    said: dict[str, str] = {}

    def close() -> None:
        aliases.extend(
            Alias(
                name,
                said.get("hostname", name),
                said.get("user", ""),
                said.get("port", ""),
            )
            for name in names
        )
        names.clear()
        said.clear()

    for line in text.splitlines():
        keyword, values = _split(line)
        if keyword == "include":
            includes += values
        elif keyword in ("host", "match"):
            close()
            if keyword == "host":
                names += [name for name in values if not _PATTERN & set(name)]
        elif keyword in ("hostname", "user", "port") and values:
            said.setdefault(keyword, values[0])
    close()
    return _Read(stamp, tuple(includes), tuple(aliases))


def _split(line: str) -> tuple[str, list[str]]:
    """Take a line apart; ssh itself tells what is wrong with one."""
    try:
        return split(line)
    except ValueError:
        return "", []
