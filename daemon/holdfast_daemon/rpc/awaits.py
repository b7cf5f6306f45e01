"""Waits for a session's output, which end with the daemon at the latest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from holdfast.v1 import common_pb2
from holdfast_daemon.output.awaiting import await_text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from holdfast_daemon.output.until import Until
    from holdfast_daemon.session.session import Session


class Awaits:
    """All such waits."""

    def __init__(self) -> None:
        """Wait for nothing yet."""
        self._over = asyncio.Event()

    def close(self) -> None:
        """End them: the daemon is stopping, and what its host keeps prints on."""
        self._over.set()

    async def signs(
        self,
        session: Session,
        until: Until,
        *,
        offset: int,
        seconds: float,
        interval: float,
    ) -> AsyncIterator[common_pb2.Progress]:
        """Yield signs of life until `until` is met or `seconds` are over."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        waiting = asyncio.create_task(
            await_text(session.spool, until, offset=offset, seconds=seconds)
        )
        over = asyncio.create_task(self._over.wait())
        try:
            while True:
                done, _ = await asyncio.wait(
                    {waiting, over},
                    timeout=interval,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if waiting in done:
                    waiting.result()
                if done:
                    return
                yield common_pb2.Progress(
                    progress=round(loop.time() - begun, 3),
                    message=session.spool.last_line,
                )
        finally:
            waiting.cancel()
            over.cancel()
            await asyncio.gather(waiting, over, return_exceptions=True)
