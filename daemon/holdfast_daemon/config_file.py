"""One configuration file: is it safe, is it TOML, and where in it is the mistake.

Knows files, lines and keys; not what a configuration is made of.
"""

from __future__ import annotations

import difflib
import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from holdfast_daemon import schema
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.toml_lines import Lines

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    KeyPath = tuple[str, ...]

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

# What tells one state of a file from another; None: there is no file.
Mark = tuple[int, int, int, int] | None


class ConfigError(DaemonError):
    """A mistake in the configuration: which file, line and key, and what to do."""

    def __init__(
        self, file: Path, message: str, *, line: int = 0, key: str = "", hint: str = ""
    ) -> None:
        place = f"{file}:{line}" if line else str(file)
        super().__init__(
            Reason.BAD_CONFIGURATION,
            f"{place}: {key} {message}." if key else f"{place}: {message}.",
            hint=hint,
            metadata={"file": str(file), "line": str(line or ""), "key": key},
        )
        self.file = file
        self.line = line
        self.key = key


class Found(NamedTuple):
    """A file's content and the state it was in."""

    content: bytes
    mark: Mark


def mark(found: os.stat_result) -> Mark:
    """Return what changes when the file does."""
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def read(path: Path) -> Found | None:
    """Return the content of `path`, None when there is no such file.

    Raises:
        ConfigError: it can't be read, or others could have written it.
    """
    try:
        # not to be held up by a FIFO that somebody put there
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        _check_safe(path, found)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return Found(file.read(), mark(found))
    except OSError as error:
        raise ConfigError(path, f"can't be read: {error.strerror}") from error
    finally:
        os.close(descriptor)


def _check_safe(path: Path, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise ConfigError(path, "is not a regular file")
    if found.st_uid not in (0, os.geteuid()):
        raise ConfigError(
            path,
            f"belongs to user {found.st_uid}, who could allow anything in it",
            hint=f"Look at it, then: chown {os.geteuid()} {path}",
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise ConfigError(
            path,
            f"can be written by others (mode {stat.S_IMODE(found.st_mode):04o})",
            hint=f"Look at it, then: chmod go-w {path}",
        )


class Document:
    """The content of one file, parsed, with its tables handed out checked."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        try:
            self._source = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise ConfigError(path, "is not UTF-8 text", line=line) from error
        try:
            self._tables: dict[str, Any] = tomllib.loads(self._source)
        except RecursionError as error:
            raise ConfigError(path, "is nested too deeply") from error
        except ValueError as error:
            raise self._not_toml(str(error)) from error

    def _not_toml(self, what: str) -> ConfigError:
        line = 0
        if place := _PLACE.search(what):
            what = what[: place.start()]
            line = int(place[1] or self._source.rstrip().count("\n") + 1)
        return ConfigError(
            self.path,
            f"is not valid TOML: {what[:1].lower()}{what[1:]}",
            line=line,
            hint="Texts stand in quotes, tables in [brackets]: see https://toml.io",
        )

    def table(self, *path: str) -> dict[str, Any]:
        """Return the table at `path`; empty when there is none."""
        value: Any = self._tables
        for depth, part in enumerate(path, 1):
            value = value.get(part, {})
            if not isinstance(value, dict):
                raise self.mistake(
                    path[:depth],
                    f"must be a table, not {schema.kind(value)}",
                    f"Write it as [{_dotted(path[:depth])}], its keys below.",
                )
        return cast("dict[str, Any]", value)

    def values(
        self,
        path: KeyPath,
        checks: Mapping[str, schema.Check],
        *,
        besides: Iterable[str] = (),
    ) -> dict[str, Any]:
        """Return the checked values of the table at `path`; other keys are mistakes.

        Args:
            path: The table.
            checks: Its keys.
            besides: Keys that are known and left out.
        """
        known = (*checks, *besides)
        table = self.table(*path)
        for key in table:
            if key not in known:
                raise self._unknown((*path, key), known)
        values: dict[str, Any] = {}
        for key, check in checks.items():
            if key in table:
                try:
                    values[key] = check(table[key])
                except schema.Wrong as wrong:
                    hint = wrong.hint or _nearest_value(str(wrong), table[key])
                    raise self.mistake((*path, key), str(wrong), hint) from None
        return values

    def mistake(self, path: KeyPath, message: str, hint: str) -> ConfigError:
        """Return the error for the key `path`, with its line."""
        line = Lines(self._source).of(path)
        return ConfigError(self.path, message, line=line, key=_dotted(path), hint=hint)

    def _unknown(self, path: KeyPath, known: tuple[str, ...]) -> ConfigError:
        key = path[-1].lower().replace("-", "_")
        if schema.SECRET_KEY.search(key):
            return self.mistake(
                path,
                "looks like a secret, and secrets don't belong in this file",
                "Use ssh-agent, or name what holds it (keyring:NAME, env:NAME or "
                "file:/PATH) in password_from, ssh_key_passphrase_from or "
                "sudo_password_from; change the secret.",
            )
        other = schema.OTHER_NAMES.get(key)
        near = difflib.get_close_matches(key, known, 1)
        if other in known or near:
            name = other if other in known else near[0]
            return self.mistake(path, "is not known", f"Did you mean {name}?")
        all_known = ", ".join(sorted(known))
        if len(known) > schema.LISTED_KEYS:
            all_known = "see docs/configuration.md"
        return self.mistake(path, "is not known", f"Known here: {all_known}")


def _dotted(path: KeyPath) -> str:
    return ".".join(
        part if _BARE_KEY.fullmatch(part) else f'"{ascii(part)[1:-1]}"' for part in path
    )


def _nearest_value(message: str, value: object) -> str:
    """Name the nearest of the allowed values that a message lists."""
    allowed = re.findall(r'"([^"]+)"', message)
    near = difflib.get_close_matches(str(value).lower(), allowed, 1)
    return f'Did you mean "{near[0]}"?' if near else ""
