"""A reader that pauses often: the host waits, and nothing piles up on our side."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fakes.links import find_host, make_pool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from fakes.sshd import Sshd
    from holdfast_daemon.connection.channel import Channel

SIZE = 64 * 1024 * 1024
BITE = 256 * 1024
WINDOW = 2 * 1024 * 1024
PAUSE = 0.002


class Nibbler:
    """Pauses after every bite, and reads on a moment later."""

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.taken = 0
        self.held = 0
        self._since = 0

    def received(self, stream: Stream, data: bytes) -> None:
        """Take `data`, and look at what the library still holds."""
        assert stream is Stream.OUT
        self.taken += len(data)
        self._since += len(data)
        library = getattr(self.channel, "_channel", None)
        rest: list[tuple[bytes, int | None]] = getattr(library, "_recv_buf", [])
        self.held = max(self.held, sum(len(piece) for piece, _ in rest))
        if self._since >= BITE and self.channel is not None:
            self._since = 0
            self.channel.pause()
            # Later than the next packets: they are what the library must hold.
            asyncio.get_running_loop().call_later(PAUSE, self.channel.resume)


async def test_a_reader_that_pauses_often_holds_no_more_than_a_window(
    sshd: Sshd,
) -> None:
    """EX-12: memory stays flat whatever the command prints.

    On BUGGY code: each resume that was cut short by the next pause granted the host a
    whole window again, and 60 MiB of 1 GiB were held in memory.
    """
    host = await find_host(sshd.config)
    async with make_pool() as pool, await pool.lease(host) as lease:
        reader = Nibbler()
        channel = await lease.open(f"head -c {SIZE} /dev/zero", reader)
        reader.channel = channel
        channel.eof()
        end = await channel.ended()
    assert (end.exit_code, reader.taken) == (0, SIZE)
    assert reader.held <= 2 * WINDOW
