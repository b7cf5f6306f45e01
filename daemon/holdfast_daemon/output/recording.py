"""A session's recording and transcript, written beside its traffic.

Nothing here waits for a disk: what happens is queued, a thread writes it, and what
comes faster than that, or finds no room, is left out and told.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from holdfast_daemon.output.cast import Code
from holdfast_daemon.output.tape import Item, Plan, Tape

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.secrets import Redactor

__all__ = ["Plan", "Recording"]

_QUEUE_BYTES = 1024 * 1024
_ITEM_BYTES = 64
_FLUSH_SECONDS = 0.1
# An unfinished line that rests so long, a prompt mostly, is written as it stands.
_SETTLE_SECONDS = 1.0
# So many times the work is rest: a third of one core for a flood.
_REST = 2


class Recording:
    """Takes what happens in one session.

    Attributes:
        fault: Why nothing can be written; empty when all is well.
        lost: Bytes of output that are not in it.
    """

    def __init__(self, plan: Plan, redactor: Redactor, *, cols: int, rows: int) -> None:
        self._tape = Tape(plan, redactor, cols=cols, rows=rows, begun=time.monotonic())
        self._keys = plan.keys
        self._items: list[Item] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[bool] | None = None
        self._closed = self._settling = False
        self._closing = asyncio.Lock()
        self._rest = 0.0
        self._missing = 0
        self._why = ""
        self._transcript_bytes = 0
        self.fault = ""
        self.lost = 0

    @property
    def path(self) -> Path:
        """The asciicast."""
        return self._tape.recording.path

    @property
    def transcript_path(self) -> Path:
        """The plain text."""
        return self._tape.transcript.path

    @property
    def transcript_size_bytes(self) -> int:
        """Size of the transcript, as last written."""
        return self._transcript_bytes

    async def begin(self) -> int | None:
        """Go on where an earlier daemon stopped; return how much output it recorded.

        None: that is not known.
        """
        mending = self._writing = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.to_thread(self._mend)
        except OSError as error:
            self.fault = _told(error)
            return None
        finally:
            self._writing = None
            mending.set_result(True)
            if self._items:
                self._plan()

    def _mend(self) -> int | None:
        recorded = self._tape.begin(time.monotonic(), time.time())
        self._transcript_bytes = self._tape.transcript.size
        return recorded

    def output(self, data: bytes, end: int | None = None) -> None:
        """Take the terminal's output; `end` is the position after it."""
        self._add(Code.OUTPUT, data, end=end)

    def beside(self, data: bytes) -> None:
        """Take what a command printed that does not go through the terminal."""
        self._add(Code.OUTPUT, data, beside=True)

    def run_began(self, command: str, client: str) -> None:
        """Mark the start of a command that goes beside the terminal."""
        self.mark(f"{client}: {command}")
        self.beside(f"\n[{client}] $ {command}\n".encode(errors="replace"))

    def run_ended(self, outcome: str) -> None:
        """Tell how that command ended; nothing when it is empty."""
        if outcome:
            self.beside(f"[{outcome}]\n".encode(errors="replace"))

    def typed(self, data: bytes) -> None:
        """Take keys, if they are to be recorded: those that the terminal will show."""
        if self._keys:
            self._add(Code.INPUT, data)

    def resized(self, cols: int, rows: int) -> None:
        """Take another size."""
        self._add(Code.RESIZE, f"{cols}x{rows}".encode())

    def mark(self, text: str) -> None:
        """Set a marker."""
        self._add(Code.MARKER, text.encode(errors="replace"))

    def exited(self, exit_code: int) -> None:
        """Tell the shell's exit code; an unknown one is not told."""
        self._add(Code.EXIT, str(exit_code).encode())

    def _add(
        self, code: Code, data: bytes, *, end: int | None = None, beside: bool = False
    ) -> None:
        if self._closed:
            return
        if self._size + len(data) > _QUEUE_BYTES:
            self._lose(len(data), "it came too fast")
            return
        self._items.append(Item(time.monotonic(), code, data, end, beside))
        self._size += len(data) + _ITEM_BYTES
        if self._settling:
            self._stop_timer()
        self._plan()

    def _lose(self, size: int, why: str) -> None:
        self.lost += size
        self._missing += size
        self._why = why

    def _plan(self, delay: float = _FLUSH_SECONDS) -> None:
        """Write after `delay`, unless that is planned already."""
        if self._timer is None and self._writing is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(max(delay, self._rest), self._write)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._settling = False

    def _write(self, *, last: bool = False) -> None:
        self._stop_timer()
        items, self._items, self._size = self._items, [], 0
        if self._missing and not self.fault:
            items.append(_gap(self._missing, self._why))
            self._missing = 0
        loop = asyncio.get_running_loop()
        # A future and no task: nobody can cancel a write half-way.
        try:
            writing = loop.run_in_executor(None, self._work, items, last)
        except RuntimeError as error:
            self._failed(str(error), items)
        else:
            self._writing = writing
            writing.add_done_callback(lambda future: self._written(future, items))

    def _work(self, items: list[Item], last: bool) -> bool:
        now = time.monotonic()
        try:
            if last:
                return self._tape.finish(items, now=now)
            return self._tape.write(items, settle=not items, now=now)
        finally:
            self._transcript_bytes = self._tape.transcript.size
            self._rest = _REST * (time.monotonic() - now)

    def _written(self, future: asyncio.Future[bool], items: list[Item]) -> None:
        self._writing = None
        error = future.exception()
        if isinstance(error, OSError):
            self._failed(_told(error), items)
        elif error is not None:
            raise error
        elif future.result():
            self.fault = ""
        if self._items or (self._missing and not self.fault):
            self._plan()
        elif self._tape.holds:
            self._plan(_SETTLE_SECONDS)
            self._settling = True

    def _failed(self, why: str, items: list[Item]) -> None:
        self.fault = why
        size = sum(len(item.data) for item in items if item.code is Code.OUTPUT)
        self._lose(size, why)

    async def sync(self) -> None:
        """Return when all that was taken is written, or `fault` says why not."""
        while self._items or self._writing is not None:
            if self._writing is None:
                self._write()
            if self._writing is not None:
                await asyncio.wait({self._writing})
                # The callback that follows has its turn first.
                await asyncio.sleep(0)

    async def close(self) -> None:
        """Write all that is left, the unfinished line too; take no more."""
        async with self._closing:
            if self._closed:
                return
            self._closed = True
            self._stop_timer()
            await self.sync()
            self._write(last=True)
            await self.sync()


def _gap(size: int, why: str) -> Item:
    text = f"{size:,} bytes of output are not recorded: {why}"
    return Item(time.monotonic(), Code.MARKER, text.encode())


def _told(error: OSError) -> str:
    return f"the recording can't be written: {error.strerror or error}"
