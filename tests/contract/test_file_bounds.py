"""File tools at their limits, through the shim: slow hosts, long answers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.filing import Desk, host_of_files
from fakes.tools import served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_bounds"),
    pytest.mark.needs_sshd,
]

LIMITS = """file_seconds = 10
file_answer_bytes = 65536
file_edit_bytes = 4096
file_whole_bytes = 4096
file_hash_bytes = 10000
"""
# It tells who it is, and finds nothing for a long time.
SLOW = "#!/bin/sh\necho $$ >{pid}\nexec sleep 300\n"


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("slow")


@pytest.fixture(scope="module")
def world(slow: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("sshd")
    with (
        host_of_files(directory, path=f"{slow}:/usr/bin:/bin") as sshd,
        served(sshd, limits=LIMITS) as one,
    ):
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:  # noqa: PTH123
            return ") Z" in file.read()
    except (FileNotFoundError, ProcessLookupError):
        return True


async def test_what_takes_too_long_is_ended_on_the_host(desk: Desk, slow: Path) -> None:
    """FI-08, FI-09: typed, nothing was changed, and nothing is left running."""
    pid = desk.place / "pid"
    program = slow / "find"
    program.write_text(SLOW.format(pid=pid))
    program.chmod(0o755)
    try:
        error = await desk.refused("ssh_find", glob="**/*", path=str(desk.place))
    finally:
        program.unlink()
    assert (error["reason"], error["ran"]) == ("CONNECT_TIMEOUT", "no")
    assert "narrower" in error["hint"]
    number = int(await asyncio.to_thread(pid.read_text))
    await soon(lambda: gone(number), "it was ended")


async def test_a_large_file_is_added_to_without_its_sum(desk: Desk, slow: Path) -> None:
    """FI-04, NF-17: the sum took longer than the call, which was told as unknown."""
    pid = desk.place / "pid"
    program = slow / "sha256sum"
    program.write_text(SLOW.format(pid=pid))
    program.chmod(0o755)
    path = desk.place / "log"
    path.write_text("x" * 10_000)
    try:
        told = await desk.told(
            "ssh_file_write", path=str(path), content="one\n", mode="append"
        )
    finally:
        program.unlink()
    assert (told["bytes_written"], told["sha256"]) == (4, "")
    assert path.read_text() == "x" * 10_000 + "one\n"
    assert not pid.exists()


async def test_an_answer_that_is_too_long_is_cut(desk: Desk) -> None:
    """FI-07, FI-08, FI-09: and said to be; no half name is told."""
    for number in range(900):
        (desk.place / f"{number:04}-{'x' * 100}").write_text("needle\n")
    listed = await desk.told("ssh_dir_list", path=str(desk.place))
    found = await desk.told("ssh_find", glob="*", path=str(desk.place), limit=10_000)
    searched = await desk.told(
        "ssh_search", pattern="needle", path=str(desk.place), limit=10_000
    )
    for told, rows in (
        (listed, [row["path"] for row in listed["entries"]]),
        (found, found["matches"]),
        (searched, [row["path"] for row in searched["matches"]]),
    ):
        assert told["truncated"] is True
        assert told["note"]
        assert 300 < len(rows) < 900
        assert all((desk.place / row).exists() for row in rows)


async def test_a_file_too_large_to_hash_is_read_in_parts(desk: Desk) -> None:
    """FI-03: without a SHA-256, and without a count when that would take long too."""
    path = desk.place / "a"
    path.write_text("line\n" * 3000)
    told = await desk.read(path, start_line=2999)
    assert (told["content"], told["total_lines"]) == ("line\n" * 2, 3000)
    assert told["sha256"] == ""
    assert "SHA-256" in told["note"]
    path.write_text("line\n" * 10_000)
    told = await desk.read(path, start_line=9999)
    assert (told["content"], told["total_lines"]) == ("line\n" * 2, 0)
    assert "total_lines" in told["note"]
    edits = [{"old": "line", "new": "x"}]
    error = await desk.refused("ssh_file_edit", path=str(path), edits=edits)
    assert (error["reason"], error["size_bytes"]) == ("NOT_TEXT", "50000")
