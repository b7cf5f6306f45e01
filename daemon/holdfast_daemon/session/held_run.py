"""One command in a shell that the daemon holds, with a channel at its side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason, StateError
from holdfast_daemon.kept import beside, wrapper
from holdfast_daemon.kept.asking import Asking
from holdfast_daemon.kept.beside import Beside
from holdfast_daemon.session.shell import RunEnd, not_told, unread

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.run_line import RunEnd as Told
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_TRIES = 3
_SHELL_ENDED = "the session's shell ended"


class Program(NamedTuple):
    """What a shell is, as its host says; `greeted`: it has been told of us."""

    name: str = ""
    greeted: bool = False


class NoSide(Exception):  # noqa: N818  nothing is wrong, it is done another way
    """A command can't have what it needs beside its terminal; nothing was typed.

    Attributes:
        lasting: That will not change.
    """

    def __init__(self, why: str, *, lasting: bool = True) -> None:
        super().__init__(why)
        self.lasting = lasting


class HeldRun:
    """Runs the command of one job in the shell with process id `pid`.

    Who is to become that shell has `before` on its command line until then.

    Attributes:
        program: What the shell turned out to be.
    """

    def __init__(
        self,
        site: Site,
        pid: int,
        before: str,
        program: Program,
        job: Job,
        *,
        start: Callable[[bytes], Awaitable[None]],
    ) -> None:
        self._asking = Asking(site.pool, site.host, site.limits)
        self._pid = pid
        self._before = before
        self._job = job
        self._type = start
        self._beside: Beside | None = None
        self._draining: asyncio.Task[None] | None = None
        self._parted: asyncio.Task[None] | None = None
        self.program = program

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what it prints; the host waits while the disk is behind."""
        spool = self._job.spool
        spool.append(stream, data)
        if spool.full and self._draining is None and self._beside is not None:
            self._beside.line.pause()
            self._draining = asyncio.create_task(self._drain(self._beside))

    async def _drain(self, side: Beside) -> None:
        await self._job.spool.drained()
        self._draining = None
        side.line.resume()

    async def run(self) -> RunEnd:
        """Type it, and return how it ended.

        Raises:
            NoSide: It has to be framed in the terminal's stream; nothing was typed.
            DaemonError: Nothing was typed.
        """
        side = self._beside = await self._prepare()
        self._job.asked = True
        try:
            await self._type(side.typed)
            self._job.sent()
            end = await side.line.ended()
        except BaseException:
            # what may run still goes on writing there
            self._parted = asyncio.create_task(_part(side))
            raise
        side.line.forget()
        if end.not_begun:
            stopped = self._job.verdict is not None
            return not_told(self._job) if stopped else unread(self._job)
        self.program = self.program._replace(greeted=True)
        return self._told(end)

    async def _prepare(self) -> Beside:
        command = self._job.request.command.encode("utf-8", "surrogateescape")
        for _ in range(_TRIES):
            side = Beside(self._asking, self._pid, self)
            family = wrapper.family(self.program.name)
            try:
                code = await side.begin(
                    command,
                    self.program.name,
                    family,
                    first="" if self.program.greeted else self._before,
                )
            except DaemonError as error:
                side.line.close()
                raise NoSide(error.message, lasting=False) from error
            if code is None:
                return side
            if code == beside.OTHER_PROGRAM and side.other:
                self.program = Program(side.other)
                if not wrapper.family(side.other):
                    raise self._strange(side.other)
                continue
            self._refuse(code)
        raise NoSide("what its shell is can't be told")

    def _strange(self, program: str) -> StateError:
        return StateError(
            Reason.UNSUPPORTED,
            f"the command was not run on {self._asking.host.shown}: the session's shell"
            f" is {program}, and commands can't be told apart from the rest there",
            hint="Open a session with shell bash, zsh, fish, dash or sh, or use"
            " ssh_session_write and ssh_session_read.",
            metadata={"host": self._asking.host.shown},
        )

    def _refuse(self, code: int) -> None:
        where = self._asking.host.shown
        if code == beside.BUSY:
            raise StateError(
                Reason.SESSION_BUSY,
                f"the command was not run on {where}: something else runs in the"
                " foreground of its terminal",
                hint="ssh_session_read with view `screen` shows what that is.",
                metadata={"host": where},
            )
        if code == beside.ENDED:
            raise StateError(
                Reason.SESSION_ENDED,
                f"the command was not run on {where}: its shell has ended",
                hint="ssh_session_open opens another one.",
                metadata={"host": where},
            )
        if code == beside.CUT:
            raise LinkError(
                Reason.CONNECTION_LOST,
                f"the command was not run on {where}: not all of it arrived",
                hint="Run it again.",
                ran=Ran.NO,
            )
        raise NoSide("nothing can be written there")

    def _told(self, end: Told) -> RunEnd:
        if end.shell_ended:
            self._job.add_note(_SHELL_ENDED)
        lost = end.lost
        if lost is None and end.exit_code is None and end.signal is None:
            lost = "the host does not tell how it ended"
        if lost is not None:
            return RunEnd(ChannelEnd(lost=lost), end.cwd)
        return RunEnd(ChannelEnd(end.exit_code, end.signal), end.cwd)

    async def interrupt(self, name: str) -> None:
        """Signal what runs in the foreground, and have the shell tell its end."""
        side = self._beside
        if side is None:
            return
        stands = await beside.signal(self._asking, self._pid, name, side.place)
        if stands == "idle":
            await self._type(side.settling)

    async def shell_over(self, end: ChannelEnd) -> None:
        """The shell is gone, and all that it printed is on its way."""
        side = self._beside
        if side is None:
            return
        if end.lost is not None:
            side.line.close()
            return
        how = f"signal {end.signal}" if end.signal else f"exit {end.exit_code}"
        await side.over(how)


async def _part(side: Beside) -> None:
    """Stay until it has ended, however late: what is on the host goes then."""
    with contextlib.suppress(asyncio.CancelledError):
        await side.line.ended()
        side.line.forget()
