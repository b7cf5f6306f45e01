"""The only reader of a job's channel: it appends, and says when the host must wait."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast_daemon.connection.channel import Channel
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.preamble import MarkerReader
    from holdfast_daemon.exec.sudo import SudoReader
    from holdfast_daemon.output.spool import Spool
    from holdfast_daemon.streams import Stream


class JobSink:
    """Takes a command's output and its marker.

    When the disk, or a live caller, falls behind, the channel is paused: the SSH window
    closes and the host waits.
    """

    def __init__(
        self,
        job: Job,
        marker: MarkerReader | SudoReader | None,
        marker_seconds: float | None,
    ) -> None:
        """Append what arrives to the job's spool.

        The marker is waited for so long; None: until the channel ends.
        """
        self._job = job
        self._spool: Spool = job.spool
        self._marker = marker
        self._patience = marker_seconds
        self._giving_up: asyncio.TimerHandle | None = None
        self._resume: asyncio.Task[None] | None = None

    @property
    def paused(self) -> bool:
        """More may have come than was taken."""
        return self._resume is not None

    def received(self, stream: Stream, data: bytes) -> None:
        """Take output in the order in which it came."""
        marker = self._marker
        if marker is None or (marker.done and not marker.late):
            self._spool.append(stream, data)
        else:
            self._take(marker.feed(stream, data))
        channel = self._job.channel
        if channel is not None and self._resume is None and self._ahead():
            channel.pause()
            self._resume = asyncio.create_task(self._wait(channel))

    def opened(self) -> None:
        """The command was sent: from now on its marker may take only so long."""
        if self._patience is None:
            return
        if self._marker is not None and not self._marker.done:
            loop = asyncio.get_running_loop()
            self._giving_up = loop.call_later(self._patience, self.finish)

    def _stop_waiting(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None

    def _take(self, parts: list[tuple[Stream, bytes]]) -> None:
        for stream, data in parts:
            if data:
                self._spool.append(stream, data)
        marker = self._marker
        if marker is None or not marker.done:
            return
        self._stop_waiting()
        self._job.group = marker.group
        self._job.sudo_group = getattr(marker, "outer", None)
        if not marker.failure:
            self._job.begun_there.set()

    def _ahead(self) -> bool:
        pace = self._job.pace
        return self._spool.full or (pace is not None and pace.behind(self._spool.end))

    async def _wait(self, channel: Channel) -> None:
        await self._spool.drained()
        if self._job.pace is not None:
            await self._job.pace.caught_up(self._spool.end)
        self._resume = None
        channel.resume()

    def finish(self) -> None:
        """Hold nothing back any more: no marker comes."""
        if self._marker is not None and not self._marker.done:
            self._take(self._marker.finish())

    def close(self) -> None:
        """The channel has ended."""
        if self._resume is not None:
            self._resume.cancel()
        self._stop_waiting()
        self.finish()
