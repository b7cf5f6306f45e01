"""A shell with a terminal on a channel of the daemon's: it lives as long as both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import Terminal
from holdfast_daemon.connection.shell import quote
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason, StateError
from holdfast_daemon.exec.preamble import MarkerReader, compose
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.kept import beside, half
from holdfast_daemon.kept.asking import Asking
from holdfast_daemon.session.held_run import HeldRun, NoSide, Program
from holdfast_daemon.session.inband import Asker, Framer
from holdfast_daemon.session.shell import Durability, Over, RunEnd, ShellEnd
from holdfast_daemon.unless import unless

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel, ChannelEnd
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.half import Half
    from holdfast_daemon.kept.wrapper import Family
    from holdfast_daemon.session.shell import Listener, Plan
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0
# When the daemon stops, what runs in them had its time before.
_LEAVING_SECONDS = 0.5
_INTERRUPT_SECONDS = 0.15
# What a terminal's own keys send.
_KEYS = {"INT": b"\x03", "QUIT": b"\x1c"}
# Who is asked in its terminal which shell it is may be starting still, or have been
# told to take no variable that is not set, and is asked in other words then.
_ASKING_SECONDS = (2.0, 10.0)


class HeldShell:
    """One login shell behind a pseudo-terminal of the server's."""

    durability = Durability.HELD

    def __init__(self, site: Site, lease: Lease, listener: Listener) -> None:
        """Use `lease` until the shell ends; `open` makes one."""
        self._site = site
        self._lease = lease
        self._listener = listener
        self._channel: Channel | None = None
        self._marker: MarkerReader | None = None
        self._half: Half = "none"
        # commands go beside the terminal, as long as they can
        self._sides = True
        self._program = Program()
        self._running: HeldRun | None = None
        # or within its stream
        self._family: Family | None = None
        self._asker: Asker | None = None
        self._framer: Framer | None = None
        self._over: Over | None = None
        self._why = ""
        self._done = asyncio.Event()
        self._opened = False
        self._watch: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, site: Site, plan: Plan, listener: Listener) -> HeldShell:
        """Start it.

        Raises:
            DaemonError: The host can't be had, or can't do what was asked.
        """
        lease = await site.pool.lease(site.host)
        try:
            shell = cls(site, lease, listener)
            await shell._start(plan)
        except BaseException:
            lease.release()
            raise
        return shell

    async def _start(self, plan: Plan) -> None:
        facts = await self._lease.facts()
        line: str | None = None
        if (facts.family == "posix" or facts.wraps) and not facts.confined:
            wanted = ExecRequest(
                command="", cwd=plan.cwd, env=plan.env, shell=plan.shell
            )
            preamble = compose(wanted)
            self._marker = MarkerReader(preamble)
            program = preamble.program or '"${SHELL:-/bin/sh}"'
            line = _login(preamble.text, program)
            if facts.wraps:
                line = f"exec /bin/sh -c {quote(line, facts.family)}"
        elif plan.cwd or plan.env or plan.shell:
            raise StateError(
                Reason.UNSUPPORTED,
                f"{self._site.host.name} has no POSIX login shell, so cwd, env and"
                " shell can't be set for a session there",
                hint="Open it without them, and write them with ssh_session_write.",
            )
        terminal = Terminal(cols=plan.cols, rows=plan.rows)
        self._channel = await self._lease.open(line, self, terminal=terminal)
        self._watch = asyncio.create_task(self._await_end(self._channel))
        if self._marker is not None:
            await self._begun(self._marker, plan)
        self._opened = True

    async def _begun(self, marker: MarkerReader, plan: Plan) -> None:
        """Wait until the host's shell is where it should be."""
        done = asyncio.create_task(self._done.wait())
        try:
            async with asyncio.timeout(self._site.limits.marker_seconds):
                while not marker.done and not done.done():
                    await asyncio.wait({done}, timeout=0.01)
        except TimeoutError:
            _log.debug("no sign of a session's shell yet")
            self._pass_on(marker.finish())
        finally:
            done.cancel()
        if marker.failure:
            wrong = "cwd" if marker.failure == "cwd" else "shell"
            value = plan.cwd if wrong == "cwd" else plan.shell
            raise StateError(
                Reason.CWD_FAILED if wrong == "cwd" else Reason.SHELL_FAILED,
                f"{wrong} {value!r} can't be used on {self._site.host.name}; no"
                " session was opened",
                hint=f"Give another {wrong}, or none.",
                metadata={wrong: value},
            )

    # what comes from the host

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what the terminal printed."""
        if self._marker is not None and (self._marker.late or not self._marker.done):
            self._pass_on(self._marker.feed(stream, data))
        else:
            self._take(data)

    def _pass_on(self, parts: list[tuple[Stream, bytes]]) -> None:
        for _, data in parts:
            self._take(data)

    def _take(self, data: bytes) -> None:
        if self._asker is not None:
            data = self._asker.feed(data)
        if self._framer is not None:
            data = self._framer.feed(data)
        if data:
            self._listener.printed(data)

    async def _await_end(self, channel: Channel) -> None:
        end = await channel.ended()
        channel.close()
        self._lease.release()
        self._done.set()
        if self._framer is not None:
            self._framer.lost(end)
        if self._running is not None:
            await self._running.shell_over(end)
        if not self._opened and self._marker is not None and self._marker.failure:
            return
        self._listener.ended(self._told(end))

    def _told(self, end: ChannelEnd) -> ShellEnd:
        if self._over is not None:
            code, name = end.exit_code, end.signal
            return ShellEnd(self._over, code, name, self._why or end.lost or "")
        if end.exit_code is not None:
            return ShellEnd(Over.EXITED, end.exit_code)
        if end.signal is not None:
            return ShellEnd(Over.SIGNALLED, signal=end.signal)
        return ShellEnd(Over.CONNECTION_LOST, why=end.lost or "")

    # what goes to it

    async def write(self, data: bytes) -> None:
        """Type keys."""
        channel = self._open_channel()
        self._half = half.after(data, self._half)
        try:
            await channel.write(data)
        except BrokenPipeError:
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the session's shell was gone before all of it was typed",
                hint="ssh_session_read shows its last output.",
                ran=Ran.UNKNOWN,
            ) from None

    async def answer(self, data: bytes) -> None:
        """Tell a program what it asked."""
        # the one within a frame asked nothing, and would have it among its output
        if self._framer is None:
            await self.write(data)

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        self._open_channel().resize(cols, rows)

    async def run(self, job: Job) -> RunEnd:
        """Run a command in it: beside its terminal, or within that one's stream."""
        self._open_channel()
        if self._marker is None:
            raise StateError(
                Reason.UNSUPPORTED,
                f"{self._site.host.name} has no POSIX shell, so no command can be told"
                " apart from the rest of a session there",
                hint="Use ssh_session_write and ssh_session_read, or ssh_exec.",
            )
        told = self._marker
        if told.group is not None and self._sides:
            running = HeldRun(
                self._site,
                told.group,
                told.marker,
                self._program,
                job,
                start=self._type,
            )
            self._running = running
            try:
                return await running.run()
            except NoSide as why:
                _log.info("a command is framed in its terminal: %s", why)
                self._sides = not why.lasting
            finally:
                self._program = running.program
                self._running = None
        return await self._run_inband(job)

    async def _run_inband(self, job: Job) -> RunEnd:
        family = await self._ask_family()
        framer = Framer(job, family)
        words = framer.words(job.request.command)
        self._framer = framer
        try:
            job.asked = True
            await self._type(words)
            job.sent()
            return await framer.ended()
        finally:
            self._framer = None

    async def _ask_family(self) -> Family:
        if self._family is not None:
            return self._family
        # one that did not say in time may have done so since
        asker = self._asker = self._asker or Asker()
        asked = zip((asker.words, asker.again), _ASKING_SECONDS, strict=True)
        for words, seconds in asked:
            if not asker.told.done():
                await self._type(words)
                answer = asyncio.wait({asker.told}, timeout=seconds)
                await unless(self._done, answer)
        if not asker.told.done():
            self._open_channel()
            raise self._silent()
        family = self._family = asker.told.result()
        self._asker = None
        if family == "bash":
            await self._type(asker.forgetting)
        return family

    @staticmethod
    def _silent() -> StateError:
        return StateError(
            Reason.SESSION_BUSY,
            "the session's shell does not say which one it is: it is busy, or none"
            " that commands can be told apart in; the command was not typed",
            hint="See with ssh_session_read what it shows, and try again when it is at"
            " its prompt; or use ssh_session_write.",
        )

    async def _type(self, data: bytes) -> None:
        """Type what is ours; half a line that somebody left there goes."""
        clear, self._half = b"" if self._half == "none" else half.CLEAR, "none"
        try:
            await self._open_channel().write(clear + data)
        except BrokenPipeError:
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the session's shell was gone before the command was typed",
                hint="ssh_session_open opens another one.",
            ) from None

    async def interrupt(self, name: str) -> None:
        """Signal what runs in the foreground, unless no command was told yet."""
        if self._running is None and self._framer is None:
            return
        channel, site = self._open_channel(), self._site
        shell = self._marker.group if self._marker is not None else None
        try:
            if self._running is not None:
                await self._running.interrupt(name)
                return
            # a command that is told apart within the terminal is broken off there too
            framed = self._framer is not None and name in _KEYS
            if shell is not None and self._sides and not framed:
                asking = Asking(site.pool, site.host, site.limits)
                await beside.signal(asking, shell, name)
                return
        except DaemonError as error:
            _log.info("%s goes by the terminal: %s", name, error.message)
        await self._press(channel, name)

    async def _press(self, channel: Channel, name: str) -> None:
        """Signal by the terminal's own key, if there is one."""
        key = _KEYS.get(name)
        if key is not None:
            framer = self._framer
            if framer is not None:
                framer.break_off()
            with contextlib.suppress(BrokenPipeError):
                await channel.write(key)
                if framer is not None:
                    # a shell that was interrupted forgets what it was to do next, and
                    # takes no question until it is done with that
                    await asyncio.sleep(_INTERRUPT_SECONDS)
                    await channel.write(framer.asking())
        else:
            channel.signal(name)

    def _open_channel(self) -> Channel:
        if self._channel is None or self._done.is_set():
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the session's shell is gone",
                hint="ssh_session_read shows its last output.",
            )
        return self._channel

    async def end(self, *, force: bool) -> str:
        """Hang up, as a closed terminal does; KILL where that does not do."""
        return await self._hang_up(_GRACE_SECONDS, force=force)

    async def _hang_up(self, seconds: float, *, force: bool) -> str:
        if self._channel is None or self._done.is_set():
            return ""
        self._over = self._over or Over.CLOSED
        if not force:
            self._channel.signal("HUP")
        self._channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._done.wait()
        return "KILL" if force else "HUP"

    async def rest(self, why: str) -> None:
        """End it: it can't do without its connection."""
        await self._lose(why, _GRACE_SECONDS)

    async def _lose(self, why: str, seconds: float) -> None:
        self._over = Over.CONNECTION_LOST
        self._why = why
        await self._hang_up(seconds, force=False)

    def nudge(self, *, asked: bool = True) -> None:
        """Nothing to look for: it lives and dies with its connection."""

    async def leave(self) -> None:
        """End it: nobody could find it again."""
        await self._lose("the daemon stopped", _LEAVING_SECONDS)


def _login(before: str, program: str) -> str:
    """Return the words that become a login shell, whose history stays as it is."""
    return (
        f"{before}HISTFILE='' fish_history=''; export HISTFILE fish_history;"
        f" set -- {program};"
        ' case ${1##*/} in zsh) set -- "$@" -o histignorespace ;; esac;'
        ' exec "$@" -l'
    )
