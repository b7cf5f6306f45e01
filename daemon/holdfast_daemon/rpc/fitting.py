"""Gives a session the size of the terminal that is typed at, until it has it.

One try at a time, and always the newest size. It is done beside what is typed: a host
that takes long to answer must not hold up keys.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Protocol

from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

# Between tries at a host that does not take it; it doubles.
_PAUSE_SECONDS = 0.25
_LONGEST_SECONDS = 8.0
# What is typed next finds the new size, where the host answers within this.
_AHEAD_SECONDS = 1.0


class Fitted(Protocol):
    """A session as something that has a size."""

    @property
    def id(self) -> str:
        """Handle."""
        ...

    @property
    def running(self) -> bool:
        """Its shell runs."""
        ...

    @property
    def cols(self) -> int:
        """Width of its terminal."""
        ...

    @property
    def rows(self) -> int:
        """Height of its terminal."""
        ...

    async def resize(self, cols: int, rows: int) -> None:
        """Give its terminal another size."""
        ...


class Fitting:
    """Fits one session to one terminal.

    Attributes:
        size: Columns and rows of that terminal; None: not known.
    """

    def __init__(
        self,
        session: Fitted,
        mine: Callable[[], bool],
        failed: Callable[[Exception], None],
    ) -> None:
        """Fit `session` while the keyboard is `mine`; `failed` hears of a fault."""
        self._session = session
        self._mine = mine
        self._failed = failed
        self._trying: asyncio.Task[None] | None = None
        self._again = asyncio.Event()
        self._until = 0.0
        self.size: tuple[int, int] | None = None

    @property
    def _due(self) -> bool:
        session = self._session
        fits = self.size in (None, (session.cols, session.rows))
        return not fits and session.running and self._mine()

    def begin(self) -> None:
        """Have it fitted, if it does not fit."""
        self._again.set()
        if not self._due:
            return
        self._until = asyncio.get_running_loop().time() + _AHEAD_SECONDS
        if self._trying is None or self._trying.done():
            self._trying = asyncio.create_task(self._try())
            self._trying.add_done_callback(self._tried)

    async def ahead(self) -> None:
        """Wait for it before something is typed, but not for long."""
        left = self._until - asyncio.get_running_loop().time()
        if self._trying is not None and not self._trying.done() and left > 0:
            await asyncio.wait({self._trying}, timeout=left)

    def _tried(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._failed(error)

    async def _try(self) -> None:
        session, pause = self._session, _PAUSE_SECONDS
        while self._due and self.size is not None:
            self._again.clear()
            try:
                await session.resize(*self.size)
            except DaemonError as error:
                _log.info("session %s keeps its size: %s", session.id, error.message)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._again.wait()
                pause = min(2 * pause, _LONGEST_SECONDS)

    async def close(self) -> None:
        """Try no more."""
        if self._trying is not None:
            self._trying.cancel()
            await asyncio.gather(self._trying, return_exceptions=True)
