"""What a client's MCP configuration may set by environment (contract, section 3).

A wrong value never stops the program: it is kept as a problem and told with each call,
because people see a failing tool but not the stderr of a dead server.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.v1 import common_pb2
from holdfast_shim import errors

if TYPE_CHECKING:
    from collections.abc import Mapping

# A call's metadata may take 64 KiB, and base64 adds a third.
_KEY_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The environment's settings; empty or None where nothing is set."""

    default_host: str = ""
    default_user: str = ""
    default_port: int | None = None
    default_password: str = field(default="", repr=False)
    private_key: str = field(default="", repr=False)
    timeout_seconds: float | None = None
    connect_timeout_seconds: float | None = None
    allowed_hosts: tuple[str, ...] = ()
    max_output_chars: int | None = None
    auth_sock: str = ""
    token: str = field(default="", repr=False)
    instance: str = ""
    problem: errors.CallError | None = None

    @classmethod
    def read(cls, env: Mapping[str, str]) -> Settings:
        """Return the settings in `env`."""
        values = _Values(env)
        settings = cls(
            default_host=values.text("SSH_DEFAULT_HOST"),
            default_user=values.text("SSH_DEFAULT_USER"),
            default_port=values.integer("SSH_DEFAULT_PORT", 1, 65535),
            default_password=values.text("SSH_DEFAULT_PASSWORD", strip=False),
            private_key=values.key("SSH_PRIVATE_KEY"),
            timeout_seconds=values.number("SSH_DEFAULT_TIMEOUT_SEC", 0, 31_536_000),
            connect_timeout_seconds=values.number("SSH_CONNECT_TIMEOUT_SEC", 0.1, 600),
            allowed_hosts=values.names("SSH_ALLOWED_HOSTS"),
            max_output_chars=values.integer("SSH_MAX_OUTPUT_CHARS", 0, 1_000_000),
            auth_sock=values.text("SSH_AUTH_SOCK"),
            token=values.text("MCP_TOKEN"),
            instance=values.text("CLAUDE_CODE_SESSION_ID") or os.urandom(8).hex(),
            problem=values.problem,
        )
        values.forget()
        return settings

    def context(
        self,
        name: str,
        version: str,
        *,
        read_only: bool = False,
        person: bool = False,
        max_output_chars: int | None = None,
    ) -> common_pb2.ClientContext:
        """Return what the daemon is told about client `name` with each call.

        `person`: it is a person's own command line. `max_output_chars` applies where
        the environment sets none.
        """
        context = common_pb2.ClientContext(
            name=name,
            version=version,
            instance=self.instance,
            pid=os.getpid(),
            read_only=read_only,
            person=person,
            allowed_hosts=self.allowed_hosts,
            default_host=self.default_host,
            default_user=self.default_user,
            default_password=self.default_password,
            private_key=self.private_key,
            auth_sock=self.auth_sock,
            token=self.token,
            project=_directory(),
        )
        if self.default_port is not None:
            context.default_port = self.default_port
        if self.timeout_seconds is not None:
            context.timeout_seconds = self.timeout_seconds
        if self.connect_timeout_seconds is not None:
            context.connect_timeout_seconds = self.connect_timeout_seconds
        budget = self.max_output_chars
        budget = max_output_chars if budget is None else budget
        if budget is not None:
            context.max_output_chars = budget
        return context


def _directory() -> str:
    """Return the working directory; empty: it is gone, or no text could tell it."""
    try:
        found = os.getcwd()  # noqa: PTH109  as it is, without another object
        found.encode()
    except (OSError, UnicodeEncodeError):
        return ""
    return found


class _Values:
    """Reads typed values and remembers the first one that is wrong."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.problem: errors.CallError | None = None

    def forget(self) -> None:
        """Drop the environment, which holds secrets."""
        self._env = {}

    def _wrong(self, name: str, message: str) -> None:
        if self.problem is None:
            self.problem = errors.invalid(
                name,
                f"the environment variable {name} {message}",
                hint=f"correct {name} in the MCP client's configuration and restart it",
            )

    def text(self, name: str, *, strip: bool = True) -> str:
        value = self._env.get(name, "")
        try:
            value.encode()
        except UnicodeEncodeError:
            self._wrong(name, "is not valid UTF-8")
            return ""
        return value.strip() if strip else value

    def key(self, name: str) -> str:
        # JSON configurations often carry the line ends of a key as two characters.
        value = self.text(name).replace("\\n", "\n").replace("\r\n", "\n")
        if len(value) > _KEY_BYTES:
            self._wrong(name, f"holds more than {_KEY_BYTES:,} bytes")
            return ""
        return value + "\n" if value else ""

    def number(self, name: str, low: float, high: float) -> float | None:
        text = self.text(name)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            self._wrong(name, f"must be a number from {low:g} to {high:.10g}")
            return None
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        text = self.text(name)
        if not text:
            return None
        if not (text.isascii() and text.isdigit() and low <= int(text[:12]) <= high):
            self._wrong(name, f"must be a whole number from {low} to {high:,}")
            return None
        return int(text[:12])

    def names(self, name: str) -> tuple[str, ...]:
        text = self.text(name)
        names = tuple(filter(None, (part.strip() for part in text.split(","))))
        if text and not names:
            # An empty list would mean "all hosts", the opposite of what was meant.
            self._wrong(name, "names no host")
        return names
