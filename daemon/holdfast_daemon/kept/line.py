"""One attachment to something kept: its bytes, its input, and how it came to an end."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from holdfast_daemon.kept import script
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.connection.channel import Channel, ChannelEnd, Sink
    from holdfast_daemon.kept.reader import AttachReader

_NONE = 66
_LOST = 70
_UNTOLD = (
    "it ended, and how is lost: its host's disk was full, or what kept its output was"
    " killed"
)


@dataclass(frozen=True, slots=True)
class LineEnd:
    """How an attachment ended.

    Attributes:
        kind: `exited`: its shell ended, and all it printed was handed on. `gone`: link
            or channel were lost; attach again. `none`: nothing is kept there any more,
            or nothing will come any more and nobody knows how it ended.
        why: In words, or `host_restarted` and `killed`.
    """

    kind: Literal["exited", "gone", "none"]
    exit_code: int | None = None
    signal: str | None = None
    why: str = ""


class Line:
    """One attachment.

    Attributes:
        offset: The absolute offset behind what was handed to the sink.
        earliest: The first byte the host still has.
        absent: Nothing was begun: the host has not got the script.
    """

    def __init__(
        self,
        reader: AttachReader,
        sink: Sink,
        asked: int,
        on_skipped: Callable[[int], None] | None = None,
    ) -> None:
        self._reader = reader
        self._on_skipped = on_skipped
        self._sink = sink
        self._asked = asked
        self._channel: Channel | None = None
        self._end: LineEnd | None = None
        self._complaint = b""
        self._began = asyncio.Event()
        self._ended: asyncio.Future[LineEnd] = (
            asyncio.get_running_loop().create_future()
        )
        self._watch: asyncio.Task[None] | None = None
        self._closed = False
        self.absent = False

    @property
    def offset(self) -> int:
        """The absolute offset behind what was handed to the sink."""
        return self._asked if self._reader.offset is None else self._reader.offset

    @property
    def answered(self) -> bool:
        """The host has told where it begins."""
        return self._reader.offset is not None

    @property
    def earliest(self) -> int:
        """The first byte the host still has."""
        return self._reader.earliest

    def received(self, stream: Stream, data: bytes) -> None:
        """Take what the channel brings."""
        if stream is Stream.ERR:
            self._complaint = (self._complaint + data)[-1000:]
            return
        if self._closed or self._end is not None:
            return
        out = self._reader.feed(data)
        offset = self._reader.offset
        if offset is not None and not self._began.is_set():
            self._began.set()
            self._begin(offset - len(out))
            if self._end is not None:
                return
        if out:
            self._sink.received(Stream.OUT, out)
        trailer = self._reader.trailer
        if trailer is not None:
            if trailer.exit_code is None and trailer.signal is None:
                self._over(LineEnd("none", why="killed"))
            else:
                self._over(LineEnd("exited", trailer.exit_code, trailer.signal))
            self.close()

    def _begin(self, offset: int) -> None:
        """Compare where the host begins with what was asked of it."""
        if offset < self._asked:
            why = f"the host has {offset} bytes of the {self._asked} that were read"
            self._over(LineEnd("none", why=why))
            self.close()
        elif offset > self._asked and self._on_skipped is not None:
            self._on_skipped(offset)

    def take(self, channel: Channel) -> None:
        """Be the line on `channel`."""
        self._channel = channel
        if self._end is not None:
            channel.close()
        self._watch = asyncio.create_task(self._wait(channel))

    async def begun(self, seconds: float) -> None:
        """Wait for the host's header, or the end, or `seconds`, which ends it."""
        try:
            async with asyncio.timeout(seconds):
                await self._began.wait()
        except TimeoutError:
            self._over(LineEnd("gone", why=f"no answer within {seconds:g} s"))
            self.close()
        except BaseException:
            self.close()
            raise

    async def write(self, data: bytes) -> None:
        """Send `data` to its input, waiting while the host takes no more.

        Raises:
            BrokenPipeError: It is gone; how much of it arrived is not known.
        """
        if self._channel is None or self._end is not None:
            raise BrokenPipeError
        await self._channel.write(data)

    def pause(self) -> None:
        """Stop reading; the host then waits."""
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        """Read on."""
        if self._channel is not None:
            self._channel.resume()

    def close(self) -> None:
        """Leave; what is kept goes on."""
        self._closed = True
        if self._channel is not None:
            self._channel.close()

    async def ended(self) -> LineEnd:
        """Wait for its end, which comes after all its output was handed on."""
        return await asyncio.shield(self._ended)

    def _over(self, end: LineEnd) -> None:
        if self._end is None:
            self._end = end
            self._began.set()
            self._ended.set_result(end)

    async def _wait(self, channel: Channel) -> None:
        self._over(self._outcome(await channel.ended()))
        channel.close()

    def _outcome(self, end: ChannelEnd) -> LineEnd:
        said = self._complaint.decode("utf-8", "replace").strip()
        away = "it was closed" if self._closed else end.lost
        if away is not None:
            return LineEnd("gone", why=away)
        if end.exit_code == 0 and self._reader.offset is not None:
            # all there will ever be was handed on, and nothing told how it ended
            return LineEnd("none", why=_UNTOLD)
        if end.exit_code == _NONE:
            return LineEnd("none", why="nothing is kept there under this id")
        if end.exit_code == _LOST:
            return LineEnd("none", why=said.rpartition("holdfast:")[2] or "killed")
        if end.exit_code == script.ABSENT and self._reader.offset is None:
            self.absent = True
            return LineEnd("none", why="the host has not got the script")
        if end.exit_code == script.ELSEWHERE:
            said = script.elsewhere(said)
        return LineEnd("gone", why=said or f"the channel ended: {end}")
