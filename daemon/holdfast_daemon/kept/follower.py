"""Stays attached to something kept, through lost links, until it comes to an end."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.returning import Returning
from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason
from holdfast_daemon.kept.line import LineEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.channel import Sink
    from holdfast_daemon.kept.keeper import Keeper
    from holdfast_daemon.kept.line import Line

_FIRST = 0.1
_MOST = 30.0
# an attachment that held for so long shows a host that is back, though nothing was said
_LASTING_SECONDS = 5.0


def _nothing(*_told: object) -> None:
    """Tell nobody."""


class Follower:
    """One attachment that comes again by itself.

    Nothing that was written is ever written again.

    Attributes:
        away: Why it is not attached now; empty while it is.
        end: How it ended, once it has.
    """

    def __init__(
        self,
        keeper: Keeper,
        ident: str,
        nonce: str,
        offset: Callable[[], int],
        sink: Sink,
        *,
        input: bool = True,  # noqa: A002  as Keeper.attach has it
        on_away: Callable[[str], None] = _nothing,
        on_back: Callable[[], None] = _nothing,
        on_end: Callable[[LineEnd], None] = _nothing,
        on_skipped: Callable[[int], None] = _nothing,
    ) -> None:
        self._keeper = keeper
        self._ident = ident
        self._nonce = nonce
        self._offset = offset
        self._sink = sink
        self._input = input
        self._on_away = on_away
        self._on_back = on_back
        self._on_end = on_end
        self._on_skipped = on_skipped
        self._backoff = Backoff(_FIRST, _MOST, random.random)
        self._returning = Returning(
            keeper.asking.pool, keeper.host, keeper.asking.limits
        )
        self._nudged = asyncio.Event()
        self._attached = asyncio.Event()
        self._line: Line | None = None
        self._paused = False
        self._told_away = False
        self._task: asyncio.Task[None] | None = None
        self.away = "it is not attached yet"
        self.end: LineEnd | None = None

    def start(self) -> None:
        """Attach, and stay so; returns at once."""
        if self._task is None:
            self._task = asyncio.create_task(self._follow())

    def nudge(self, *, asked: bool = True) -> None:
        """Try again now where it waits to: somebody asks, or the network is back."""
        if asked:
            self._returning.free()
        self._nudged.set()

    async def attached(self) -> None:
        """Wait until it is attached, or has ended."""
        await self._attached.wait()

    async def ended(self) -> LineEnd:
        """Wait until there is nothing to follow any more, or `close`."""
        if self._task is not None:
            await asyncio.wait([self._task])
            # one that was closed must not cancel who waits for it
            if self.end is None and not self._task.cancelled():
                # a fault of ours, which is told to who waits
                await self._task
        return self.end or LineEnd("gone", why="it is not followed")

    async def write(self, data: bytes) -> None:
        """Send `data` to its input, once.

        Raises:
            LinkError: The link was away, and nothing was sent; or it went meanwhile,
                and how much arrived is not known.
        """
        line = self._line
        if line is None:
            raise LinkError(
                Reason.CONNECTION_LOST,
                f"{self._keeper.host.shown} can't be reached now: {self.away}",
                hint="Nothing was typed. It is tried again all the time; call again.",
                ran=Ran.NO,
            )
        try:
            await line.write(data)
        except BrokenPipeError:
            raise LinkError(
                Reason.CONNECTION_LOST,
                f"the link to {self._keeper.host.shown} was lost while typing",
                hint="Read the output first: what was typed may have arrived.",
                ran=Ran.UNKNOWN,
            ) from None

    def pause(self) -> None:
        """Stop reading; the host then waits."""
        self._paused = True
        if self._line is not None:
            self._line.pause()

    def resume(self) -> None:
        """Read on."""
        self._paused = False
        if self._line is not None:
            self._line.resume()

    async def close(self) -> None:
        """Leave; what is kept goes on."""
        task = self._task
        if task is not None and not task.done():
            task.cancel()
            await asyncio.wait([task])
        if self._line is not None:
            self._line.close()
            self._line = None
        if self.end is None:
            self.end = LineEnd("gone", why="it was closed")
        self._attached.set()

    async def _follow(self) -> None:
        while self.end is None:
            before = self._offset()
            end = await self._once()
            if end.kind != "gone":
                self._finish(end)
                return
            self._went(end.why)
            if self._offset() > before:
                self._backoff.succeeded()
            await self._wait(self._backoff.failed())

    async def _once(self) -> LineEnd:
        """Attach once; return how that ended."""
        self._nudged.clear()
        if not await self._returning.may():
            return LineEnd("gone", why=self.away)
        try:
            line = await self._keeper.attach(
                self._ident,
                self._nonce,
                self._offset(),
                self._sink,
                input=self._input,
                on_skipped=self._on_skipped,
            )
        except DaemonError as error:
            # what goes wrong here or at the login says nothing of what is kept; nor
            # does a full disk there, which takes no script to ask it by
            await self._returning.met(error)
            return LineEnd("gone", why=error.message)
        self._returning.free()
        try:
            if self._paused:
                line.pause()
            if not line.answered:
                return await line.ended()
            self._line = line
            self._came()
            loop = asyncio.get_running_loop()
            since = loop.time()
            end = await line.ended()
            if loop.time() - since >= _LASTING_SECONDS:
                self._backoff.succeeded()
            return end
        finally:
            self._line = None
            line.close()

    def _came(self) -> None:
        if self.away:
            self.away = ""
            self._told_away = False
            self._on_back()
        self._attached.set()

    def _went(self, why: str) -> None:
        self._attached.clear()
        # also of one that was away when it was to be followed first
        if not self._told_away:
            self._told_away = True
            self._on_away(why)
        self.away = why or "the link was lost"

    def _finish(self, end: LineEnd) -> None:
        self.end = end
        self.away = self.away or "it has ended"
        self._attached.set()
        self._on_end(end)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._nudged.wait()
        except TimeoutError:
            return
