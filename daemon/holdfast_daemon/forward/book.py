"""What is written down of durable forwards, whether somebody keeps them now or not."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from holdfast_daemon.forward import store

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.forward.forward import Forward
    from holdfast_daemon.forward.store import Saved

_log = logging.getLogger(__name__)


class Book:
    """The file of the durable ones.

    Attributes:
        away: By their ids, the rows of those that are not kept now, and stay.
    """

    def __init__(
        self, path: Path, clock: Clock, kept: Callable[[], Sequence[Forward]]
    ) -> None:
        """Use the file at `path`; `kept` returns all that run."""
        self._path = path
        self._clock = clock
        self._kept = kept
        self.away: dict[str, dict[str, Any]] = {}
        self._turn = asyncio.Lock()
        self._written: list[dict[str, Any]] = []
        # What another release wrote down, and only that one can read.
        self._odd: list[Any] = []
        self._unread = False
        self._closed = False

    async def read(self) -> Sequence[Saved]:
        """Return those of an earlier daemon; they are away from now on."""
        found = await asyncio.to_thread(store.read, self._path, self._clock)
        self._odd, self._unread = found.odd, found.unread
        self._written = [saved.row for saved in found.saved]
        self.away = {saved.about.id: saved.row for saved in found.saved}
        return found.saved

    def put_away(self, forward: Forward) -> None:
        """Keep it written down though it ended: it returns with a later daemon."""
        self.away[forward.about.id] = store.row(forward)

    def supersede(self) -> None:
        """Forget those that are away in whose place another durable one runs."""
        taken = {store.does(row) for row in self._rows()}
        for ident, row in list(self.away.items()):
            if store.does(row) in taken:
                del self.away[ident]

    def close(self) -> None:
        """Take the ends of forwards for those of the daemon: what is written stays."""
        self._closed = True

    async def write(self, gone: str = "") -> None:
        """Write them down; a failure is told, and costs a restart only.

        Once it is closed all stay written down, but for `gone`.
        """
        async with self._turn:
            self.supersede()
            rows = [*self._rows(), *self.away.values()]
            if self._closed:
                rows = [row for row in self._written if row["id"] != gone]
                if rows == self._written:
                    return
            try:
                told = [*rows, *self._odd]
                await asyncio.to_thread(
                    store.write, self._path, told, aside=self._unread
                )
                self._written, self._unread = rows, False
            except OSError as error:
                _log.warning("durable forwards are not on disk: %s", error)

    def _rows(self) -> list[dict[str, Any]]:
        return [store.row(one) for one in self._kept() if one.wish.durable]
