"""Jobs on disk: one directory each, with `job.json` beside the spool's segments."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO

from holdfast_daemon import shape
from holdfast_daemon.exec.claim import Claim
from holdfast_daemon.exec.job import Job, Status
from holdfast_daemon.exec.kept import Kept
from holdfast_daemon.exec.onward import Onward
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.ids import JobId
from holdfast_daemon.output.spool import Spool

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.limits import Limits

_log = logging.getLogger(__name__)
_RECORD = "job.json"
_FORGOTTEN = "the daemon ended while it ran; its outcome is not known"


class Archive:
    """The directory that holds every job's output and record."""

    def __init__(self, directory: Path, limits: Limits, clock: Clock) -> None:
        """Keep jobs below `directory`, which is private to the user."""
        self._directory = directory
        self._limits = limits
        self._clock = clock
        self._noted: dict[JobId, Job] = {}
        self._writer: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()

    def spool(self, job_id: JobId) -> Spool:
        """Return a new job's spool."""
        return Spool(
            self._directory / job_id,
            limit_bytes=self._limits.spool_bytes,
            segment_bytes=self._limits.segment_bytes,
            backlog_bytes=self._limits.backlog_bytes,
            flush_seconds=self._limits.flush_seconds,
        )

    def note(self, job: Job) -> None:
        """Have the job's record, and its output once it has ended, written soon.

        Nobody waits for it: a short command costs one write, many cost one together.
        """
        self._noted[job.id] = job
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_later())

    async def _write_later(self) -> None:
        while self._noted:
            await asyncio.sleep(self._limits.job_write_seconds)
            await self.flush()

    async def keep(self, job: Job) -> None:
        """Return when the job's record is on disk: its id is about to be told."""
        if not job.saved:
            await self.renew(job)

    async def renew(self, job: Job) -> None:
        """Return when the job's record, as it is now, is on disk.

        `job.saved` is false where the disk does not take it; nor is the end of one that
        its host keeps told ahead of its output: the next daemon has both from there.
        """
        self._noted[job.id] = job
        await self.flush()

    async def flush(self) -> None:
        """Write what was noted, now.

        Who goes away stops no write: a thread that nobody waits for would put an older
        record over a newer one.
        """
        await asyncio.shield(asyncio.create_task(self._write_noted()))

    async def _write_noted(self) -> None:
        async with self._writing:
            jobs, self._noted = self._noted, {}
            await self._write(list(jobs.values()))

    async def _write(self, jobs: list[Job]) -> None:
        ended = [job for job in jobs if not job.running]
        told = await asyncio.gather(
            *(job.spool.sync() for job in ended), return_exceptions=True
        )
        held = {
            job.id: job.spool.fault
            for job, safe in zip(ended, told, strict=True)
            if job.kept is not None and safe is not True
        }
        rows = [
            (self._directory / job.id, job.record())
            for job in jobs
            if job.id not in held
        ]
        failed = held | await asyncio.to_thread(_write_all, rows)
        faults = [f"{name}: {why}" for name, why in failed.items()]
        faults += [str(fault) for fault in told if isinstance(fault, BaseException)]
        for fault in faults:
            _log.warning("a result was not kept: %s", fault)
        for job in jobs:
            job.saved = job.id not in failed

    async def close(self) -> None:
        """Write the last records; the daemon ends."""
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self.flush()

    async def remove(self, job: Job) -> None:
        """Delete the job and its output."""
        self._noted.pop(job.id, None)
        # a record on its way would come after it
        async with self._writing:
            await job.spool.remove()
            await asyncio.to_thread(
                shutil.rmtree, self._directory / job.id, ignore_errors=True
            )

    async def recover(self) -> list[Job]:
        """Return the jobs of earlier runs, oldest first.

        What ran then is lost now, but for what its host keeps and what can be gone on
        with from here.
        """
        rows = await asyncio.to_thread(
            _read_all, self._directory, self._limits.job_keep_seconds
        )
        jobs: list[Job] = []
        for path, row in rows:
            try:
                job = await self._revive(path, row)
            except (OSError, TypeError, ValueError) as error:
                _log.warning("job record %s is damaged: %s", path, error)
                continue
            jobs.append(job)
        jobs.sort(key=lambda job: job.started)
        return jobs

    async def _revive(self, path: Path, row: dict[str, Any]) -> Job:
        _SHAPE("it", row)
        if row["id"] != path.name:
            raise ValueError("it is another's")
        spool = await asyncio.to_thread(
            Spool.recover,
            path,
            limit_bytes=self._limits.spool_bytes,
            segment_bytes=self._limits.segment_bytes,
            backlog_bytes=self._limits.backlog_bytes,
        )
        started = datetime.fromisoformat(row["started"])
        age = max(0.0, (self._clock.now() - started).total_seconds())
        begun = self._clock.monotonic() - age
        status = Status(row["status"])
        job = Job(
            id=JobId(row["id"]),
            request=ExecRequest(
                command=row["command"], timeout=float(row.get("timeout", 0.0))
            ),
            target=row["target"],
            address=row["address"],
            client=row["client"],
            instance=row.get("instance", ""),
            session=row.get("session", ""),
            started=started,
            begun=begun,
            spool=spool,
            clock=self._clock,
            status=status,
            exit_code=row["exit_code"],
            signal=row["signal"],
            lost=row["lost"],
            note=row["note"],
            claim=Claim(**row["claim"]) if row.get("claim") else None,
            kept=Kept.read(row["kept"]) if row.get("kept") else None,
            onward=Onward.read(row["onward"]) if row.get("onward") else None,
            saved=True,
            told=True,
        )
        job.opened.set_result(None)
        job.begun_there.set()
        if status is Status.RUNNING and job.lasting:
            job.asked = True
            spool.reopen()
            return job
        job.finished = begun + float(row["duration"])
        if status is Status.RUNNING:
            job.status, job.lost = Status.LOST, _FORGOTTEN
            # its record is of its start, and nobody knows better than now
            job.finished = self._clock.monotonic()
            job.add_note(_FORGOTTEN)
            self.note(job)
        job.ended.set()
        return job


_SHAPE = shape.fields(
    {
        "id": shape.text,
        "command": shape.text,
        "target": shape.text,
        "address": shape.text,
        "client": shape.text,
        "started": shape.text,
        "status": shape.text,
        "exit_code": shape.maybe(shape.number),
        "signal": shape.maybe(shape.text),
        "lost": shape.text,
        "note": shape.text,
        "duration": shape.amount,
    },
    {
        "session": shape.text,
        "instance": shape.text,
        "timeout": shape.amount,
        "claim": shape.maybe(shape.table(shape.text)),
        "kept": shape.maybe(shape.mapping),
        "onward": shape.maybe(shape.mapping),
    },
)


def _write_all(rows: list[tuple[Path, dict[str, Any]]]) -> dict[str, str]:
    """Write records atomically; return why, for each job whose record failed."""
    failed: dict[str, str] = {}
    for directory, row in rows:
        try:
            _write(directory, json.dumps(row, ensure_ascii=False))
        except OSError as error:
            failed[directory.name] = str(error)
    return failed


def _write(directory: Path, text: str) -> None:
    # a command in a session waits for this
    data = text.encode()
    fresh = directory / (_RECORD + ".new")
    try:
        file = _private(fresh)
    except FileNotFoundError:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        file = _private(fresh)
    with file:
        file.write(data)
    fresh.replace(directory / _RECORD)


def _private(path: Path) -> BinaryIO:
    """Open a file to be written, which nobody else reads."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")


def _read_all(directory: Path, keep: float) -> list[tuple[Path, dict[str, Any]]]:
    """Read all records; a directory without one, or with a torn one, goes once old.

    What only can't be read now may be read by the next daemon.
    """
    rows: list[tuple[Path, dict[str, Any]]] = []
    if not directory.is_dir():
        return rows
    for path in directory.iterdir():
        try:
            row = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            _log.warning("job record in %s can't be read: %s", path, error)
            lacking = isinstance(error, FileNotFoundError | ValueError)
            if lacking and _age(path) > keep:
                shutil.rmtree(path, ignore_errors=True)
            continue
        if isinstance(row, dict):
            rows.append((path, row))
    return rows


def _age(path: Path) -> float:
    """Return the seconds since it was changed; 0: nobody can say."""
    try:
        # of a link that leads nowhere too
        return time.time() - path.lstat().st_mtime
    except OSError:
        return 0.0
