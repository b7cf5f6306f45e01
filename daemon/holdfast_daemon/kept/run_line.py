"""One look at a command on a host: its two streams, and how it ended."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast_daemon.errors import LinkError, Ran, Reason
from holdfast_daemon.kept.wrapper import RunReader
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.channel import Channel, ChannelEnd, Sink

UNREAD = "what was typed in its terminal before was not finished, as with an open quote"
_COMPLAINT = 4096
# how often a host is asked whether the shell lives, while nothing is told
_LOOK_SECONDS = 10.0
# and so often what is not safe here is tried to be made so
_OWED_SECONDS = 2.0
# so long the channel waits to be told that all is safe here
_KEEP_SECONDS = 30.0
# and a host that is told to forget it ends it within so long
_HEED_SECONDS = 5.0
# the host may drop what is here, when so much came
_ACK_BYTES = 1024 * 1024
_NEVER = 65
_NONE = 66
_OVER = 70
_UNTOLD = 72


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a command ended. Absence of a code is never 0.

    Attributes:
        signal: What ended its shell.
        lost: Why nothing is known; with `gone` another line may follow it.
        cut: With `gone`: the host itself ended the line, as to drop what is safe here.
        cwd: Where the shell is.
        shell_ended: The shell ended with it, with that code or signal.
        not_begun: It never ran, and never will.
        late: The host ended it when its time was over.
    """

    exit_code: int | None = None
    signal: str | None = None
    lost: str | None = None
    gone: bool = False
    cut: bool = False
    cwd: str = ""
    shell_ended: bool = False
    not_begun: bool = False
    late: bool = False


class RunLine:
    """A channel that follows a command.

    Attributes:
        header: What the host's answer begins with.
        complaint: What the host said instead.
    """

    def __init__(
        self,
        nonce: str,
        sink: Sink,
        on_skipped: Callable[[Stream, int], None] | None = None,
        offsets: tuple[int, int] = (0, 0),
        *,
        kept_bytes: int,
        saved: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        """Follow from `offsets` on; the host keeps so much until it is told of it.

        `saved` returns whether what was handed on by then outlives this process.
        """
        self.header = secrets.token_hex(8)
        self.complaint = ""
        self._reader = RunReader(self.header, nonce)
        self._sink = sink
        self._on_skipped = on_skipped
        self._asked = offsets
        self._step = min(_ACK_BYTES, kept_bytes // 8)
        self._kept_bytes = kept_bytes
        self._saved = saved
        # what the host is known to have heard of: nothing that an earlier line said
        self._acked = 0
        self._channel: Channel | None = None
        self._said = b""
        self._began = asyncio.Event()
        # what came is not safe here, and the host must keep it
        self._owed = False
        # more came than the host knows to be here
        self._behind = asyncio.Event()
        self._forgotten = asyncio.Event()
        self._heeded = False
        self._end: asyncio.Future[RunEnd] = asyncio.get_running_loop().create_future()
        self._watch: asyncio.Task[None] | None = None
        self._refused: int | None = None

    @property
    def offsets(self) -> tuple[int, int]:
        """The absolute offsets behind what was handed on, of stdout and stderr."""
        out, err = self._reader.out.offset, self._reader.err.offset
        return (
            self._asked[0] if out is None else out,
            self._asked[1] if err is None else err,
        )

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what the host sends."""
        error = stream is Stream.ERR
        reader = self._reader.err if error else self._reader.out
        fresh = reader.offset is None
        if fresh and error:
            self._said = (self._said + data)[-_COMPLAINT:]
        printed = reader.feed(data)
        if fresh and reader.offset is not None:
            self._began_there(stream, reader.offset - len(printed))
        if printed:
            self._sink.received(stream, printed)
        if self._reader.begun and sum(self.offsets) - self._acked >= self._step:
            self._behind.set()
        if self._reader.done is not None and not self._end.done():
            self._settle_done()

    def _began_there(self, stream: Stream, offset: int) -> None:
        asked = self._asked[stream is Stream.ERR]
        if offset > asked and self._on_skipped is not None:
            self._on_skipped(stream, offset)
        if self._reader.begun:
            self._began.set()

    def _settle_done(self) -> None:
        done = self._reader.done
        assert done is not None  # noqa: S101  the caller looked
        lost = None
        if done.not_begun:
            lost = UNREAD
        elif done.exit_code is None and done.signal is None:
            lost = "its end could not be read"
        self._end.set_result(
            RunEnd(
                done.exit_code, done.signal, lost,
                cwd=done.cwd, shell_ended=done.shell_ended, late=done.late,
                not_begun=done.not_begun,
            )
        )  # fmt: skip

    def take(self, channel: Channel) -> None:
        """Use `channel`, on which the host answers."""
        self._channel = channel
        self._watch = asyncio.create_task(self._attend(channel))

    async def begun(self, seconds: float) -> int | None:
        """Wait for the host's answer; return the code it refused with.

        Raises:
            LinkError: It does not answer, or is gone; the command may run.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._began.wait()
        except TimeoutError:
            self.close()
            raise _unclear("the host did not answer") from None
        except BaseException:
            self.close()
            raise
        if self._reader.begun:
            return None
        end = await self.ended()
        if self._refused is None:
            raise _unclear(end.lost or "the connection was lost")
        return self._refused

    async def _attend(self, channel: Channel) -> None:
        over = asyncio.create_task(channel.ended())
        poked = asyncio.create_task(self._behind.wait())
        try:
            while not self._end.done():
                told: set[asyncio.Future[Any]] = {over, self._end}
                told |= set() if self._owed else {poked}
                await asyncio.wait(
                    told,
                    timeout=_OWED_SECONDS if self._owed else _LOOK_SECONDS,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if over.done():
                    self._gone(over.result())
                    return
                if poked.done():
                    self._behind.clear()
                    poked = asyncio.create_task(self._behind.wait())
                if not self._end.done():
                    await self._say(channel)
            poked.cancel()
            poked = asyncio.create_task(self._forgotten.wait())
            await asyncio.wait(
                {over, poked},
                timeout=_KEEP_SECONDS,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._forgotten.is_set() and not over.done():
                await _write(channel, b"ok\n")
                await asyncio.wait({over}, timeout=_HEED_SECONDS)
            if self._forgotten.is_set() and over.done():
                # the host itself may have ended it before that came
                self._heeded = over.result().exit_code == 0
        finally:
            self._began.set()
            over.cancel()
            poked.cancel()
            channel.close()

    async def _say(self, channel: Channel) -> None:
        out, err = self.offsets
        if out + err > self._acked:
            self._owed = self._saved is not None and not await self._saved()
            if self._owed:
                await _write(channel, b"owed\n")
                return
            self._acked = out + err
            await _write(channel, f"ack {out} {err}\n".encode())
            return
        # a host with a full disk may have taken the last one for nothing, and waits
        again = f"ack {out} {err}\n" if self._acked >= self._kept_bytes else ""
        await _write(channel, f"{again}look\n".encode())

    def _gone(self, end: ChannelEnd) -> None:
        self.complaint = self._said.decode("utf-8", "replace").strip()[-500:]
        if self._end.done():
            return
        if end.exit_code is not None and not self._reader.begun:
            self._refused = end.exit_code
        never, none = self._refused == _NEVER, self._refused == _NONE
        lost = end.lost or f"the host stopped telling: {self.complaint or 'no reason'}"
        over, full = end.exit_code == _OVER, end.exit_code == _UNTOLD
        if full:
            lost = "its host's disk was full: some of it, and how it ended, is lost"
        if over:
            lost = "the shell was gone before it told how the command ended"
        if none:
            # it may have ended, and been forgotten
            lost = "its host keeps nothing of it any more"
        gone = not (never or none or over or full)
        cut = gone and end.lost is None
        self._end.set_result(RunEnd(lost=lost, gone=gone, cut=cut, not_begun=never))

    def pause(self) -> None:
        """Stop reading; the host then waits, or keeps what comes."""
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        """Read on."""
        if self._channel is not None:
            self._channel.resume()

    def forget(self) -> bool:
        """Have the host forget it: its end is known, and all of it is safe here.

        False where the channel was not kept for so long.
        """
        self._forgotten.set()
        return self._watch is not None and not self._watch.done()

    async def heeded(self) -> bool:
        """Wait until the host has heard that; False: it may not have."""
        if self._watch is not None:
            await asyncio.wait({self._watch})
        return self._heeded

    def close(self) -> None:
        """Look no more; the command goes on."""
        if not self._end.done():
            self._end.set_result(RunEnd(lost="nobody follows it any more", gone=True))
        if self._watch is not None:
            self._watch.cancel()

    async def ended(self) -> RunEnd:
        """Wait until the command's end is known, or nothing more can be here."""
        return await asyncio.shield(self._end)


async def _write(channel: Channel, data: bytes) -> None:
    try:
        await channel.write(data)
    except BrokenPipeError:
        # it is told how the channel ended
        return


def _unclear(why: str) -> LinkError:
    return LinkError(
        Reason.CONNECTION_LOST,
        f"whether the command was told to its shell is not known: {why}",
        hint="Follow it: the host knows.",
        ran=Ran.UNKNOWN,
    )
