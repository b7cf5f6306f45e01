"""One channel of a copy: a script, what is sent behind it, and what it sends back."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.connection.shell import quote
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.file.script import shown
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from holdfast_daemon.connection.channel import Channel
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.file.script import Script

# So much of what has come waits for the disk at most.
_FULL = 16 * 1024 * 1024
_LOW = 4 * 1024 * 1024
_HEAD_BYTES = 4 * 1024 * 1024
# An answer with more is none: so much for each name there may be, and so much at least.
_NAME_BYTES = 1024
_REST_BYTES = 16 * 1024 * 1024
_SAID_BYTES = 16 * 1024
# So much goes at once, and has `idle` s for it: of a slow link that is little.
_SLICE = 64 * 1024
# A slow host's disk and checksum.
_SUMS_A_SECOND = 10_000_000
# What was written may be on its way still: a window of each channel, over a slow link.
_ON_ITS_WAY = 2 * 1024 * 1024
_SLOWEST = 16 * 1024


class Reply(NamedTuple):
    """What a script answered first; its fields are bytes as the host has them.

    Attributes:
        said: What the host complained of beside.
    """

    ok: bool
    fields: tuple[bytes, ...]
    said: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields for people."""
        return tuple(shown(one) for one in self.fields)


class Cut(Exception):  # noqa: N818  a state first, an error second
    """The channel ended, or stood still, before what was asked for was done."""


class Intake:
    """Takes the answer of a script, and holds the host back where nobody reads.

    Attributes:
        said: What the host complained of beside.
    """

    def __init__(self, mark: bytes) -> None:
        """Read answers between `mark`s."""
        self._mark = mark
        self._head = bytearray()
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._grown = asyncio.Event()
        self._paused = False
        self.reply: Reply | None = None
        self.said = bytearray()
        self.channel: Channel | None = None
        self.over = False

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what the host sends."""
        if stream is Stream.ERR:
            self.said += data[: _SAID_BYTES - len(self.said)]
            return
        if self.reply is None:
            self._head += data
            data = self._begin()
        if data:
            self._pieces.append(data)
            self._waiting += len(data)
            if self._waiting > _FULL and not self._paused and self.channel is not None:
                self._paused = True
                self.channel.pause()
        self._grown.set()

    def _begin(self) -> bytes:
        """Look for the first answer; return what came behind it."""
        at = self._head.find(self._mark)
        end = self._head.find(self._mark, at + 1) if at >= 0 else -1
        if end < 0:
            if at < 0:
                # what start-up files print; a mark may have begun at its end
                del self._head[: -len(self._mark)]
            elif len(self._head) > _HEAD_BYTES and self.channel is not None:
                self.channel.close()
            return b""
        end += len(self._mark)
        word, *fields, _ = bytes(self._head[at:end]).split(b"\0")[1:-1]
        self.reply = Reply(word == b"ok", tuple(fields))
        rest = bytes(self._head[end:])
        self._head.clear()
        return rest

    def end(self) -> None:
        """Note that nothing more comes."""
        self.over = True
        self._grown.set()

    async def answered(self, seconds: float) -> Reply:
        """Wait for the first answer.

        Raises:
            Cut: It did not come.
        """
        while self.reply is None:
            if self.over:
                raise Cut(self.complaint or "the host gave no answer")
            await self._more(seconds)
        return self.reply

    async def take(self, seconds: float) -> list[bytes]:
        """Return what has come since; empty: nothing more comes.

        Raises:
            Cut: Nothing came for too long.
        """
        while not self._pieces and not self.over:
            await self._more(seconds)
        found = list(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        if self._paused and self.channel is not None:
            self._paused = False
            self.channel.resume()
        return found

    async def _more(self, seconds: float) -> None:
        self._grown.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._grown.wait()
        except TimeoutError:
            raise Cut(f"nothing came for {seconds:g} s") from None

    @property
    def complaint(self) -> str:
        """What the host complained of, as one line."""
        return " ".join(bytes(self.said).decode("utf-8", "replace").split())


class Wire:
    """The host's end of a copy: scripts run there, with data in and out."""

    def __init__(
        self,
        lease: Lease,
        facts: ShellFacts,
        idle: float,
        names: int,
        *,
        together: int = 1,
    ) -> None:
        """Open channels by `lease`; one that stands still for `idle` s is given up.

        `names`: so many may be told of. `together`: so many channels share the link.
        """
        self._together = together
        self.lease = lease
        self._facts = facts
        self._idle = idle
        self._most = max(_REST_BYTES, names * _NAME_BYTES)

    @contextlib.asynccontextmanager
    async def _opened(
        self, script: Script, data: bytes = b""
    ) -> AsyncGenerator[tuple[Channel, Intake]]:
        intake = Intake(script.mark)
        line = f"exec /bin/sh -c {shlex.quote(script.command)}"
        if self._facts.wraps:
            line = f"exec /bin/sh -c {quote(script.command, self._facts.family)}"
        channel = await self.lease.open(line, intake, stdin=script.text + data)
        intake.channel = channel
        ending = asyncio.create_task(_end(channel, intake))
        try:
            yield channel, intake
        finally:
            channel.close()
            ending.cancel()
            await asyncio.gather(ending, return_exceptions=True)

    def _patience(self, summed: int) -> float:
        return self._idle + summed / _SUMS_A_SECOND

    async def ask(
        self, script: Script, data: bytes = b"", *, summed: int = 0
    ) -> tuple[Reply, bytes]:
        """Run a script with `data` behind it; return its answer, and all behind that.

        `summed`: so many bytes the host adds up before it answers.

        Raises:
            Cut: It gave no whole answer.
            StateError: It has no end.
        """
        async with self._opened(script) as (channel, intake):
            await self._write(channel, data)
            channel.eof()
            reply = await intake.answered(self._patience(summed))
            rest: list[bytes] = []
            count = 0
            while pieces := await intake.take(self._idle):
                rest += pieces
                count += sum(map(len, pieces))
                if count > self._most:
                    raise _endless(self._most)
            await self._sure(channel)
            said = bytes(intake.said).decode("utf-8", "replace")
            return reply._replace(said=said), b"".join(rest)

    async def give(
        self, script: Script, pieces: AsyncIterator[bytes], *, summed: int = 0
    ) -> Reply:
        """Run a script that takes `pieces`; return its answer.

        `summed`: as for `ask`.

        Raises:
            Cut: It gave none.
        """
        async with self._opened(script) as (channel, intake):
            count = 0
            try:
                async for piece in pieces:
                    await self._write(channel, piece)
                    count += len(piece)
            except BrokenPipeError:
                # it says why
                await intake.answered(self._idle)
            channel.eof()
            # A link that is gone is noticed otherwise, and ends the channel.
            late = min(count, _ON_ITS_WAY) * self._together / _SLOWEST
            return await intake.answered(self._patience(summed) + late)

    async def take(
        self, script: Script, data: bytes = b""
    ) -> AsyncIterator[list[bytes]]:
        """Run a script with `data` behind it, and yield what it sends until its end.

        Raises:
            Cut: It did not come to its end.
            Refused: It refused at its start.
        """
        async with self._opened(script) as (channel, intake):
            feeding = asyncio.create_task(self._feed(channel, data))
            try:
                reply = await intake.answered(self._idle)
                # it may end with the connection, which was of use all the same
                self.lease.link.proven = True
                if not reply.ok:
                    raise Refused(reply)
                while pieces := await intake.take(self._idle):
                    yield pieces
                await self._sure(channel, intake)
            finally:
                feeding.cancel()
                await asyncio.gather(feeding, return_exceptions=True)

    async def _feed(self, channel: Channel, data: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):
            await self._write(channel, data)
            channel.eof()

    async def _write(self, channel: Channel, data: bytes) -> None:
        try:
            for at in range(0, len(data), _SLICE):
                async with asyncio.timeout(self._idle):
                    await channel.write(data[at : at + _SLICE])
        except TimeoutError:
            raise Cut(f"the host took nothing for {self._idle:g} s") from None

    async def _sure(self, channel: Channel, intake: Intake | None = None) -> None:
        """Raise where the end was none of the script's own."""
        end = await channel.ended()
        if end.lost is not None or end.signal is not None:
            raise Cut(end.lost or f"it was ended by {end.signal}")
        if intake is not None and end.exit_code:
            raise Troubled(intake.complaint)


class Refused(Exception):  # noqa: N818  a state first, an error second
    """The script said no."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(" ".join(reply.texts))
        self.reply = reply


class Troubled(Exception):  # noqa: N818  a state first, an error second
    """It came to its end, and not all was well."""


async def _end(channel: Channel, intake: Intake) -> None:
    await channel.ended()
    intake.end()


def _endless(most: int) -> StateError:
    return StateError(
        Reason.FILE_FAILED,
        f"the host told more than {most >> 20} MiB of names",
        hint="Copy parts of it; copy_names in the configuration raises the limit.",
    )


class NoShell(StateError):  # noqa: N818  a state first, an error second
    """The host can run no script."""

    def __init__(self, where: str) -> None:
        """Name the host."""
        super().__init__(
            Reason.UNSUPPORTED,
            f"{where} has no POSIX shell for this account: nothing was copied",
            hint="ssh_sync copies directories there by SFTP.",
        )
