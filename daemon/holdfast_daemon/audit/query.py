"""Reading the audit log: check its chain, read what is newest, follow. Never writes."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from holdfast_daemon.audit import files, record
from holdfast_daemon.audit.cursor import Cursor, newest
from holdfast_daemon.audit.record import Damaged
from holdfast_daemon.audit.snapshot import read_head, snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.audit.record import Head, Link
    from holdfast_daemon.audit.snapshot import File, Snapshot

_T = TypeVar("_T")
# Beyond so many the first ones say enough.
_FAULTS = 100
# How long a writer may stand still in mid-write before that is called a crash.
_WRITING_SECONDS = 0.5
_LOOK_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found, the first fault first."""

    intact: bool
    records: int
    faults: tuple[str, ...]


def verify(directory: Path) -> Verdict:
    """Check every kept record against its hash, its neighbours and the head."""
    try:
        with snapshot(directory) as now:
            return _verify(directory, now)
    except OSError as error:
        return Verdict(intact=False, records=0, faults=(f"can't be read: {error}",))


def _verify(directory: Path, now: Snapshot) -> Verdict:
    check = _Check(now.head)
    has_head = files.size(directory / files.HEAD) > 0
    if now.trouble and (has_head or any(file.size for file in now.files)):
        check.fault(now.trouble)
    for file in now.files:
        for at, line in enumerate(files.lines(file.fd, file.size), start=1):
            check.line(f"{file.name} line {at}", line)
        cut = files.torn(file.fd, file.size)
        written = file is now.files[-1] and check.complete
        if cut and not (written and _moves(directory, file, now.head)):
            check.fault(f"{file.name}: the last line is torn ({cut} bytes)")
    return check.verdict()


def _moves(directory: Path, file: File, head: Head | None) -> bool:
    """Say whether the torn line is one that is just being written.

    Only the writer's next step tells that from a crash, and on a busy machine it may
    stand still in mid-write for a while.
    """
    deadline = time.monotonic() + _WRITING_SECONDS
    while True:
        now, _ = read_head(directory)
        if os.fstat(file.fd).st_size != file.size or now != head:
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_SECONDS)


class _Check:
    """Walks the chain."""

    def __init__(self, head: Head | None) -> None:
        self._head = head
        self._seq: int | None = None
        self._hash: str | None = None
        self._records = 0
        self._faults: list[str] = []

    @property
    def complete(self) -> bool:
        """Every record that was acknowledged has come."""
        return self._head is not None and (self._seq or 0) >= self._head.last_seq

    def fault(self, text: str) -> None:
        """Note what is wrong."""
        self._faults.append(text)

    def line(self, where: str, line: bytes) -> None:
        """Check one line against itself and what came before."""
        self._records += 1
        try:
            link = record.unseal(line)
        except Damaged as error:
            self.fault(f"{where} {error}")
            # Its hash is unknown, so the next one's `prev` can't be judged.
            self._seq = None if self._seq is None else self._seq + 1
            self._hash = None
            return
        if self._records == 1:
            self._first(where, link)
        else:
            self._order(where, link)
        self._anchors(where, link)
        for text in link.findings:
            self.fault(f"{where}: the daemon found this: {text}")
        self._seq, self._hash = link.seq, link.hash

    def _first(self, where: str, link: Link) -> None:
        # One older than the anchor is what a crash in mid-rotation leaves: not a loss.
        if self._head is not None and link.seq > self._head.first_seq:
            self.fault(
                f"{where}: records {self._head.first_seq} to {link.seq - 1} "
                "are missing at the beginning"
            )
        if link.seq < 1 or (link.seq == 1 and link.prev != record.GENESIS):
            self.fault(f"{where}: record {link.seq} can't be the first")

    def _order(self, where: str, link: Link) -> None:
        if self._seq is not None and link.seq != self._seq + 1:
            self.fault(f"{where}: record {link.seq} follows record {self._seq}")
        elif self._hash is not None and link.prev != self._hash:
            self.fault(f"{where}: record {link.seq} does not fit the one before it")

    def _anchors(self, where: str, link: Link) -> None:
        head = self._head
        if head is None:
            return
        if link.seq == head.first_seq and link.prev != head.first_prev:
            self.fault(f"{where}: the first kept record is not the one it was")
        if link.seq == head.last_seq and link.hash != head.last_hash:
            self.fault(f"{where}: the last record is not the one that was written")

    def verdict(self) -> Verdict:
        """Return what was found."""
        # With every record damaged nobody knows where the log ends: that is told above.
        unknown = self._seq is None and self._records > 0
        head, last = self._head, self._seq or 0
        if head is not None and last < head.last_seq and not unknown:
            self.fault(
                f"{files.HEAD} says that record {head.last_seq} was written, "
                f"but the log ends with {last}"
            )
        faults = self._faults[:_FAULTS]
        if len(self._faults) > _FAULTS:
            faults.append(f"and {len(self._faults) - _FAULTS} more")
        return Verdict(not faults, self._records, tuple(faults))


def read(directory: Path, last: int = 0) -> Iterator[str]:
    """Yield the newest `last` records (0: all), oldest first, as they stand in the log.

    What is written or dropped meanwhile changes nothing: it is the log of one moment.

    Raises:
        OSError: The log can't be read.
    """
    with snapshot(directory) as now:
        kept, skip = newest(now.files, last) if last else (now.files, 0)
        lines = (line for file in kept for line in files.lines(file.fd, file.size))
        for line in islice(lines, skip, None):
            yield line.decode("utf-8", "replace")


async def follow(log: AuditLog, last: int = 0) -> AsyncGenerator[str, None]:
    """Yield what `read` does and then new records as they come, until `log` parts.

    None is missed or told twice, whatever rotates meanwhile. A reader so slow that
    files go before it comes to them finds the gap in `seq`.

    Raises:
        OSError: The log can't be read.
    """
    with log.watch() as changed:
        opening = asyncio.ensure_future(asyncio.to_thread(Cursor, log.directory, last))
        try:
            cursor = await _whole(opening)
        except asyncio.CancelledError:
            if opening.done() and not opening.cancelled() and not opening.exception():
                opening.result().close()
            raise
        try:
            while True:
                changed.clear()
                over = log.closed or log.parting
                step = asyncio.ensure_future(asyncio.to_thread(cursor.step))
                lines = await _whole(step)
                for line in lines:
                    yield line
                if not lines:
                    if over:
                        return
                    await changed.wait()
        finally:
            cursor.close()


async def _whole(work: asyncio.Future[_T]) -> _T:
    """Return what a thread does; who leaves meanwhile still waits for its end.

    It opens files, and would else open one behind the back of who closes them.
    """
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait({work})
        raise
