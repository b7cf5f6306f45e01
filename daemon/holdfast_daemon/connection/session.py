"""One channel as the SSH library calls it, and as those who run commands see it."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import asyncssh
from asyncssh.constants import EXTENDED_DATA_STDERR, OPEN_CONNECT_FAILED

from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from asyncssh import SSHClientChannel

    from holdfast_daemon.connection.channel import Sink

_log = logging.getLogger(__name__)

_CHUNK = 64 * 1024
NO_STATUS = "the server closed the channel without an exit status"
_CLOSED = "the channel was closed by holdfast"
_CUT = "the connection was lost"
# A server closes a channel only when what was sent there is taken: by a program that
# reads nothing never. Nobody waits longer for its word than that.
_PARTING_SECONDS = 5.0
_LEFT = "its channel serves another"
# The library's word for a direction on which neither EOF nor CLOSE has come. It has no
# public name for it.
_OPEN = "open"


class Session(asyncssh.SSHClientSession[bytes]):
    """Hands output straight to its sink; there is no buffer of its own.

    Attributes:
        sent: The command went out.
        abandoned: Nobody waits for it any more.
        waited: A shell had waited for the command.
        answered: The host told how it ended, or at least ended its output.
    """

    def __init__(
        self,
        describe_loss: Callable[[Exception | None], str | None],
        sink: Sink,
        on_begin: Callable[[Session], None],
        on_end: Callable[[Session], None],
    ) -> None:
        self._describe_loss = describe_loss
        self._sink = sink
        self._on_begin = on_begin
        self._on_end = on_end
        self._channel: SSHClientChannel[bytes] | None = None
        self._room = asyncio.Event()
        self._room.set()
        self._status: int | None = None
        self._signal: str | None = None
        self._closing = ""
        self._end: asyncio.Future[ChannelEnd] = (
            asyncio.get_running_loop().create_future()
        )
        self._outcome = asyncio.Event()
        self._all_came = False
        self._paused = self._resuming = False
        self._parting: asyncio.TimerHandle | None = None
        self.sent = False
        self.abandoned = False
        self.waited = False
        self.answered = False

    @property
    def over(self) -> bool:
        """It has ended."""
        return self._end.done()

    def abandon(self) -> None:
        """Nobody waits for it any more: start nothing, or close what was started."""
        self.abandoned = True
        self.close()

    # what the library calls

    def connection_made(self, chan: SSHClientChannel[bytes]) -> None:
        """Take the open channel; the command is sent right after this."""
        self._channel = chan
        if self.abandoned:
            chan.close()
            raise asyncssh.ChannelOpenError(
                OPEN_CONNECT_FAILED, "nobody waits for it any more"
            )
        self.sent = True
        self._on_begin(self)

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Hand output on."""
        stream = Stream.ERR if datatype == EXTENDED_DATA_STDERR else Stream.OUT
        try:
            self._sink.received(stream, data)
        except Exception:  # noqa: BLE001  see below
            # One bad reader must not end the connection of all the others.
            _log.exception("a reader of output failed")
            self._closing = "its reader failed"
            self.close()

    def eof_received(self) -> bool:
        """Keep the other direction open: a command may close its output and read on."""
        return True

    def exit_status_received(self, status: int) -> None:
        """Note how the command ended."""
        self._status = status
        self._outcome.set()

    def exit_signal_received(
        self,
        signal: str,
        core_dumped: bool,  # noqa: ARG002
        msg: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
    ) -> None:
        """Note what ended the command."""
        self._signal = signal
        self._outcome.set()

    def pause_writing(self) -> None:
        """Note that the host takes no more input for now."""
        self._room.clear()

    def resume_writing(self) -> None:
        """Note that the host takes input again."""
        self._room.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the end; first what had arrived while reading was paused."""
        channel = self._channel
        if self._parting is not None:
            self._parting.cancel()
        if channel is not None:
            self._all_came = getattr(channel, "_recv_state", _OPEN) != _OPEN
            self._deliver_rest(channel)
        told = self._status is not None or self._signal is not None
        self.answered = told or self._all_came
        self._room.set()
        self._outcome.set()
        if not self._end.done():
            self._end.set_result(self._ending(exc))
        self._on_end(self)

    def _deliver_rest(self, channel: SSHClientChannel[bytes]) -> None:
        # A cut connection drops what a paused channel had received, though it is ours.
        # The library has no public name for it.
        rest: list[tuple[bytes, int | None]] = getattr(channel, "_recv_buf", [])
        for data, datatype in list(rest):
            self.data_received(data, datatype)

    def _ending(self, exc: Exception | None) -> ChannelEnd:
        lost = self._describe_loss(exc)
        warning = ""
        if not self._all_came and not self._closing:
            # sshd may tell the status before it has sent the last output
            warning = f"{lost or _CUT}; not all of the output may have come before that"
        if self._signal is not None:
            return ChannelEnd(signal=self._signal, warning=warning)
        if self._status is not None and self._status >= 0:
            return ChannelEnd(exit_code=self._status, warning=warning)
        return ChannelEnd(lost=lost or self._closing or NO_STATUS)

    # what those who run commands call

    async def write(self, data: bytes) -> None:
        """Send input, as fast as the host takes it."""
        view = memoryview(data)
        for at in range(0, len(view), _CHUNK):
            await self._room.wait()
            if self._channel is None or self.over:
                raise BrokenPipeError("the command takes no input any more")
            self._channel.write(bytes(view[at : at + _CHUNK]))
        await self._room.wait()
        if self.over:
            raise BrokenPipeError("the command takes no input any more")

    def eof(self) -> None:
        """End the input."""
        if self._channel is not None and not self.over:
            self._channel.write_eof()

    def signal(self, name: str) -> None:
        """Ask the server to signal the command."""
        if self._channel is not None and not self.over:
            self._channel.send_signal(name)

    def resize(self, cols: int, rows: int) -> None:
        """Tell the terminal's new size."""
        if self._channel is not None and not self.over:
            self._channel.change_terminal_size(cols, rows)

    def pause(self) -> None:
        """Stop reading."""
        self._paused = True
        if self._channel is not None and not self.over and not self._resuming:
            self._channel.pause_reading()

    def resume(self) -> None:
        """Read on.

        What the library held back is taken whole, even by a reader that pauses again
        meanwhile: with the first piece it grants the host a full window, so a rest
        would grow by a window at every pause.
        """
        self._paused = False
        if self._channel is None or self.over:
            return
        self._resuming = True
        try:
            self._channel.resume_reading()
        finally:
            self._resuming = False
        if self._paused:
            self._channel.pause_reading()

    def close(self) -> None:
        """Close the channel."""
        if self._channel is not None and not self.over:
            self._closing = self._closing or _CLOSED
            if self._channel.get_write_buffer_size():
                # the library would wait until the host takes it
                self._channel.abort()
            else:
                self._channel.close()
            if self._parting is None:
                loop = asyncio.get_running_loop()
                self._parting = loop.call_later(_PARTING_SECONDS, self._part)

    def _part(self) -> None:
        """Wait no more for the server's word: it counts the channel still."""
        self._room.set()
        self._outcome.set()
        if not self._end.done():
            self._end.set_result(self._ending(None))

    def leave(self) -> SSHClientChannel[bytes] | None:
        """Give up the channel, open as it is, for another use; this is over then."""
        if self.over:
            return None
        channel, self._channel = self._channel, None
        self.answered = True
        self._outcome.set()
        self._end.set_result(ChannelEnd(lost=_LEFT))
        self._on_end(self)
        return channel

    async def exited(self) -> None:
        """Wait for the outcome."""
        await self._outcome.wait()

    async def ended(self) -> ChannelEnd:
        """Wait for the end."""
        return await asyncio.shield(self._end)
