"""What happens in a session, as one who takes part in it is told. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from holdfast_daemon.exec.job import Status


@dataclass(frozen=True, slots=True)
class Printed:
    """The terminal printed `data`.

    Attributes:
        offset: Position after it.
        skipped: Bytes that were discarded just before it.
    """

    data: bytes
    offset: int
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class RunBegan:
    """A client runs a command."""

    job_id: str
    client: str
    command: str


@dataclass(frozen=True, slots=True)
class RunPrinted:
    """What such a command printed; `error`: to its stderr."""

    job_id: str
    data: bytes
    error: bool = False
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class RunEnded:
    """Such a command ended. Absence of a code is never 0."""

    job_id: str
    status: Status
    exit_code: int | None = None
    signal: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class KeyboardChanged:
    """Who writes to the session now.

    Attributes:
        client: Label of the holder; empty: nobody.
        instance: Its instance, to tell whether it is the reader itself.
        since: RFC 3339, UTC.
        person: It is a person at a terminal.
    """

    client: str = ""
    instance: str = ""
    since: str = ""
    person: bool = False


@dataclass(frozen=True, slots=True)
class Resized:
    """The session's terminal has another size."""

    cols: int
    rows: int


@dataclass(frozen=True, slots=True)
class Away:
    """The host can't be reached for now."""

    why: str


@dataclass(frozen=True, slots=True)
class Back:
    """The host is reached again; nothing was lost meanwhile."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over; the last frame. Absence of a code is never 0.

    Attributes:
        reason: exited, signalled, closed, idle, connection_lost or host_restarted.
        why: What else is known.
    """

    reason: str
    exit_code: int | None = None
    signal: str | None = None
    why: str = ""


Frame: TypeAlias = (
    Printed
    | RunBegan
    | RunPrinted
    | RunEnded
    | KeyboardChanged
    | Resized
    | Away
    | Back
    | Ended
)
