"""Waits until the first of several watches has seen its thing come."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from holdfast_daemon.waiting.sight import Watch


class First:
    """One wait.

    Attributes:
        index: Which came first; None: none of them did.
        hopeless: None of them can come any more.
    """

    def __init__(self, watches: Sequence[Watch]) -> None:
        """Begin nothing yet."""
        self._watches = watches
        self._unseen = set(range(len(watches)))
        self._came: set[int] = set()
        self._news = asyncio.Event()
        self._stop: BaseException | None = None
        self.index: int | None = None
        self.hopeless = False

    def stop(self, why: BaseException) -> None:
        """End the wait with `why`."""
        self._stop = why
        self._news.set()

    async def wait(
        self, seconds: float, *, look_seconds: float, interval: float
    ) -> AsyncGenerator[float]:
        """Yield how long it has been waited, every `interval`, until it is over.

        Each thing is looked at once even with no time at all, within `look_seconds`.

        Raises:
            DaemonError: One of them can't be waited for, and none came before.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = [
            asyncio.create_task(self._follow(number, watch))
            for number, watch in enumerate(self._watches)
        ]
        for task in tasks:
            task.add_done_callback(lambda _: self._news.set())
        try:
            while not self._over(tasks):
                most = max(seconds, look_seconds) if self._unseen else seconds
                left = begun + most - loop.time()
                if left <= 0:
                    return
                if not await self._something(min(left, interval)):
                    yield loop.time() - begun
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self, number: int, watch: Watch) -> None:
        await watch.look()
        self._unseen.discard(number)
        self._news.set()
        if not watch.sight().came:
            await watch.come()
        if watch.sight().came:
            # It may pass again before anybody looks.
            self._came.add(number)

    async def _something(self, seconds: float) -> bool:
        """Return whether something happened within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                await self._news.wait()
        except TimeoutError:
            return False
        self._news.clear()
        return True

    def _over(self, tasks: Sequence[asyncio.Task[None]]) -> bool:
        if self._stop is not None:
            raise self._stop
        for number, watch in enumerate(self._watches):
            if number in self._came or watch.sight().came:
                self.index = number
                return True
        done = [task for task in tasks if task.done()]
        for task in done:
            task.result()
        self.hopeless = len(done) == len(tasks)
        return self.hopeless
