"""What the command line needs of a service manager, whichever it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_shim.service.plan import Plan


@dataclass(slots=True)
class State:
    """How the service stands.

    Attributes:
        installed: Its file is there.
        enabled: It starts with the next login.
        active: As the manager says: active, inactive, failed, activating, …
        pid: Its process; 0: none.
        restarts: How often the manager had to start it again.
        told: The manager's one line about it.
        lingers: It outlives the last logout; None: no matter here.
        agent: The SSH agent's socket that a service starts with; empty: none.
    """

    installed: bool
    enabled: bool = False
    active: str = "inactive"
    pid: int = 0
    restarts: int = 0
    told: str = ""
    lingers: bool | None = None
    agent: str = ""
    notes: list[str] = field(default_factory=list[str])


class Service(Protocol):
    """The user's manager of services. Every method blocks and may raise CallError."""

    kind: str

    @property
    def path(self) -> Path:
        """Where our file lies."""
        ...

    @property
    def socket(self) -> Path:
        """Where the service listens, or the daemon that clients started."""
        ...

    def check(self) -> None:
        """Raise unless there is a manager that answers."""
        ...

    def text(self, plan: Plan) -> str:
        """Return what `write` would write."""
        ...

    def environment(self) -> dict[str, str]:
        """Return the variables that the file in place gives the daemon."""
        ...

    def write(self, plan: Plan) -> bool:
        """Put the file in place and have the manager read it; return if it changed."""
        ...

    def agent(self) -> str:
        """Tell the manager of the SSH agent; return what was done, in a sentence."""
        ...

    def start(self) -> None:
        """Enable and start it; return when it is ready."""
        ...

    def restart(self) -> None:
        """End it, start it; return when it is ready."""
        ...

    def linger(self) -> str:
        """Let it outlive the last logout; return what was done."""
        ...

    def remove(self) -> list[str]:
        """Stop it and remove all that was installed; return what was done."""
        ...

    def state(self) -> State:
        """Return how it stands."""
        ...

    def logs(self, wanted: Logs) -> list[str]:
        """Return the command line that shows its log."""
        ...


@dataclass(slots=True)
class Logs:
    """Which part of the log.

    Attributes:
        lines: So many of the newest.
        follow: Go on with new ones.
        since: From then on, as the manager reads it; empty: any.
        fields: Only records with these values, by name (host, session, client, job).
        json: One JSON object for each record.
    """

    lines: int = 100
    follow: bool = False
    since: str = ""
    fields: dict[str, str] = field(default_factory=dict[str, str])
    json: bool = False
