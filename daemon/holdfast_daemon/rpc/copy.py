"""CopyFiles of TransferService: starts the job, waits a while, tells."""

from __future__ import annotations

import asyncio
import os
import shlex
from contextlib import aclosing
from typing import TYPE_CHECKING

from holdfast.v1 import common_pb2, transfer_pb2
from holdfast_daemon.errors import InputError
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.file.script import quote_path
from holdfast_daemon.hosts import fidelity
from holdfast_daemon.rpc import convert
from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.transfers import Transfers
from holdfast_daemon.transfer.copy import Copies, Copy
from holdfast_daemon.transfer.left import LeftCopies
from holdfast_daemon.transfer.means.errand import CopyRequest
from holdfast_daemon.transfer.means.rate import Rate
from holdfast_daemon.transfer.means.roots import roots_of
from holdfast_daemon.transfer.past import Done, done

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.rpc.door import Call
    from holdfast_daemon.transfer.means.roots import Roots
    from holdfast_daemon.transfer.means.signature import Signature

_FLAGS = ("recursive", "preserve", "overwrite")
_SOURCES = 1000


class CopyCalls:
    """Serves CopyFiles; knows how far each job of its own is."""

    def __init__(
        self, table: JobTable, config: Callable[[], Config], signature: Signature
    ) -> None:
        """Run copies as jobs of `table`, under the current configuration."""
        self._table = table
        self._config = config
        self._copies = Transfers[Copy | Done](table, config, leaving_ends=False)
        rate = Rate(lambda: config().limits.copy_bytes_per_second)
        self._shared = Copies(rate, config().limits.copies_running, signature)
        self.left = LeftCopies(self._shared, self._copies.keep)

    async def serve(
        self, request: transfer_pb2.CopyFilesRequest
    ) -> AsyncIterator[transfer_pb2.CopyFilesResponse]:
        """Copy; the job's handle, progress, then one result."""
        job = await self._start(request, current())
        yield transfer_pb2.CopyFilesResponse(job_id=job.id)
        async with aclosing(self._copies.wait(job, _far)) as waiting:
            async for progress in waiting:
                yield transfer_pb2.CopyFilesResponse(progress=progress)
        result = self._result(job, self._copies.find(job))
        yield transfer_pb2.CopyFilesResponse(result=result)

    async def _start(self, request: transfer_pb2.CopyFilesRequest, call: Call) -> Job:
        host = call.host
        if host is None:
            raise InputError("target", "target names no host")
        fidelity.check_command(host)
        roots = roots_of(call.caller, self._config())
        # The local side may be on a disk that does not answer.
        wanted = await asyncio.to_thread(_wanted, request, roots)
        copy = Copy(wanted, roots, self._shared, call.caller)
        asked = ExecRequest(command=_told(wanted))
        job = self._table.start(
            asked,
            host,
            call.ticket,
            request.request_id,
            runner=copy,
            place="copy",
        )
        if job.request is asked:
            self._copies.keep(job, copy)
        elif (known := done(job.onward)) is not None:
            self._copies.keep(job, known)
        return job

    def _result(self, job: Job, copy: Copy | Done | None) -> transfer_pb2.CopyResult:
        found = transfer_pb2.CopyResult(
            status=convert.status(job.status),
            duration_ms=round(job.duration * 1000),
            job_id=job.id,
        )
        note = job.note
        if copy is None:
            told = f"ssh_job_read job_id={job.id} tells what it did"
            note = f"{note}; {told}" if note else told
        else:
            found.files = copy.tally.files
            found.bytes_transferred = copy.tally.moved
            found.skipped = copy.tally.skipped
            if copy.sha256:
                found.sha256 = copy.sha256
        if note:
            found.note = note
        return found


def _far(job: Job, copy: Copy | Done) -> common_pb2.Progress:
    tally = copy.tally
    return common_pb2.Progress(
        progress=tally.done,
        total=tally.total,
        message=f"{tally.line(job.clock.monotonic())}: {tally.now}",
    )


def _wanted(request: transfer_pb2.CopyFilesRequest, roots: Roots) -> CopyRequest:
    """Return what is asked, checked.

    Raises:
        DaemonError: It can't be meant, or the local side is out of bounds.
    """
    upload = request.direction == transfer_pb2.TRANSFER_DIRECTION_UPLOAD
    sources = tuple(request.sources)
    if not sources:
        raise InputError("sources", "sources is empty", hint="Name what to copy.")
    if len(sources) > _SOURCES:
        raise InputError("sources", f"there are more than {_SOURCES} sources")
    for path in sources if not upload else (request.destination,):
        quote_path(path, "destination" if upload else "sources")
    given = sources if upload else (request.destination,)
    field = "sources" if upload else "destination"
    here: list[str] = []
    for path in given:
        roots.check(path, write=not upload, field=field)
        at = os.path.join(roots.project or "/", os.path.expanduser(path))  # noqa: PTH111, PTH118  a text
        here.append(_resolved(at))
    there = (request.destination,) if upload else sources
    return CopyRequest(
        upload=upload,
        here=tuple(here),
        there=there,
        into=request.destination.endswith("/"),
        **{name: getattr(request, name) for name in _FLAGS},
    )


def _resolved(path: str) -> str:
    """Return where that leads, as the kernel goes; a link at its end is kept one."""
    above, name = os.path.split(path.rstrip("/"))
    if name in ("", ".", ".."):
        return os.path.realpath(path)
    return os.path.join(os.path.realpath(above), name)  # noqa: PTH118  a text


def _told(wanted: CopyRequest) -> str:
    """Return the request as lists of jobs and the ledger know it."""
    words = ["copy", *(f"--{name}" for name in _FLAGS if getattr(wanted, name))]
    there = [f":{path}" for path in wanted.there]
    words += [*wanted.here, *there] if wanted.upload else [*there, *wanted.here]
    if wanted.into and not words[-1].endswith("/"):
        words[-1] += "/"
    return shlex.join(words)
