"""Fetches a file that is mostly holes as its data alone, where the host's tar can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.transfer.here.holes import Filler, resize
from holdfast_daemon.transfer.means.apart import apart
from holdfast_daemon.transfer.means.stream import Refused, Troubled
from holdfast_daemon.transfer.shell import words
from holdfast_daemon.transfer.tree.thin import BrokenError, Reader

if TYPE_CHECKING:
    from holdfast_daemon.file.script import Script
    from holdfast_daemon.transfer.means.errand import Means
    from holdfast_daemon.transfer.means.stream import Wire

# A smaller file is sent as it is.
_LEAST = 16 * 1024 * 1024
# A cut has it begin anew, so no more data than this goes so.
_MOST = 256 * 1024 * 1024
_SHARE = 2


async def take_thin(
    wire: Wire, folder_name: tuple[bytes, bytes], size: int, file: int, means: Means
) -> Filler | None:
    """Fetch a whole file so; None: it has to come as it is, and nothing is there.

    Raises:
        Cut: The way was lost.
        Refused: The host refused it.
    """
    if size < _LEAST:
        return None
    script = words.send_thin(*folder_name, min(size // _SHARE, _MOST))
    reader, filler = Reader(size), await apart(Filler, file)
    right = False
    try:
        right = await _take(wire, script, reader, filler, means)
        right = right and reader.size == size and filler.at <= size
    except (BrokenError, Troubled):
        right = False
    except Refused as refused:
        if refused.reply.fields[:1] != (b"dense",):
            raise
    finally:
        if not right:
            means.tally.take_back(filler.taken)
    if not right:
        await apart(resize, file, 0)
        return None
    await apart(filler.end, size)
    means.tally.find(size - filler.taken)
    return filler


async def _take(
    wire: Wire, script: Script, reader: Reader, filler: Filler, means: Means
) -> bool:
    """Write what comes; return whether all of it came."""
    async for pieces in wire.take(script):
        for data in pieces:
            found = reader.feed(data)
            count = sum(len(piece) for _, piece in found)
            await apart(filler.put, found)
            means.tally.move(count)
            await means.rate.take(count)
    return reader.whole
