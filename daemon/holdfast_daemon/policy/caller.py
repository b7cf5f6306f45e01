"""Who calls: the person, the program, and the settings it came with. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.secrets import Secret


@dataclass(frozen=True, slots=True)
class CallerDefaults:
    """What applies when a call says nothing; from the client's own environment."""

    host: str = ""
    user: str = ""
    port: int | None = None
    password: Secret | None = field(default=None, repr=False)
    private_key: Secret | None = field(default=None, repr=False)
    timeout_seconds: float | None = None
    connect_timeout_seconds: float | None = None
    max_output_chars: int | None = None
    auth_sock: str = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """One client of one principal, as it described itself with this call.

    Attributes:
        principal: The person, told by the socket and not by the client.
        name: The program; what it says of itself is a label, never a right.
        instance: Stays the same while one editor session lasts.
        read_only: The client gave up everything but looking.
        person: It says that it is a person's own command line.
        project: Its working directory, absolute; empty: it told none.
        allowed_hosts: Names or globs; empty: no narrowing beyond the configuration.
    """

    principal: str
    name: str = "unknown"
    version: str = ""
    instance: str = ""
    pid: int = 0
    tool: str = ""
    read_only: bool = False
    person: bool = False
    project: str = ""
    allowed_hosts: tuple[str, ...] = ()
    defaults: CallerDefaults = field(default_factory=CallerDefaults)

    @property
    def label(self) -> str:
        """`name/version`, as lists and the audit log show the client."""
        return f"{self.name}/{self.version}" if self.version else self.name
