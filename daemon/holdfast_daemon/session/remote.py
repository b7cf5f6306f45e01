"""A shell that is kept on the host: it outlives the link, the daemon and us."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.follower import Follower
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.kept.runs import Runs
from holdfast_daemon.kept.standing import Plan as Keeping
from holdfast_daemon.session.kept_run import KeptRun
from holdfast_daemon.session.shell import Durability, Over, RunEnd, ShellEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.kept.line import LineEnd
    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.session.shell import Listener, Plan
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_GRACE_SECONDS = 2.0
# Who types waits so long for a host that was away.
_BACK_SECONDS = 5.0
_ACK_SECONDS = 1.0
_ACK_BYTES = 1024 * 1024


class Key(NamedTuple):
    """What a shell is found again by, and what only its daemon knows of it."""

    ident: str
    nonce: str


class RemoteShell:
    """One shell on one host, and the daemon's attachment to it."""

    durability = Durability.REMOTE

    def __init__(
        self,
        site: Site,
        key: Key,
        listener: Listener,
        spool: Spool,
        *,
        skipped: int = 0,
        on_skipped: Callable[[int], None],
    ) -> None:
        """Follow what is kept under `key`; `open` and `adopt` begin it.

        `skipped` bytes were not to be had so far: the host had dropped them.
        """
        self._site = site
        self._nonce = key.nonce
        self._ident = key.ident
        self._listener = listener
        self._spool = spool
        self._skipped = skipped
        self._tell_skipped = on_skipped
        self._keeper = Keeper(site.pool, site.host, site.limits)
        self._runs = Runs(site.pool, site.host, site.limits)
        self._program: str | None = None
        # of the last command; None: not asked yet
        self._number: int | None = None
        self._over: Over | None = None
        self._acked = spool.end + skipped
        self._chores: set[asyncio.Task[None]] = set()
        self._draining: asyncio.Task[None] | None = None
        self._acking: asyncio.TimerHandle | None = None
        self._follower = self._follow()

    def _follow(self) -> Follower:
        return Follower(
            self._keeper,
            self._ident,
            self._nonce,
            lambda: self._spool.end + self._skipped,
            self,
            on_away=self._listener.away,
            on_back=self._listener.back,
            on_end=self._ended,
            on_skipped=self._skip,
        )

    async def open(self, plan: Plan, *, name: str, owner: str) -> None:
        """Start it on the host.

        Raises:
            StateError: The host can keep nothing, and nothing is left there.
            DaemonError: It can't be reached, or the shell can't be had.
        """
        started = await self._keeper.start(
            Keeping(
                ident=self._ident,
                nonce=self._nonce,
                shell=plan.shell,
                cwd=plan.cwd,
                env=plan.env,
                cols=plan.cols,
                rows=plan.rows,
                name=name,
                owner=owner,
                restore=plan.restore,
            )
        )
        self._program, self._number = started.shell, 0
        self._follower.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._site.limits.session_start_seconds):
                await self._follower.attached()

    def adopt(self) -> None:
        """Attach to one that an earlier daemon began; what became of it is told."""
        self._follower.start()

    # what comes from the host

    def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
        """Take what its terminal printed."""
        self._listener.printed(data)
        if self._spool.full and self._draining is None:
            self._follower.pause()
            self._draining = asyncio.create_task(self._drain())
        if self._acking is None:
            loop = asyncio.get_running_loop()
            self._acking = loop.call_later(_ACK_SECONDS, self._begin_ack)

    async def _drain(self) -> None:
        await self._spool.drained()
        self._draining = None
        self._follower.resume()

    def _begin_ack(self) -> None:
        self._acking = None
        # little of it harms nobody, and each costs the host a process
        if self._spool.end + self._skipped - self._acked >= _ACK_BYTES:
            self._do(self._acknowledge())

    async def _acknowledge(self) -> None:
        """Tell the host what is on our disk: it need not keep that any more."""
        safe = self._acked = self._spool.end + self._skipped
        await self._spool.sync()
        try:
            await self._keeper.ack(self._ident, "out", safe)
        except DaemonError as error:
            _log.debug("the host keeps more than it need: %s", error.message)

    def _do(self, chore: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    def _skip(self, offset: int) -> None:
        """The host dropped what was before `offset`."""
        self._skipped = offset - self._spool.end
        self._tell_skipped(self._skipped)

    def _ended(self, end: LineEnd) -> None:
        told = self._told(end)
        if self._acking is not None:
            self._acking.cancel()
        self._listener.ended(told)
        self._do(self._clean_up())

    def _told(self, end: LineEnd) -> ShellEnd:
        code, name = end.exit_code, end.signal
        if self._over is not None:
            return ShellEnd(self._over, code, name)
        if end.kind == "exited":
            over = Over.EXITED if code is not None else Over.SIGNALLED
            return ShellEnd(over, code, name)
        if end.why == "host_restarted":
            return ShellEnd(Over.HOST_RESTARTED, why="the host was restarted")
        why = "what kept it on the host was killed" if end.why == "killed" else end.why
        return ShellEnd(Over.CONNECTION_LOST, why=why)

    async def _clean_up(self) -> None:
        """Leave nothing on the host once all of it is on our disk."""
        await self._spool.sync()
        try:
            await self._keeper.wipe(self._ident)
        except DaemonError as error:
            _log.info("%s is left on its host: %s", self._ident, error.message)

    # what goes to it

    async def write(self, data: bytes) -> None:
        """Type keys, once."""
        if self._follower.away:
            self.nudge()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_BACK_SECONDS):
                    await self._follower.attached()
        await self._follower.write(data)

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        await self._keeper.resize(self._ident, cols, rows)

    async def run(self, job: Job) -> RunEnd:
        """Run a command in it."""
        if self._program is None:
            self._program = (await self._keeper.look(self._ident)).shell
        if self._number is None:
            latest = await self._runs.latest(self._ident)
            self._number = latest.number if latest is not None else 0
        self._number += 1
        number = self._number
        family = wrapper.family(self._program)
        told = KeptRun(self._runs, self._ident, number, job)
        end = await told.run(family)
        self._do(told.forget())
        return end

    async def interrupt(self, name: str) -> None:
        """Signal what runs in the foreground, and have the shell tell its end."""
        await self._keeper.signal(self._ident, name)
        if self._number is not None:
            await self._runs.settle(self._ident, self._number)

    async def end(self, *, force: bool) -> str:
        """Hang up on it, as a closed terminal does; with `force` kill all of it."""
        self._over = Over.CLOSED
        name = "KILL" if force else "HUP"
        await self._keeper.end(self._ident, force=force)
        try:
            async with asyncio.timeout(_GRACE_SECONDS):
                await self._follower.ended()
        except TimeoutError:
            if force:
                raise LinkError(
                    Reason.CONNECTION_LOST,
                    "it was killed, and its end was not heard of",
                    hint="ssh_session_list shows what became of it.",
                    ran=Ran.UNKNOWN,
                ) from None
            return await self.end(force=True)
        return name

    async def leave(self) -> None:
        """Let go of it; it goes on on the host."""
        if self._acking is not None:
            self._acking.cancel()
        await self._follower.close()
        for task in list(self._chores):
            task.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)

    async def rest(self, why: str) -> None:
        """Leave it alone on its host until somebody uses it again."""
        await self._follower.close()
        self._follower = self._follow()
        self._listener.away(why)

    def nudge(self) -> None:
        """Look for the host again now."""
        self._follower.start()
        self._follower.nudge()
