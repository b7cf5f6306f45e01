"""Copies from a host of files that somebody there writes to all the time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from typing import TYPE_CHECKING

import pytest

from fakes.copying import Ways
from fakes.filing import host_of_files
from fakes.proxy import Proxy
from fakes.syncing import ROOTS
from fakes.tools import content, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from fakes.tools import Result
    from fakes.world import World

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.xdist_group("copy_changing"),
    pytest.mark.needs_sshd,
]


@contextlib.asynccontextmanager
async def slowly(
    place: Path, kind: str, rate: float = 4 * MIB
) -> AsyncGenerator[tuple[Ways, World]]:
    """Yield what is copied from a host over a slow network, and by which daemon."""
    (place / "sshd").mkdir()
    with (
        host_of_files(place / "sshd", kind) as sshd,
        Proxy(sshd.port, rate=rate) as proxy,
        served(proxy.config(sshd, place / "config"), more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            yield Ways(ssh, place, "download"), world


@contextlib.contextmanager
def written(path: Path, *, anew: bool) -> Generator[None]:
    """Have somebody add to a file all the time, and with `anew` change its begin."""
    over = threading.Event()

    def write() -> None:
        with path.open("r+b") as file:
            while not over.wait(0.01):
                if anew:
                    os.pwrite(file.fileno(), os.urandom(8), 0)
                file.seek(0, os.SEEK_END)
                file.write(b"more")
                file.flush()

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("kind", ["all programs", "SFTP only"])
async def test_one_of_a_tree_is_changed_all_the_time(tmp_path: Path, kind: str) -> None:
    """NF-15: it is told by name; the others were all deleted again for its sake."""
    async with slowly(tmp_path, kind, rate=16 * MIB) as (ways, _):
        top = ways.source / "t"
        top.mkdir()
        busy = top / "busy"
        # more than a window: what is on its way at once stayed as it was, perhaps
        busy.write_bytes(os.urandom(8 * MIB))
        for name, size in (("a", 2 * MIB), ("b", 10), ("c", 20)):
            (top / name).write_bytes(os.urandom(size))
        with written(busy, anew=True):
            error = await ways.refused("t", recursive=True)
        assert error["reason"] == "FILE_FAILED", error
        assert error["ran"] == "yes"
        assert "t/busy: it was changed each time" in error["message"]
        there = ways.destination / "t"
        for name in ("a", "b", "c"):
            assert (there / name).read_bytes() == (top / name).read_bytes()
        assert not (there / "busy").exists()
        assert ways.left() == ["t"]


async def test_a_log_that_grows_is_fetched(tmp_path: Path) -> None:
    """NF-15: what is only added to arrives up to where it was; it never came."""
    async with slowly(tmp_path, "all programs") as (ways, _):
        log = ways.source / "log"
        log.write_bytes(os.urandom(2 * MIB))
        with written(log, anew=False):
            await ways.copy("log")
        arrived = (ways.destination / "log").read_bytes()
        assert len(arrived) >= 2 * MIB
        assert log.read_bytes().startswith(arrived)


async def test_what_was_stopped_has_copied_nothing(tmp_path: Path) -> None:
    """NF-15: files were told as copied that had all been deleted again."""
    async with slowly(tmp_path, "all programs", rate=2 * MIB) as (ways, world):
        top = ways.source / "t"
        top.mkdir()
        for number in range(300):
            (top / f"small {number}").write_bytes(b"x" * 500)
        (top / "large").write_bytes(os.urandom(60 * MIB))
        asked = ways.filled("t", recursive=True)
        asking = asyncio.create_task(ways.ssh.call("ssh_copy", **asked))
        async with tools(world, "--results", "structured") as other:
            jobs: list[Result] = []
            while not jobs:
                jobs = (await other.told("ssh_job_list", running_only=True))["jobs"]
            job = jobs[0]["job_id"]
            await other.until(job, "300 of 301 files")
            await other.stop(job)
            told = content(await asking)
            assert told["status"] == "cancelled"
            assert told["files"] == 0
            assert "0 files copied" in (await other.ended(job))["stdout"]
        assert ways.left() == []
