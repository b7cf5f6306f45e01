"""Between rsync's descriptors and a channel: who lets go of one leaves no trace."""

from __future__ import annotations

import asyncio
import os

from holdfast_daemon.connection.channel import Channel, ChannelEnd
from holdfast_daemon.transfer.sync.wire import Wire


class Nowhere(Channel):
    """A channel that takes all, and says nothing."""

    waited = False

    async def write(self, data: bytes) -> None:
        """Take it."""

    def eof(self) -> None:
        """Hear of the end."""

    def signal(self, name: str) -> None:
        """Do nothing."""

    def resize(self, cols: int, rows: int) -> None:
        """Do nothing."""

    def pause(self) -> None:
        """Do nothing."""

    def resume(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""

    async def exited(self) -> None:
        """Say so at once."""

    async def ended(self) -> ChannelEnd:
        """Say so at once."""
        return ChannelEnd(exit_code=0)


async def test_a_descriptor_that_is_closed_is_waited_for_no_more() -> None:
    """FI-15: its number is another's at once, who must hear of what comes there."""
    source, into = os.pipe()
    out, sink = os.pipe()
    wire = Wire(source, sink, lambda _: None)
    carrying = asyncio.create_task(wire.carry(Nowhere()))
    # it has found nothing, and waits
    await asyncio.sleep(0)
    assert not carrying.done()
    wire.close()
    loop = asyncio.get_running_loop()
    came = loop.create_future()
    other, mine = os.pipe()
    assert other == source
    loop.add_reader(other, came.set_result, None)
    async with asyncio.timeout(30):
        await carrying
        os.write(mine, b"x")
        await came
    assert loop.remove_reader(other)
    for one in (other, mine, into, out):
        os.close(one)
