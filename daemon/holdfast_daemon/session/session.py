"""One session: a shell, what it printed, and those who use it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from holdfast_daemon.clock import rfc3339
from holdfast_daemon.errors import DaemonError, Reason, StateError
from holdfast_daemon.session.echo import Echo
from holdfast_daemon.session.frame import (
    Away,
    Back,
    Ended,
    KeyboardChanged,
    Resized,
    RunBegan,
    RunEnded,
    RunPrinted,
)
from holdfast_daemon.session.observer import Mode
from holdfast_daemon.session.readers import Readers
from holdfast_daemon.session.shell import Durability, Over
from holdfast_daemon.session.watch import Watchers
from holdfast_daemon.session.writer import Writer
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.output.display import Display
    from holdfast_daemon.output.recording import Recording
    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.about import About
    from holdfast_daemon.session.frame import Frame
    from holdfast_daemon.session.observer import View
    from holdfast_daemon.session.shell import Shell, ShellEnd
    from holdfast_daemon.session.writer import Holder

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Session:
    """A shell that several clients use in turn.

    Attributes:
        host: Where it is; None for one of an earlier daemon that is over.
        shell: Where its keys go; None before it is there and after its end.
        end: How it ended; None while it runs.
        finished: When, monotonic.
        job: The command that runs in it.
        cwd: Where its shell was after the last command; empty: not known.
        away: Why its host can't be reached for now; empty: it can.
        view: How a person can look at it.
        parting: Held while its shell is being ended, for `over_because`.
        on_moved: Called when the shell is elsewhere, or of another size.
        nonce: What the end of one kept on a host is told by; nobody else knows it.
        skipped: Bytes that the host had dropped before they were read.
        recorded: So much of the output an earlier daemon recorded.
        left: It is over, and its host was not told yet to forget it.
        readers: Who used it, and how far each has read.
    """

    about: About
    spool: Spool
    display: Display
    recording: Recording
    limits: Limits
    clock: Clock
    view: View
    host: Host | None = None
    shell: Shell | None = None
    end: ShellEnd | None = None
    finished: float | None = None
    job: Job | None = None
    cwd: str = ""
    away_because: str = ""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    parting: asyncio.Lock = field(default_factory=asyncio.Lock)
    over_because: Over = Over.CLOSED
    _sizing: asyncio.Lock = field(default_factory=asyncio.Lock)
    on_moved: Callable[[], None] = lambda: None
    nonce: str = ""
    skipped: int = 0
    recorded: int = 0
    left: bool = False
    cols: int = 0
    rows: int = 0
    used: float = 0.0
    _stirred: float = 0.0
    _echo: Echo = field(default_factory=Echo)
    _writer: Writer = field(init=False)
    _watchers: Watchers = field(init=False)
    readers: Readers = field(default_factory=Readers)
    _answering: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    def __post_init__(self) -> None:
        """Begin with what the plan says."""
        self._writer = Writer(self.limits.session_writer_seconds)
        self._watchers = Watchers(self.spool, self.touch)
        self.cols, self.rows = self.about.plan.cols, self.about.plan.rows
        self.used = self._stirred = self.clock.monotonic()
        self.answer_programs()

    # what it is

    @property
    def id(self) -> str:
        """Handle."""
        return self.about.id

    @property
    def name(self) -> str:
        """Name, or empty."""
        return self.about.name

    @property
    def target(self) -> str:
        """The host as it was named."""
        return self.about.target

    @property
    def address(self) -> str:
        """The host as user@host."""
        return self.about.address

    @property
    def running(self) -> bool:
        """Its shell runs, as far as anybody knows."""
        return self.end is None

    @property
    def holder(self) -> Holder | None:
        """Who writes to it now."""
        return self._writer.holder(self.clock.monotonic()) if self.running else None

    @property
    def keyboard(self) -> KeyboardChanged:
        """The same, for those who look on."""
        held = self.holder
        if held is None:
            return KeyboardChanged()
        return KeyboardChanged(
            held.client, held.instance, rfc3339(held.since), held.person
        )

    @property
    def clients(self) -> list[str]:
        """Clients that used it and are still there."""
        return self.readers.living

    @property
    def idle_seconds(self) -> float:
        """Seconds since anybody used it; 0 while somebody, or a command, does.

        Its window on this machine is nobody: whether a person sees that, tmux knows.
        """
        if self.job is not None or self.watching > (self.view.mode is Mode.TMUX):
            return 0.0
        return max(0.0, (self.finished or self.clock.monotonic()) - self.used)

    @property
    def watching(self) -> int:
        """How many look on, its window on this machine included."""
        return len(self._watchers)

    @property
    def quiet_seconds(self) -> float:
        """Seconds since its terminal, or a command that runs in it, printed."""
        return max(0.0, self.clock.monotonic() - self._stirred)

    @property
    def uptime_seconds(self) -> float:
        """Seconds since it opened, until its end."""
        last = self.clock.monotonic() if self.finished is None else self.finished
        return max(0.0, last - self.about.begun)

    # those who use it

    def touch(self) -> None:
        """Count its idle time from now on."""
        self.used = self.clock.monotonic()

    def note(self, caller: Caller) -> None:
        """A client uses it."""
        self.touch()
        if self.away_because and self.shell is not None:
            self.shell.nudge()
        self.readers.note(caller)

    def cursor(self, caller: Caller) -> int:
        """Return how far a client has read; one that never did begins at the start."""
        return self.readers.cursor(caller)

    def move_cursor(self, caller: Caller, offset: int) -> None:
        """Note how far a client has read."""
        self.readers.move(caller, offset)

    @contextlib.contextmanager
    def writing(self, caller: Caller, *, keep: bool = True) -> Generator[None]:
        """Be the one who writes, until the end of the block and, to `keep`, after it.

        Raises:
            StateError: Somebody else is, or its shell has ended.
        """
        self.check_running()
        job = self.job
        if job is not None and job.instance != caller.instance:
            raise self._busy(
                f"{job.client} runs a command in it since {rfc3339(job.started)}",
                job.client,
                rfc3339(job.started),
                job.id,
            )
        now = self.clock.monotonic()
        if (held := self._writer.enter(caller, now, self.clock.now())) is not None:
            who = f"{held.client}, a person at a terminal," if held.person else ""
            raise self._busy(
                f"{who or held.client} has the keyboard since {rfc3339(held.since)}",
                held.client,
                rfc3339(held.since),
            )
        self._watchers.tell(self.keyboard)
        try:
            yield
        finally:
            self._writer.leave(caller, self.clock.monotonic(), keep=keep)
            self.touch()

    async def quiet_keyboard(self, caller: Caller) -> None:
        """Wait until another program's hold, that no call of its needs, is over."""
        # a hold ends by itself, and no event tells it
        while left := self._writer.left(  # noqa: ASYNC110
            caller, self.clock.monotonic()
        ):
            await asyncio.sleep(left)

    def _busy(self, why: str, client: str, since: str, job_id: str = "") -> StateError:
        about = {"session": self.id, "client": client, "since": since}
        if job_id:
            about["job_id"] = job_id
        return StateError(
            Reason.SESSION_BUSY,
            f"session {self.name or self.id} is busy: {why}; nothing was typed",
            hint=f"Wait for it with ssh_job_read job_id={job_id} wait_seconds=45, or"
            " use a session of your own."
            if job_id
            else "Read along with ssh_session_read, and try again when it is free, or"
            " use a session of your own.",
            metadata=about,
        )

    def check_running(self) -> None:
        """Refuse what a shell that has ended can't do.

        Raises:
            StateError: It has ended.
        """
        if self.end is None and self.shell is not None:
            return
        which = f"session {self.name or self.id} on {self.target}"
        if self.end is None:
            why = f" ({self.away_because})" if self.away_because else ""
            raise StateError(
                Reason.SESSION_BUSY,
                f"{which} is busy: its shell is being started or looked for there;"
                f" nothing was typed{why}",
                hint="Call again in a moment.",
                metadata={"session": self.id},
            )
        raise StateError(
            Reason.SESSION_ENDED,
            f"{which} has ended ({self.end.over}); nothing was typed",
            hint="ssh_session_read shows its last output; ssh_session_open with the"
            " same name opens a new one.",
            metadata={"session": self.id},
        )

    def take(self, caller: Caller) -> None:
        """Give a person the keyboard; their own terminal answers what programs ask."""
        self.note(caller)
        self._writer.take(caller, self.clock.now())
        self.display.answer_to(None)
        self._watchers.tell(self.keyboard)

    def release(self, caller: Caller) -> None:
        """Take it from them; nothing happens when they do not have it."""
        before = self.holder
        self._writer.release(caller)
        self.touch()
        if self.holder is None and before is not None:
            self.answer_programs()
            self._watchers.tell(self.keyboard)

    # what goes to it

    async def type(self, caller: Caller, data: bytes) -> None:
        """Pass keys on; those of a person need no other leave."""
        held = self.holder
        self.check_running()
        assert self.shell is not None  # noqa: S101 - it runs
        if held is not None and held.person and held.instance == caller.instance:
            self.touch()
            await self._press(self.shell, data)
            return
        with self.writing(caller):
            await self._press(self.shell, data)

    async def _press(self, shell: Shell, data: bytes) -> None:
        if shell.durability is Durability.REMOTE:
            self._echo.typed(data)
        await shell.write(data)

    async def keys_arrived(self) -> None:
        """Wait for keys that were typed: a command may go another way to its host."""
        await self._echo.arrived()

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size; of several the last one asked for."""
        async with self._sizing:
            self.check_running()
            assert self.shell is not None  # noqa: S101 - it runs
            await self.shell.resize(cols, rows)
            self.cols, self.rows = cols, rows
        self.display.resize(cols, rows)
        self.recording.resized(cols, rows)
        self._watchers.tell(Resized(cols, rows))
        self.on_moved()

    # what comes from it

    def printed(self, data: bytes) -> None:
        """Take what its terminal printed; the only one who appends."""
        self._stirred = self.clock.monotonic()
        self._echo.printed(data)
        self.spool.append(Stream.OUT, data)
        self.display.feed(data)
        end = self.spool.end
        # what an earlier daemon recorded and did not keep comes from its host again
        fresh = data[max(0, self.recorded - (end - len(data))) :]
        if fresh:
            self.recording.output(fresh, end)

    def away(self, why: str) -> None:
        """Its host can't be reached for now."""
        self.away_because = why
        self._watchers.tell(Away(why))

    def back(self) -> None:
        """The host is reached again."""
        self.away_because = ""
        self._watchers.tell(Back())

    @property
    def labels(self) -> dict[str, str]:
        """What records about it are found by; the client is the one who opened it."""
        about = self.about
        told = {"host": about.target, "session": about.id, "client": about.client}
        return told | ({"session_name": about.name} if about.name else {})

    def ended(self, end: ShellEnd) -> None:
        """It is over."""
        if self.end is not None:
            return
        if end.over is Over.CLOSED:
            end = replace(end, over=self.over_because)
        self.end, self.finished = end, self.clock.monotonic()
        self.away_because = ""
        _log.info("session ended: %s", end.over, extra=self.labels)
        self.spool.close()
        if end.exit_code is not None:
            self.recording.exited(end.exit_code)
        self._watchers.tell(Ended(end.over, end.exit_code, end.signal, end.why))
        self.over.set()

    def tell(self, frame: Frame) -> None:
        """Tell those who look on what else happens."""
        if isinstance(frame, RunBegan | RunPrinted | RunEnded):
            self._stirred = self.clock.monotonic()
        self._watchers.tell(frame)

    def watch(self, offset: int) -> AsyncGenerator[Frame]:
        """Yield how things stand, then all that happens; the output from `offset`."""
        first: list[Frame] = []
        if self.holder is not None:
            first.append(self.keyboard)
        if self.job is not None:
            command = self.job.request.command
            first.append(RunBegan(self.job.id, self.job.client, command))
        if self.away_because:
            first.append(Away(self.away_because))
        if (end := self.end) is not None:
            first.append(Ended(end.over, end.exit_code, end.signal, end.why))
        return self._watchers.watch(offset, first)

    async def picture(self) -> tuple[bytes, int]:
        """Return what draws the screen, and the position in the output it is of."""
        scene = await self.display.scene()
        return scene.drawing, self.spool.end - self.display.fed + scene.fed

    def answer_programs(self) -> None:
        """Have its screen answer what programs ask of their terminal."""
        self.display.answer_to(self._answer)

    def _answer(self, data: bytes) -> None:
        """Answer a question of a program, as its terminal would."""
        if self.shell is None or self.end is not None:
            return
        task = asyncio.create_task(self._send_answer(self.shell, data))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _send_answer(self, shell: Shell, data: bytes) -> None:
        try:
            await shell.answer(data)
        except DaemonError as error:
            _log.debug("a program's question stays open: %s", error.message)

    async def close(self) -> None:
        """Write what is left to disk; take no more."""
        self.spool.close()
        await self.spool.sync()
        await self.display.close()
        await self.recording.close()
