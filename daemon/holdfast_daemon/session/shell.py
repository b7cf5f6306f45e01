"""What a session asks of its shell, wherever that is kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import LinkError, Ran, Reason, StateError
from holdfast_daemon.exec.job import Status
from holdfast_daemon.kept.run_line import UNREAD

if TYPE_CHECKING:
    from collections.abc import Mapping

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


LOST = frozenset({Over.CONNECTION_LOST, Over.HOST_RESTARTED})


@dataclass(frozen=True, slots=True)
class Plan:
    """The shell that is wanted; empty values are the host's own.

    Attributes:
        restore: A lost session whose directory and environment to take over.
        old: The directory it was in, as far as that is known; it may be gone.
    """

    shell: str = ""
    cwd: str = ""
    env: Mapping[str, str] = field(default_factory=dict[str, str])
    cols: int = 80
    rows: int = 24
    restore: str = ""
    old: str = ""

    @property
    def old_text(self) -> str:
        """`old` where it is text, as a channel's first words have to be; or empty."""
        same = self.old.encode("utf-8", "ignore").decode() == self.old
        return self.old if same else ""


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

    @property
    def untold(self) -> str:
        """Why its host could not be told that it is over; empty: it was."""
        return "" if self.over in LOST else self.why


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a command that a shell ran ended, and where the shell is since."""

    end: ChannelEnd
    cwd: str = ""


def unread(job: Job) -> RunEnd:
    """Return the end of a command that was typed, and that its shell never came to."""
    job.error = StateError(
        Reason.SESSION_BUSY,
        f"the command was not run on {job.target}: {UNREAD}",
        hint="ssh_session_read with view `screen` shows it; ssh_session_write with"
        " input \\u0003 gives it up. Then run the command again.",
        metadata={"host": job.target},
    )
    return RunEnd(ChannelEnd(lost=job.error.message))


def not_told(job: Job) -> RunEnd:
    """Return the end of a command that was stopped before its shell came to it."""
    if job.verdict is Status.TIMED_OUT:
        job.error = StateError(
            Reason.SESSION_BUSY,
            f"the command was not run on {job.target}: its session's shell did not come"
            f" to it within its {job.request.timeout:g} s; it may be starting or at"
            " work, or what was typed before is not finished, as with an open quote",
            hint="ssh_session_read with view `screen` shows what the session does; or"
            " raise timeout_seconds.",
            metadata={"host": job.target},
        )
    return RunEnd(ChannelEnd(lost="it was stopped before it began; nothing ran"))


def unsure(error: LinkError, ident: str, name: str) -> LinkError:
    """Return why it is not known whether a shell was opened: it is looked for."""
    return LinkError(
        error.reason,
        f"whether session {name or ident} was opened is not known: {error.message}",
        hint=f"It is looked for as {ident}: ssh_session_list shows it,"
        f" and ssh_session_close session={ident} leaves nothing of it.",
        ran=Ran.UNKNOWN,
        metadata={**error.metadata, "session": ident},
    )


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

    async def answer(self, data: bytes) -> None:
        """Tell a program what it asked its terminal; a shell may take that for keys.

        Raises:
            DaemonError: As `write`.
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

    def nudge(self, *, asked: bool = True) -> None:
        """Look for its host again now, where that is away; `asked`: somebody wants it.

        By itself nobody knocks at a host that refused the login.
        """
        ...

    async def leave(self) -> None:
        """Let go of it: one that is held ends, one on the host goes on there."""
        ...
