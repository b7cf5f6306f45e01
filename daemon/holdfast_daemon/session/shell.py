"""What a session asks of its shell, wherever that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.connection.channel import ChannelEnd
    from holdfast_daemon.exec.job import Job


class Durability(StrEnum):
    """What a session outlives: `holdfast.v1.Durability` by its label."""

    AUTO = "auto"
    HELD = "held"
    REMOTE = "remote"


class Over(StrEnum):
    """Why a session ended, as its snapshot tells it."""

    EXITED = "exited"
    SIGNALLED = "signalled"
    CLOSED = "closed"
    IDLE = "idle"
    CONNECTION_LOST = "connection_lost"
    HOST_RESTARTED = "host_restarted"


@dataclass(frozen=True, slots=True)
class Plan:
    """The shell that is wanted; empty values are the host's own.

    Attributes:
        restore: A lost session whose directory and environment to take over.
    """

    shell: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cols: int = 80
    rows: int = 24
    restore: str = ""


@dataclass(frozen=True, slots=True)
class ShellEnd:
    """How a shell ended. Absence of a code is never 0.

    Attributes:
        over: Why.
        why: What else is known, in words.
    """

    over: Over
    exit_code: int | None = None
    signal: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a command that a shell ran ended, and where the shell is since."""

    end: ChannelEnd
    cwd: str = ""


class Listener(Protocol):
    """Hears what becomes of a shell; must neither block nor raise."""

    def printed(self, data: bytes) -> None:
        """Its terminal printed something."""
        ...

    def away(self, why: str) -> None:
        """Its host can't be reached for now."""
        ...

    def back(self) -> None:
        """The host is reached again."""
        ...

    def ended(self, end: ShellEnd) -> None:
        """It is over."""
        ...


class Shell(Protocol):
    """A shell with a terminal on a host."""

    @property
    def durability(self) -> Durability:
        """What it outlives: held or remote."""
        ...

    async def write(self, data: bytes) -> None:
        """Type keys.

        Raises:
            DaemonError: It can't be reached, or is gone; `ran` says what is known.
        """
        ...

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        ...

    async def run(self, job: Job) -> RunEnd:
        """Run the command of `job` in it, its output into the job's spool.

        Raises:
            DaemonError: Nothing was typed, or it can't do this.
        """
        ...

    async def interrupt(self, name: str) -> None:
        """Send a signal to what runs in it, not to the shell itself."""
        ...

    async def end(self, *, force: bool) -> str:
        """End it as a terminal that is closed does; return the signal it took."""
        ...

    async def rest(self, why: str) -> None:
        """Do without its connection: one that is held ends, one on the host waits."""
        ...

    def nudge(self) -> None:
        """Look for its host again now, where it can't be reached."""
        ...

    async def leave(self) -> None:
        """Let go of it: one that is held ends, one on the host goes on there."""
        ...
