"""Copies and syncs that are under way: waited for by who asked, told to who repeats."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from holdfast.v1 import common_pb2
    from holdfast_daemon.config import Config
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable

# Of which a repeated call is told the same again.
_REMEMBERED = 200


class Transfer(Protocol):
    """What both are: `fault` is why not all of it was done."""

    fault: DaemonError | None


T = TypeVar("T", bound=Transfer)


class Transfers(Generic[T]):
    """Those of one kind, by job."""

    def __init__(
        self,
        table: JobTable,
        config: Callable[[], Config],
        *,
        leaving_ends: bool = True,
    ) -> None:
        """Wait for jobs of `table`, under the current configuration.

        `leaving_ends`: one whose person goes away is ended, as rsync ends then.
        """
        self._leaving_ends = leaving_ends
        self._table = table
        self._config = config
        self._known: OrderedDict[str, T] = OrderedDict()
        self._stopping: set[asyncio.Task[str]] = set()

    def keep(self, job: Job, transfer: T) -> None:
        """Remember what a job does; the first call's, where calls are repeated."""
        self._known.setdefault(job.id, transfer)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def find(self, job: Job) -> T | None:
        """Return what a job does; None: it is known no longer."""
        return self._known.get(job.id)

    async def wait(
        self, job: Job, tell: Callable[[Job, T], common_pb2.Progress]
    ) -> AsyncGenerator[common_pb2.Progress]:
        """Yield how far it is, as `tell` says, until it ends or it is time to answer.

        A person waits for the end. For an agent the job is the table's: who goes away
        ends this wait and no more.

        Raises:
            DaemonError: It failed, or a part of it.
        """
        limits, person = self._config().limits, current().caller.person
        wait = math.inf if person else limits.wait_seconds
        deadline = asyncio.get_running_loop().time() + wait
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(wait, limits.start_seconds)):
                    await asyncio.shield(job.opened)
            async for progress in self._progress(job, deadline, tell):
                yield progress
        except (asyncio.CancelledError, GeneratorExit):
            if person and self._leaving_ends:
                self._stop(job)
            raise
        if job.error is not None:
            raise job.error
        transfer = self.find(job)
        if transfer is not None and transfer.fault is not None:
            transfer.fault.metadata.setdefault("job_id", job.id)
            raise transfer.fault
        if job.running:
            await self._table.tell(job)

    def _stop(self, job: Job) -> None:
        task = asyncio.create_task(self._table.stop(job))
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _progress(
        self, job: Job, deadline: float, tell: Callable[[Job, T], common_pb2.Progress]
    ) -> AsyncGenerator[common_pb2.Progress]:
        loop = asyncio.get_running_loop()
        interval = self._config().limits.progress_interval_seconds
        told = -1.0
        while not job.ended.is_set():
            left = deadline - loop.time()
            if left <= 0:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left, interval)):
                    await job.ended.wait()
            transfer = self.find(job)
            if job.ended.is_set() or transfer is None:
                continue
            progress = tell(job, transfer)
            # It must rise: standing still is told by saying nothing.
            if progress.progress > told:
                told = progress.progress
                yield progress
