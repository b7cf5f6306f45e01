"""One command from its start to its outcome."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from holdfast_daemon.clock import rfc3339

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from datetime import datetime

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.channel import Channel, ChannelEnd
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.exec.claim import Claim
    from holdfast_daemon.exec.kept import Kept
    from holdfast_daemon.exec.onward import Onward
    from holdfast_daemon.exec.pace import Pace
    from holdfast_daemon.exec.request import ExecRequest
    from holdfast_daemon.exec.sudo import Elevation
    from holdfast_daemon.ids import JobId
    from holdfast_daemon.output.spool import Spool


# A client that comes back after so many others reads from the start.
_CURSORS = 64
# SSH tells exit codes as 32 bits without a sign.
_SIGN = 1 << 31


class Status(StrEnum):
    """How a command stands: `holdfast.v1.ExecStatus` by its label."""

    RUNNING = "running"
    EXITED = "exited"
    SIGNALLED = "signalled"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    LOST = "lost"


@dataclass(slots=True, kw_only=True)
class Job:
    """One command.

    Attributes:
        target: The host as it was named, so that it can be named again.
        address: The host as user@host.
        client: Label of the client that started it.
        instance: Tells two clients of one label apart; empty: an earlier daemon's.
        principal: Who asked, as the rules know them; empty: an earlier daemon's.
        started: Wall clock, for people.
        begun: Monotonic clock, for spans.
        exit_code: As the host reported it; None when it reported none.
        signal: Name of the signal that ended it, as the host reported it.
        lost: Why the outcome is not known.
        note: What else must be known.
        verdict: Why the daemon ended it: timed_out or cancelled.
        group: Process group on the host, once told; under sudo the shell's process.
        elevation: With what it is put under sudo; None: it is not.
        sudo_group: Process group of sudo itself, once told.
        signals: The host may pass signals on.
        error: Why nothing ran, when the host's shell said so.
        interrupt: Sends it signals, where it has no channel of its own; returns why it
            did not end of them, and an empty text when it did.
        asked: The host may have been told to run it.
        session: The session it runs in; empty: none.
        kept: Its host keeps it: it goes on when this daemon does not.
        onward: What the next daemon needs to go on with it; None: it can't.
        farewell: Has its host forget it, once its end is on disk here.
        opened: Done when the command was sent, or failed with why it was not.
        begun_there: Set when the host's shell is known to have begun it, or at the end.
        pace: How far a live caller has read; None: nobody is waited for.
        told: Somebody was given its id.
        saved: Its record is on disk.
        claim: The call it must not be run twice for.
        ended: Set when the outcome is known or known to be lost, and when this daemon
            leaves a kept one, which then runs still.
        cursors: How far each client instance has read.
        looked: How much there was when it last looked at a part.
    """

    id: JobId
    request: ExecRequest
    target: str
    address: str
    client: str
    started: datetime
    begun: float
    spool: Spool
    clock: Clock
    instance: str = ""
    principal: str = ""
    status: Status = Status.RUNNING
    exit_code: int | None = None
    signal: str | None = None
    lost: str = ""
    note: str = ""
    verdict: Status | None = None
    group: int | None = None
    elevation: Elevation | None = None
    sudo_group: int | None = None
    signals: bool = True
    error: DaemonError | None = None
    finished: float | None = None
    channel: Channel | None = None
    interrupt: Callable[[Sequence[str]], Awaitable[str]] | None = None
    asked: bool = False
    session: str = ""
    kept: Kept | None = None
    onward: Onward | None = None
    farewell: Callable[[], Awaitable[None]] | None = None
    stop_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    opened: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    begun_there: asyncio.Event = field(default_factory=asyncio.Event)
    pace: Pace | None = None
    told: bool = False
    saved: bool = False
    claim: Claim | None = None
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    cursors: dict[str, int] = field(default_factory=dict[str, int])
    looked: dict[str, int] = field(default_factory=dict[str, int])

    def sent(self) -> None:
        """The host has it: from now on it may run."""
        if not self.opened.done():
            self.opened.set_result(None)
        self.begun_there.set()

    @property
    def running(self) -> bool:
        """Whether the outcome is still open."""
        return self.status is Status.RUNNING

    @property
    def lasting(self) -> bool:
        """Whether the next daemon goes on with it."""
        return self.kept is not None or self.onward is not None

    @property
    def ok(self) -> bool:
        """Whether it ended by itself with exit code 0."""
        return self.status is Status.EXITED and self.exit_code == 0

    @property
    def duration(self) -> float:
        """Seconds since the start, or until the end."""
        last = self.clock.monotonic() if self.finished is None else self.finished
        return max(0.0, last - self.begun)

    def add_note(self, text: str) -> None:
        """Say something more about the outcome, once."""
        if text and text not in self.note:
            self.note = f"{self.note}; {text}" if self.note else text

    def rest(self) -> None:
        """Let go of what only running it needed: megabytes, a secret, a connection."""
        self.request = replace(self.request, stdin=None, env={})
        self.channel = None

    def move_cursor(self, reader: str, offset: int) -> None:
        """Note how far `reader` has read; the one that read longest ago is dropped."""
        _note(self.cursors, reader, offset)

    def note_look(self, reader: str) -> None:
        """Remember that somebody saw what there is now, or passed it over."""
        _note(self.looked, reader, self.spool.end)

    def settle(self, end: ChannelEnd) -> None:
        """Take the outcome that the channel reported. Absence of a code is never 0."""
        self.exit_code, self.signal = _signed(end.exit_code), end.signal
        self.add_note(end.lost or end.warning)
        self.lost = end.lost or ""
        if self.verdict is not None:
            self.status = self.verdict
        elif end.lost is not None:
            self.status = Status.LOST
        elif end.signal is not None:
            self.status = Status.SIGNALLED
        else:
            self.status = Status.EXITED
        self.finished = self.clock.monotonic()

    def record(self) -> dict[str, Any]:
        """Return what is kept on disk; the inverse of `table.recover`."""
        return {
            "id": self.id,
            "command": self.request.command,
            "target": self.target,
            "address": self.address,
            "client": self.client,
            "session": self.session,
            "instance": self.instance if self.lasting else "",
            "started": rfc3339(self.started),
            "status": self.status.value,
            "exit_code": self.exit_code,
            "signal": self.signal,
            "lost": self.lost,
            "note": self.note,
            "duration": self.duration,
            "claim": asdict(self.claim) if self.claim else None,
            "timeout": self.request.timeout,
            "kept": self.kept.record() if self.kept else None,
            "onward": self.onward.record() if self.onward else None,
        }


def _signed(code: int | None) -> int | None:
    """Return an exit code as the host itself shows it: Windows has negative ones."""
    return code if code is None or code < _SIGN else code - 2 * _SIGN


def _note(places: dict[str, int], reader: str, offset: int) -> None:
    places.pop(reader, None)
    places[reader] = offset
    if len(places) > _CURSORS:
        del places[next(iter(places))]
