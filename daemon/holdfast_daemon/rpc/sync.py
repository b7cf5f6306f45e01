"""SyncDirectory of TransferService: starts the job, waits a while, tells."""

from __future__ import annotations

import asyncio
import os
import shlex
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.v1 import common_pb2, transfer_pb2
from holdfast_daemon.errors import InputError
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.file.script import quote_path
from holdfast_daemon.hosts import fidelity
from holdfast_daemon.rpc import convert
from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.transfers import Transfers
from holdfast_daemon.transfer.left import LeftSyncs
from holdfast_daemon.transfer.means.roots import roots_of
from holdfast_daemon.transfer.sync import anew, outcome, rsync
from holdfast_daemon.transfer.sync.itemize import Report
from holdfast_daemon.transfer.sync.past import Done, done
from holdfast_daemon.transfer.sync.rsync import SyncRequest
from holdfast_daemon.transfer.sync.sync import Sync

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.rpc.door import Call
    from holdfast_daemon.transfer.means.roots import Roots

_FLAGS = ("delete", "dry_run", "compress", "checksum")


class Syncs:
    """Serves SyncDirectory; knows what each job of its own told."""

    def __init__(self, table: JobTable, config: Callable[[], Config]) -> None:
        """Run syncs as jobs of `table`, under the current configuration."""
        self._table = table
        self._config = config
        self._syncs = Transfers[Sync | Done](table, config)
        self._under_way: dict[str, Job] = {}
        self.left = LeftSyncs(self._under_way, self._syncs.keep)

    async def serve(
        self, request: transfer_pb2.SyncDirectoryRequest
    ) -> AsyncIterator[transfer_pb2.SyncDirectoryResponse]:
        """Make one directory like another; progress, then one result."""
        job = await self._start(request, current())
        async with aclosing(self._syncs.wait(job, _far)) as waiting:
            async for progress in waiting:
                yield transfer_pb2.SyncDirectoryResponse(progress=progress)
        result = self._result(job, self._syncs.find(job))
        yield transfer_pb2.SyncDirectoryResponse(result=result)

    async def _start(
        self, request: transfer_pb2.SyncDirectoryRequest, call: Call
    ) -> Job:
        host = call.host
        if host is None:
            raise InputError("target", "target names no host")
        fidelity.check_command(host)
        roots = roots_of(call.caller, self._config())
        # The local side may be on a disk that does not answer.
        wanted, place = await asyncio.to_thread(_wanted, request, roots)
        sync = Sync(
            wanted,
            roots,
            self._under_way,
            call.caller,
            tell=call.ticket.add,
            place=place,
        )
        asked = ExecRequest(command=_told(wanted))
        job = self._table.start(
            asked,
            host,
            call.ticket,
            request.request_id,
            runner=sync,
            place="sync",
        )
        if job.request is asked:
            self._syncs.keep(job, sync)
        elif (known := done(job.onward)) is not None:
            self._syncs.keep(job, known)
        return job

    def _result(self, job: Job, sync: Sync | Done | None) -> transfer_pb2.SyncResult:
        report = sync.report if sync is not None else Report()
        note = job.note
        if sync is None:
            note = "; ".join(
                filter(None, [note, f"ssh_job_read job_id={job.id} tells what it did"])
            )
        return transfer_pb2.SyncResult(
            status=convert.status(job.status),
            files=report.files,
            bytes_transferred=report.bytes,
            skipped=report.skipped,
            duration_ms=round(job.duration * 1000),
            job_id=job.id,
            created=report.created,
            updated=report.updated,
            deleted=report.deleted,
            changes=report.changes,
            changes_more=report.more,
            note=note or None,
        )


def _far(job: Job, sync: Sync | Done) -> common_pb2.Progress:
    done = sync.report.bytes
    return common_pb2.Progress(
        progress=done, message=f"{done} bytes; {job.spool.last_line}"
    )


def _wanted(
    request: transfer_pb2.SyncDirectoryRequest, roots: Roots
) -> tuple[SyncRequest, tuple[int, int] | None]:
    """Return what is asked, checked, and which directory of this machine that is.

    Raises:
        DaemonError: It can't be meant, or the local side is out of bounds.
    """
    upload = request.direction == transfer_pb2.TRANSFER_DIRECTION_UPLOAD
    names = ("source", "destination")
    here, there = names if upload else reversed(names)
    path = getattr(request, there)
    quote_path(path, there)
    wanted = SyncRequest(
        upload=upload,
        here=_local(getattr(request, here), here, roots, write=not upload),
        there=path,
        delete=request.delete,
        dry_run=request.dry_run,
        exclude=tuple(request.exclude),
        compress=request.compress,
        checksum=request.checksum,
    )
    rsync.check(wanted, os.path.realpath(Path.home()))
    return wanted, anew.place_of(wanted.here)


def _local(path: str, field: str, roots: Roots, *, write: bool) -> str:
    found = roots.check(path, write=write, field=field)
    if not write and not found.is_dir():
        raise outcome.no_directory(path)
    return str(found)


def _told(wanted: SyncRequest) -> str:
    """Return the request as lists of jobs and the ledger know it."""
    words = ["sync"]
    words += [f"--{name.replace('_', '-')}" for name in _FLAGS if getattr(wanted, name)]
    words += [f"--exclude={pattern}" for pattern in wanted.exclude]
    there = f":{wanted.there}"
    words += [wanted.here, there] if wanted.upload else [there, wanted.here]
    return shlex.join(words)
