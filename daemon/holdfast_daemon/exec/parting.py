"""Hangs up on the commands that still run when the daemon stops, as ssh does.

A server that only loses its channel tells a command without a terminal nothing, and it
would run on with nobody to read it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable

_log = logging.getLogger(__name__)

# Each takes a channel, and what is full of commands has few of them to spare.
_AT_A_TIME = 4
_NOTE = "the daemon stopped and hung up on it"
_RUNS_ON = "it did not end then, so it may still run on the host"


async def part(table: JobTable, seconds: float) -> None:
    """Send HUP to what runs, and give it at most `seconds` to end by itself.

    What its host keeps goes on without us, and what the next daemon takes up waits.
    """
    jobs = [job for job in table.list(running_only=True) if not job.lasting]
    hosts: dict[str, list[Job]] = {}
    for job in jobs:
        hosts.setdefault(job.target, []).append(job)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asyncio.gather(*(_hang_up(table, some) for some in hosts.values()))
            await asyncio.gather(*(job.ended.wait() for job in jobs))
    for job in jobs:
        if job.running:
            job.add_note(_RUNS_ON)


async def _hang_up(table: JobTable, jobs: Iterable[Job]) -> None:
    left = iter(jobs)

    async def work() -> None:
        for job in left:
            job.add_note(_NOTE)
            try:
                await table.signal(job, "HUP")
            except DaemonError as error:
                _log.warning("not hung up on: %s", error.message, extra={"job": job.id})

    await asyncio.gather(*(work() for _ in range(_AT_A_TIME)))
