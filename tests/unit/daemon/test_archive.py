"""Records of jobs on disk, whatever comes between."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import TYPE_CHECKING, Any

import pytest

from holdfast_daemon.clock import SystemClock
from holdfast_daemon.connection.channel import ChannelEnd
from holdfast_daemon.exec import archive as archive_module
from holdfast_daemon.exec.archive import Archive
from holdfast_daemon.exec.job import Job
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.ids import JobId
from holdfast_daemon.limits import Limits
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

# A write that nothing follows takes so long; one that is overtaken ends after it.
SLOW = 0.3


def job_of(archive: Archive) -> Job:
    clock = SystemClock()
    return Job(
        id=JobId("j1"),
        request=ExecRequest(command="x"),
        target="host",
        address="me@host",
        client="test/1",
        started=clock.now(),
        begun=clock.monotonic(),
        spool=archive.spool(JobId("j1")),
        clock=clock,
    )


def status_on_disk(directory: Path) -> str:
    return str(json.loads((directory / "j1" / "job.json").read_text())["status"])


class SlowDisk:
    """Holds the first write of records until another one has passed it, or SLOW."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._real = vars(archive_module)["_write_all"]
        self._overtaken = threading.Event()
        self.began = threading.Event()
        self.ended = threading.Event()
        patch.setattr(archive_module, "_write_all", self._write)

    def _write(self, rows: list[Any]) -> dict[str, str]:
        first = not self.began.is_set()
        if first:
            self.began.set()
            self._overtaken.wait(SLOW)
        failed: dict[str, str] = self._real(rows)
        (self.ended if first else self._overtaken).set()
        return failed


async def test_a_stop_while_output_is_written_keeps_the_outcome(tmp_path: Path) -> None:
    """EX-16: the buggy archive dropped the batch whose flush its close cut off."""
    archive = Archive(tmp_path, Limits(job_write_seconds=0), SystemClock())
    job = job_of(archive)
    await archive.keep(job)
    assert status_on_disk(tmp_path) == "running"
    job.spool.append(Stream.OUT, b"x" * 1_900_000)
    job.settle(ChannelEnd(exit_code=0))
    job.spool.close()
    syncing = asyncio.Event()
    real = job.spool.sync

    async def sync() -> None:
        syncing.set()
        await real()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(job.spool), "sync", lambda _: sync())
        archive.note(job)
        await syncing.wait()
        await archive.close()
    assert status_on_disk(tmp_path) == "exited"


async def test_an_older_write_never_ends_after_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EX-16: a thread that its waiter left put "running" over a known outcome."""
    disk = SlowDisk(monkeypatch)
    archive = Archive(tmp_path, Limits(job_write_seconds=0), SystemClock())
    job = job_of(archive)
    archive.note(job)
    await asyncio.to_thread(disk.began.wait, 10)
    job.settle(ChannelEnd(exit_code=0))
    job.spool.close()
    archive.note(job)
    await archive.close()
    await asyncio.to_thread(disk.ended.wait, 10)
    assert status_on_disk(tmp_path) == "exited"


async def test_a_caller_that_leaves_stops_no_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """EX-16: whoever waits for a record may go; the record is written all the same."""
    disk = SlowDisk(monkeypatch)
    archive = Archive(tmp_path, Limits(), SystemClock())
    job = job_of(archive)
    waiting = asyncio.create_task(archive.keep(job))
    await asyncio.to_thread(disk.began.wait, 10)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    job.settle(ChannelEnd(exit_code=0))
    job.spool.close()
    archive.note(job)
    await archive.close()
    await asyncio.to_thread(disk.ended.wait, 10)
    assert status_on_disk(tmp_path) == "exited"


async def test_a_record_that_was_not_written_does_not_count_as_kept(
    tmp_path: Path,
) -> None:
    """On BUGGY code: a full disk was told in the log, and the job called saved."""
    (tmp_path / "j1").write_text("in the way")
    archive = Archive(tmp_path, Limits(job_write_seconds=0), SystemClock())
    job = job_of(archive)
    await archive.keep(job)
    assert not job.saved
    (tmp_path / "j1").unlink()
    await archive.keep(job)
    assert job.saved
    assert status_on_disk(tmp_path) == "running"
    await archive.close()


async def recovered(directory: Path) -> list[str]:
    archive = Archive(directory, Limits(job_write_seconds=0), SystemClock())
    found = [job.id for job in await archive.recover()]
    await archive.close()
    return list(map(str, found))


async def written(directory: Path) -> Path:
    """Return the directory of a job that ran days ago."""
    archive = Archive(directory, Limits(job_write_seconds=0), SystemClock())
    await archive.keep(job_of(archive))
    await archive.close()
    os.utime(directory / "j1", (0, 0))
    return directory / "j1"


async def test_a_link_that_leads_nowhere_keeps_no_daemon_from_starting(
    tmp_path: Path,
) -> None:
    """EX-16: one among the jobs, as a restored backup may leave it, was an error."""
    await written(tmp_path)
    (tmp_path / "j0").symlink_to(tmp_path / "gone")
    assert await recovered(tmp_path) == ["j1"]


async def test_a_record_that_cannot_be_read_for_once_is_kept(tmp_path: Path) -> None:
    """NF-10: a command that ran for days on its host was forgotten for good."""
    place = await written(tmp_path)
    record = place / "job.json"
    record.rename(place / "aside")
    record.symlink_to(record)  # no user may read through it, not even root
    os.utime(place, (0, 0))
    assert await recovered(tmp_path) == []
    record.unlink()
    (place / "aside").rename(record)
    assert await recovered(tmp_path) == ["j1"]
