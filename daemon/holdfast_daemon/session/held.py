"""A shell with a terminal on a channel of the daemon's: it lives as long as both."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.connection.channel import Terminal
from holdfast_daemon.errors import LinkError, Ran, Reason, StateError
from holdfast_daemon.exec.preamble import MarkerReader, compose
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.session.inband import Framer
from holdfast_daemon.session.shell import Durability, Over, RunEnd, ShellEnd

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel, ChannelEnd
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.session.shell import Listener, Plan
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0


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
        self._framer: Framer | None = None
        self._over: Over | None = None
        self._why = ""
        self._done = asyncio.Event()
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
        if facts.family == "posix" and not facts.confined:
            wanted = ExecRequest(
                command="", cwd=plan.cwd, env=plan.env, shell=plan.shell
            )
            preamble = compose(wanted)
            self._marker = MarkerReader(preamble)
            program = preamble.program or '"${SHELL:-/bin/sh}"'
            line = f"{preamble.text}exec {program} -l"
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
        if self._marker is not None and not self._marker.done:
            self._pass_on(self._marker.feed(stream, data))
        else:
            self._take(data)

    def _pass_on(self, parts: list[tuple[Stream, bytes]]) -> None:
        for _, data in parts:
            self._take(data)

    def _take(self, data: bytes) -> None:
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
        if self._marker is not None and self._marker.failure:
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
        try:
            await channel.write(data)
        except BrokenPipeError:
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the session's shell was gone before all of it was typed",
                hint="ssh_session_read shows its last output.",
                ran=Ran.UNKNOWN,
            ) from None

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        self._open_channel().resize(cols, rows)

    async def run(self, job: Job) -> RunEnd:
        """Run a command within the terminal's stream."""
        channel = self._open_channel()
        facts = await self._lease.facts()
        if facts.family != "posix" or self._marker is None:
            raise StateError(
                Reason.UNSUPPORTED,
                f"{self._site.host.name} has no POSIX shell, so no command can be told"
                " apart from the rest of a session there",
                hint="Use ssh_session_write and ssh_session_read, or ssh_exec.",
            )
        framer = self._framer = Framer(job)
        try:
            job.asked = True
            await channel.write(framer.words(job.request.command))
            return await framer.ended()
        except BrokenPipeError:
            raise LinkError(
                Reason.CONNECTION_LOST,
                "the session's shell was gone before the command was typed",
                hint="ssh_session_open opens another one.",
            ) from None
        finally:
            self._framer = None

    async def interrupt(self, name: str) -> None:
        """Signal what runs in the foreground, by the terminal's own key if it can."""
        channel = self._open_channel()
        key = {"INT": b"\x03", "QUIT": b"\x1c"}.get(name)
        if key is not None:
            # a shell that was interrupted forgets what it was to do next
            asking = self._framer.asking() if self._framer is not None else b""
            with contextlib.suppress(BrokenPipeError):
                await channel.write(key + asking)
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
        if self._channel is None or self._done.is_set():
            return ""
        self._over = self._over or Over.CLOSED
        if not force:
            self._channel.signal("HUP")
        self._channel.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._done.wait()
        return "KILL" if force else "HUP"

    async def rest(self, why: str) -> None:
        """End it: it can't do without its connection."""
        self._over = Over.CONNECTION_LOST
        self._why = why
        await self.end(force=False)

    def nudge(self) -> None:
        """Nothing to look for: it lives and dies with its connection."""

    async def leave(self) -> None:
        """End it: nobody could find it again."""
        await self.end(force=False)
