"""The configuration: what `config.toml` says, and what it says once it has changed.

Knows the file and its shape; what a value means is for those who use it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from holdfast_daemon import schema
from holdfast_daemon.clock import beat
from holdfast_daemon.config_file import ConfigError, Document, mark, read
from holdfast_daemon.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from holdfast_daemon.config_file import Mark

    # what was found, the state of the file, and when reading began
    _Attempt = tuple["Config | ConfigError", Mark, int]

    Subscriber = Callable[["Config", "Config"], None]

_log = logging.getLogger(__name__)

# File systems tell time in ticks; a second edit within one looks like the first.
_TICK_NANOSECONDS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a call takes that says nothing itself; None: the built-in default."""

    user: str | None = None
    port: int | None = None
    timeout_seconds: float | None = None
    connect_timeout_seconds: float | None = None
    max_output_chars: int | None = None
    host_key_checking: str | None = None
    ssh_options_ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostEntry:
    """One `[hosts.NAME]`; None: as OpenSSH's own configuration says."""

    name: str
    host: str
    port: int | None = None
    user: str | None = None
    ssh_key_path: str | None = None
    ssh_key_passphrase_env: str | None = None
    ssh_key_passphrase_from: str | None = None
    password_from: str | None = None
    sudo_password_from: str | None = None
    tags: tuple[str, ...] = ()
    enabled: bool = True
    description: str = ""
    proxy_jump: str | None = None
    known_hosts_file: str | None = None
    host_key_checking: str | None = None
    host_key: str | None = None
    show: str = "all"
    default: bool = False


def _no_hosts() -> Mapping[str, HostEntry]:
    return MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A whole configuration; without a file, all defaults.

    Attributes:
        path: The file it came from; None when there is none.
        default_host: The one default target, also when a host entry is marked as such.
        allowed_hosts: Names and patterns; empty: every host.
        log_level: debug, info, warning or error.
        forward_wildcard: Forwards may listen on every address of a machine.
        local_roots: What transfers may use of this machine beside a client's project.
        defaults: What calls take that say nothing themselves.
        limits: The limits in force.
        hosts: Host entries by name, in the order of the file.
    """

    path: Path | None = None
    default_host: str | None = None
    allowed_hosts: tuple[str, ...] = ()
    log_level: str = "info"
    forward_wildcard: bool = False
    local_roots: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    limits: Limits = field(default_factory=Limits)
    hosts: Mapping[str, HostEntry] = field(default_factory=_no_hosts)


def load(path: Path | None) -> Config:
    """Return what the file says; no file, no mistake.

    Raises:
        ConfigError: the file can't be read, is not safe, or has a mistake.
    """
    return _load(path)[0]


def _load(path: Path | None) -> tuple[Config, Mark]:
    found = None if path is None else read(path)
    if path is None or found is None:
        return Config(), None
    return _config(Document(path, found.content)), found.mark


def _config(document: Document) -> Config:
    tables = {name: document.table(name) for name in schema.TABLES}
    values = document.values((), schema.ROOT, besides=schema.TABLES)
    defaults: Any = document.values(("defaults",), schema.DEFAULTS)
    hosts = {name: _host(document, name) for name in tables["hosts"]}
    named: str | None = values.pop("default_host", None)
    return Config(
        path=document.path,
        default_host=_default_host(document, named, hosts),
        defaults=Defaults(**defaults),
        limits=_limits(document),
        hosts=MappingProxyType(hosts),
        **values,
    )


def _host(document: Document, name: str) -> HostEntry:
    try:
        schema.HOST_NAME(name)
    except schema.Wrong as wrong:
        raise document.mistake(
            ("hosts", name),
            f"{wrong}; it is used as a target",
            "Put user, host and port into keys of the entry.",
        ) from None
    values: dict[str, Any] = {"host": name}
    values |= document.values(("hosts", name), schema.HOST)
    return HostEntry(name=name, **values)


def _limits(document: Document) -> Limits:
    values: Any = document.values(("limits",), schema.LIMITS)
    limits = replace(Limits(), **values)
    for small, large in schema.ORDERED_LIMITS:
        low, high = getattr(limits, small), getattr(limits, large)
        if low > high:
            key = small if small in values else large
            raise document.mistake(
                ("limits", key),
                f"does not fit: {small} is {schema.figure(low)}, more than "
                f"{large}, {schema.figure(high)}",
                f"Set both {small} and {large}.",
            )
    return limits


def _default_host(
    document: Document, named: str | None, hosts: Mapping[str, HostEntry]
) -> str | None:
    for name, entry in hosts.items():
        if entry.default and named not in (None, name):
            raise document.mistake(
                ("hosts", name, "default"),
                f"can't be true, since {named} is the default host already",
                "There is one default host, or none.",
            )
        if entry.default:
            named = name
    return named


class LimitsInForce:
    """The limits of the configuration in force, looked up anew at each use."""

    def __init__(self, holder: ConfigHolder) -> None:
        self._holder = holder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._holder.current.limits, name)


class ConfigHolder:
    """The configuration in force: the newest that was good.

    Attributes:
        current: The configuration in force.
        error: Why the newest was not taken, and what to do; empty: it was.
    """

    def __init__(self, path: Path | None) -> None:
        """Read the file; a mistake at the start is raised, later ones are kept."""
        self.path = path
        self.error = ""
        self._subscribers: list[Subscriber] = []
        self._reads = 0
        self._taken = 0
        self._read_at = time.time_ns()
        self.current, self._mark = _load(path)

    @property
    def limits(self) -> Limits:
        """The limits in force; what is kept of them follows a reload."""
        return cast("Limits", LimitsInForce(self))

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Have `callback(old, new)` called at each change; return what ends it."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback)

    def reload(self) -> bool:
        """Read the file now; return whether what it says is in force.

        Blocks for the read: on the loop use `refresh`.
        """
        self._reads += 1
        return self._take(self._reads, self._attempt())

    async def refresh(self, *, asked: bool = True) -> bool:
        """Do what `reload` does, with the file read in a thread.

        Where nobody asked, a file that is empty by now is not taken: whoever writes it
        has only begun, or was kept from it.
        """
        self._reads += 1
        number = self._reads
        return self._take(
            number, await asyncio.to_thread(lambda: self._attempt(asked=asked))
        )

    async def watch(self, interval: float) -> None:
        """Look every `interval` seconds whether the file changed; never returns."""
        while True:
            await beat(interval)
            if await asyncio.to_thread(self._changed):
                await self.refresh(asked=False)

    def _attempt(self, *, asked: bool = True) -> _Attempt:
        before = time.time_ns()
        seen = self._look()
        try:
            config, seen = _load(self.path)
        except ConfigError as error:
            return error, seen, before
        if config.path is None and self.current.path is not None:
            gone = ConfigError(
                self.current.path,
                "is gone; what it said last stays in force",
                hint="Put it back, or restart the daemon to do without.",
            )
            return gone, seen, before
        emptied = seen is not None and not seen[1] and config != self.current
        if emptied and not asked and config.path is not None:
            empty = ConfigError(
                config.path,
                "is empty; what it said last stays in force",
                hint="Write it again, or take it as it is: holdfast reload.",
            )
            return empty, seen, before
        return config, seen, before

    def _take(self, number: int, result: _Attempt) -> bool:
        if number < self._taken:  # a later read was faster
            return not self.error
        self._taken = number
        found, self._mark, self._read_at = result
        if isinstance(found, ConfigError):
            error = f"{found.message} {found.hint}".rstrip()
            if error != self.error:
                _log.error("configuration not taken: %s", error)
            self.error = error
            return False
        self.error = ""
        old, self.current = self.current, found
        if old != found:
            _log.info("configuration taken: %s", found.path or "no file")
            self._tell(old, found)
        return True

    def _tell(self, old: Config, new: Config) -> None:
        for callback in tuple(self._subscribers):
            try:
                callback(old, new)
            except Exception:  # noqa: BLE001 - it must not keep the news from the others
                _log.exception("a subscriber of the configuration failed")

    def _changed(self) -> bool:
        """Return whether the file is another one, or may have changed unnoticed."""
        seen = self._look()
        if seen != self._mark:
            return True
        return seen is not None and seen[0] > self._read_at - _TICK_NANOSECONDS

    def _look(self) -> Mark:
        if self.path is None:
            return None
        try:
            return mark(self.path.stat())
        except OSError:
            return None


__all__ = ["Config", "ConfigError", "ConfigHolder", "Defaults", "HostEntry", "load"]
