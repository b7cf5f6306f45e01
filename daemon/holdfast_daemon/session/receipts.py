"""Tells a host what of a kept shell's output is safe here: it need not keep that."""

from __future__ import annotations

import asyncio
import logging
from random import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.kept.keeper import Keeper
    from holdfast_daemon.output.spool import Spool

_log = logging.getLogger(__name__)

_SECONDS = 1.0
_MOST_SECONDS = 15.0
_BYTES = 1024 * 1024


class Receipts:
    """Receipts for one shell's output, now and then while it comes."""

    def __init__(
        self,
        keeper: Keeper,
        ident: str,
        spool: Spool,
        offset: Callable[[], int],
        *,
        kept_bytes: int,
    ) -> None:
        """Give them for what came before `offset`; the host keeps so much without."""
        self._keeper = keeper
        self._ident = ident
        self._spool = spool
        self._offset = offset
        # little of it harms nobody, and each costs the host a process
        self._step = min(_BYTES, kept_bytes // 8)
        # so much it is about to wait for
        self._pressing = kept_bytes // 4
        # what the host is known to have heard of
        self._told = 0
        self._timer: asyncio.TimerHandle | None = None
        self._giving: asyncio.Task[None] | None = None
        self._pauses = Backoff(_SECONDS, _MOST_SECONDS, random)
        # the last one did not arrive, and the timer is for the next try
        self._failed = False
        self._away = False

    def came(self) -> None:
        """More came."""
        self._away = False
        if self._giving is not None or self._failed:
            return
        if self._offset() - self._told >= self._pressing:
            self._stop_timer()
            self._begin()
        elif self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(_SECONDS, self._begin)

    def again(self) -> None:
        """The host is there again; what it was told last may not have reached it."""
        self._told = 0
        self.stop()
        self.came()

    def stop(self) -> None:
        """Nothing more comes for now."""
        self._away, self._failed = True, False
        self._pauses.succeeded()
        self._stop_timer()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def leave(self) -> None:
        """Give none any more, whatever comes."""
        self.stop()
        if self._giving is not None:
            self._giving.cancel()
            await asyncio.gather(self._giving, return_exceptions=True)

    def _begin(self) -> None:
        self._timer, self._failed = None, False
        if self._giving is None and self._offset() - self._told >= self._step:
            self._giving = asyncio.create_task(self._give())

    async def _give(self) -> None:
        safe, arrived = self._offset(), False
        try:
            if await self._spool.sync():
                await self._keeper.ack(self._ident, "out", safe)
                arrived = True
            else:
                _log.debug("nothing is safe here now: %s", self._spool.fault)
        except DaemonError as error:
            _log.debug("the host keeps more than it need: %s", error.message)
        finally:
            self._giving = None
        if arrived:
            self._told = safe
            self._pauses.succeeded()
            if not self._away:
                self.came()
        else:
            self._try_again()

    def _try_again(self) -> None:
        """Set the time for it: a host that waits for this one prints nothing more."""
        # one that is away is told once it is attached again
        if not self._away:
            self._failed = True
            loop = asyncio.get_running_loop()
            self._stop_timer()
            self._timer = loop.call_later(self._pauses.failed(), self._begin)
