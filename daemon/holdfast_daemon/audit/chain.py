"""The audit log: records in strict order, each chained to the one before by its hash.

Callers wait until their record is written (`append`) or leave it (`post`); one thread
writes. What this proves: any record that was flipped, removed, swapped, inserted, or
cut off at either end by accident or by a clumsy hand is found by `query.verify`. What
it can't: there is no key, so whoever has the user's rights can write the whole log and
`audit.head` anew, or delete both while the daemon is stopped. Copy `audit.head`
elsewhere to notice that too.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast_daemon import ids
from holdfast_daemon.audit import store as store_module
from holdfast_daemon.audit.record import RECOVERED, Phase, Record, fields_of
from holdfast_daemon.audit.store import Displaced, Findings, Store
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from datetime import datetime
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.secrets import Redactor

_log = logging.getLogger(__name__)

# Writes are gathered up to here, so that a burst costs few system calls and no one
# waits long.
_BATCH = 256
# How long a record that nobody waits for may wait for company.
_POST_SECONDS = 0.002


class AuditError(Exception):
    """The log did not take a record; the text is the cause."""


@dataclass(slots=True)
class _Entry:
    """One record on its way to the file, or (without one) a word to the writer."""

    record: Record | None
    at: datetime
    done: asyncio.Future[None] | None = None
    otherwise: Callable[[], Record] | None = None
    members: dict[str, Any] | None = None
    lasting: bool = False


@dataclass(slots=True)
class _Outage:
    """The log could not be written for a while."""

    cause: str
    since: str
    tampered: bool
    dropped: int = 0


class AuditLog:
    """The one writer of the log in `directory`.

    Attributes:
        error: Why it can't be written just now; empty: it can.
        parting: Who follows it reads what there is, and leaves.
    """

    def __init__(
        self,
        directory: Path,
        *,
        file_bytes: int,
        files: int,
        sync_seconds: float,
        clock: Clock,
        redactor: Redactor,
        write_seconds: float = 5.0,
        backlog_records: int = 10_000,
        retry_seconds: float = 1.0,
    ) -> None:
        self.directory = directory
        self.error = ""
        self.parting = False
        self._clock = clock
        self._redactor = redactor
        self._sync_seconds = sync_seconds
        self._write_seconds = write_seconds
        self._backlog = backlog_records
        self._retry_seconds = retry_seconds
        self._store = Store(directory, file_bytes=file_bytes, keep=files)
        self._queue: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._posted: list[_Entry] = []
        self._watchers: set[asyncio.Event] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ended: asyncio.Future[None] | None = None
        self._thread: threading.Thread | None = None
        # From here on the writer's own.
        self._held: deque[_Entry] = deque()
        self._outage: _Outage | None = None
        self._findings: list[Findings] = []
        self._sync_due: float | None = None
        self._syncing: Future[None] | None = None
        self._syncer = ThreadPoolExecutor(1, thread_name_prefix="audit-sync")

    # ---- from the event loop

    async def open(self) -> None:
        """Start writing; a log that can't be written is told by `error`, not raised."""
        self._loop = asyncio.get_running_loop()
        self._ended = self._loop.create_future()
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()
        with contextlib.suppress(TimeoutError):  # then it is told by whoever appends
            async with asyncio.timeout(self._write_seconds):
                await self.flush()

    async def part(self) -> None:
        """Have those who follow leave, with all that was told by now; it goes on."""
        if self._watchers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._write_seconds):
                    await self.flush()
        self.parting = True
        self._wake_watchers()

    @property
    def closed(self) -> bool:
        """No record is taken (any more)."""
        return self._thread is None

    async def append(
        self,
        record: Record,
        *,
        otherwise: Callable[[], Record] | None = None,
        lasting: bool = False,
    ) -> None:
        """Return when `record` is written; a `lasting` one is kept till it can be.

        Should the caller be gone by then, or the wait have taken too long, `otherwise`
        gives what is written behind it: what was begun is also recorded as ended.

        Raises:
            AuditError: It is not written.
        """
        if self._loop is None or self._thread is None:
            raise AuditError("it is closed")
        if self._queue.qsize() >= self._backlog:
            if lasting:
                self.post(record)
            raise AuditError(f"{self._backlog} records wait to be written")
        done = self._loop.create_future()
        entry = _Entry(record, self._clock.now(), done, otherwise, lasting=lasting)
        self._hand_over()
        self._queue.put(entry)
        try:
            async with asyncio.timeout(self._write_seconds):
                await done
        except asyncio.CancelledError:
            self._abandon(entry)
            raise
        except TimeoutError:
            self._abandon(entry)
            raise AuditError(
                f"no record was written for {self._write_seconds:g} s"
            ) from None

    def _abandon(self, entry: _Entry) -> None:
        """End what was written just when its caller left; see `_settle` too."""
        done = entry.done
        if done is None or not done.done() or done.cancelled():
            return
        if done.exception() is None and entry.otherwise is not None:
            self.post(entry.otherwise())

    def post(self, record: Record) -> None:
        """Have `record` written in its turn; during an outage it is kept for later."""
        if self._loop is None or self._thread is None:
            _log.error("audit record after the end: %s", record.event_type)
            return
        # Not at once: waking the writer now would hold up the answer to the caller.
        if not self._posted:
            self._loop.call_later(_POST_SECONDS, self._hand_over)
        self._posted.append(_Entry(record, self._clock.now()))

    def _hand_over(self) -> None:
        """Give the writer what was posted; before anything that was asked for later."""
        for entry in self._posted:
            self._queue.put(entry)
        self._posted.clear()

    async def flush(self) -> None:
        """Return when all that was handed over is on the disk, or was tried."""
        if self._loop is None or self._thread is None:
            return
        done = self._loop.create_future()
        self._hand_over()
        self._queue.put(_Entry(None, self._clock.now(), done))
        await done

    async def close(self) -> None:
        """Write and sync what waits, then end the writer, within `write_seconds`."""
        if self._thread is None or self._ended is None:
            return
        self._thread = None
        self._hand_over()
        self._queue.put(None)
        try:
            async with asyncio.timeout(self._write_seconds):
                await asyncio.shield(self._ended)
        except TimeoutError:
            _log.error("the audit log still writes; its last records may be lost")
        self._wake_watchers()

    @contextlib.contextmanager
    def watch(self) -> Generator[asyncio.Event, None, None]:
        """Give an event that is set after every change and at the end."""
        event = asyncio.Event()
        self._watchers.add(event)
        try:
            yield event
        finally:
            self._watchers.discard(event)

    def _wake_watchers(self) -> None:
        for event in self._watchers:
            event.set()

    def _settle(self, entries: Sequence[_Entry], cause: str) -> None:
        self._wake_watchers()
        for entry in entries:
            done = entry.done
            if done is None or (done.done() and not done.cancelled()):
                continue
            if done.cancelled():
                if not cause and entry.otherwise is not None:
                    self.post(entry.otherwise())
            elif cause:
                done.set_exception(AuditError(cause))
            else:
                done.set_result(None)

    # ---- from the writer's thread

    def _run(self) -> None:
        self._guarded([])
        running = True
        while running:
            entries = self._take()
            running = None not in entries
            self._guarded([entry for entry in entries if entry is not None])
        self._sync_now()
        self._store.close()
        self._syncer.shutdown(wait=False)
        if self._ended is not None:
            self._in_loop(self._ended.set_result, None)

    def _take(self) -> list[_Entry | None]:
        """Wait for records, but not past the next sync or the next try."""
        wait = self._retry_seconds if self._outage else None
        if self._sync_due is not None:
            wait = max(0.0, self._sync_due - time.monotonic())
        try:
            entries = [self._queue.get(timeout=wait)]
        except queue.Empty:
            return []
        while len(entries) < _BATCH and not self._queue.empty():
            entries.append(self._queue.get())
        return entries

    def _guarded(self, entries: list[_Entry]) -> None:
        try:
            self._serve(entries)
        except Exception as fault:  # noqa: BLE001 - all work waits for this thread
            _log.exception("fault in the audit writer", exc_info=fault)
            self._store.close()
            self._note_outage(fault)
            self._refuse(entries)

    def _serve(self, entries: list[_Entry]) -> None:
        self._write([self._ready(entry) for entry in entries if entry.record])
        words = [entry for entry in entries if entry.record is None]
        if words:
            self._sync_now()
            self._in_loop(self._settle, words, "")
        elif self._sync_due is not None and self._sync_due <= time.monotonic():
            self._sync_later()

    def _ready(self, entry: _Entry) -> _Entry:
        """Make the entry's members, without secrets."""
        if entry.record is not None:
            at = rfc3339(entry.at)
            entry.members = fields_of(entry.record, at, self._redactor.clean)
        return entry

    def _write(self, records: list[_Entry]) -> None:
        waiting = [*self._held, *records]
        self._held.clear()
        displaced = False
        while True:
            try:
                if not self._store.ready:
                    self._open()
                told = self._told()
                if not waiting and told is None:
                    return
                if self._put(told, waiting):
                    self._refuse(waiting)
                    return
            except (OSError, DaemonError) as error:
                self._note_outage(error)
                # Somebody took the file away: go on in a new one, and say so there.
                if isinstance(error, Displaced) and not displaced:
                    displaced = True
                    continue
                self._refuse(waiting)
                return

    def _open(self) -> None:
        """Open the files; where each record is synced, see first that they can be.

        Raises:
            OSError: They can't: another record would only push an older one out.
        """
        if found := self._store.open():
            self._findings.append(found)
        if not self._sync_seconds and self._outage:
            try:
                store_module.sync(self._store.duplicates())
            except OSError:
                self._store.close()
                raise

    def _put(self, told: _Entry | None, waiting: list[_Entry]) -> str:
        """Write one batch and take it off `waiting`; return why it is not synced."""
        batch = [*((told,) if told else ()), *waiting[:_BATCH]]
        count = self._store.write([entry.members or {} for entry in batch])
        if told:
            self._findings.clear()
            self._outage, self.error = None, ""
        written = [entry for entry in batch[:count] if entry is not told]
        del waiting[: len(written)]
        cause = ""
        if not self._sync_seconds:
            cause = self._sync_now()
        elif self._sync_due is None:
            self._sync_due = time.monotonic() + self._sync_seconds
        if self._watchers or any(entry.done for entry in written):
            self._in_loop(self._settle, written, cause)
        return cause

    def _told(self) -> _Entry | None:
        """Return the record of what happened, to be written before all that waits."""
        outage = self._outage
        findings = [found for found in self._findings if found]
        if not findings and outage is None:
            return None
        lost = [text for found in findings for text in found.lost]
        torn = sum(found.torn_bytes for found in findings)
        metadata: dict[str, Any] = {"torn_bytes": torn} if torn else {}
        if outage:
            metadata |= {"cause": outage.cause, "since": outage.since}
            if outage.tampered:
                lost.insert(0, outage.cause)
            if outage.dropped:
                lost.append(f"{outage.dropped} records could not be kept")
        text = "; ".join(lost) or None
        level = logging.ERROR if lost else logging.WARNING
        _log.log(level, "the audit log goes on after: %s", text or metadata)
        record = Record(
            event_type=RECOVERED,
            phase=Phase.END,
            call_id=ids.call_id(),
            client="holdfastd",
            result="damaged" if lost else "repaired",
            error=text,
            metadata=metadata,
        )
        return self._ready(_Entry(record, self._clock.now()))

    def _refuse(self, entries: Sequence[_Entry]) -> None:
        """Tell who waits; keep what nobody waits for, as long as there is room."""
        self._held.extend(e for e in entries if e.done is None or e.lasting)
        while len(self._held) > self._backlog:
            self._held.popleft()
            if self._outage:
                self._outage.dropped += 1
        awaited = [entry for entry in entries if entry.done is not None]
        if awaited:
            self._in_loop(self._settle, awaited, self.error)

    def _note_outage(self, error: Exception) -> None:
        cause = str(error)
        if isinstance(error, OSError):
            cause = error.strerror or cause
            if not isinstance(error, Displaced):
                cause = f"{cause} ({self.directory})"
        if self._outage is None:
            since = rfc3339(self._clock.now())
            self._outage = _Outage(cause, since, isinstance(error, Displaced))
            _log.error("the audit log can't be written: %s", cause)
        self.error = cause

    def _sync_now(self) -> str:
        """Sync before going on; return why it failed, or nothing."""
        self._sync_due = None
        try:
            store_module.sync(self._store.duplicates())
        except OSError as error:
            self._store.close()
            self._note_outage(error)
            return self.error
        return ""

    def _sync_later(self) -> None:
        """Sync beside the writer: a slow disk must not hold up the next record."""
        last, self._syncing = self._syncing, None
        if last is not None and not last.done():
            self._syncing = last
            self._sync_due = time.monotonic() + self._sync_seconds
            return
        self._sync_due = None
        error = last.exception() if last is not None else None
        if isinstance(error, OSError):
            self._store.close()
            self._note_outage(error)
            return
        self._syncing = self._syncer.submit(store_module.sync, self._store.duplicates())

    def _in_loop(self, call: Callable[..., object], *args: object) -> None:
        if self._loop is None:
            return
        with contextlib.suppress(RuntimeError):  # the loop is gone, and all who waited
            self._loop.call_soon_threadsafe(call, *args)
