"""Files on a host that runs no commands: by SFTP, through the real shim."""

from __future__ import annotations

import hashlib
import os
import stat
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.account import login
from fakes.filing import Desk, host_of_files
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_sftp"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with (
        host_of_files(tmp_path_factory.mktemp("sshd"), "SFTP only") as sshd,
        served(sshd, limits="probe_seconds = 2\n") as one,
    ):
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


async def test_files_are_read_written_and_edited(desk: Desk) -> None:
    """FI-03, FI-04, FI-06: the same fields, and it is said how."""
    path = desk.place / "deep" / "a"
    told = await desk.write(path, "one\r\ntwo", make_parents=True, permissions="640")
    assert "SFTP" in told["note"]
    assert told["created"] is True
    assert path.read_bytes() == b"one\r\ntwo"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    await desk.write(path, "!", mode="append")
    told = await desk.edit(path, ("two!", "three"))
    assert path.read_bytes() == b"one\r\nthree"
    read = await desk.read(path, start_line=2)
    assert (read["content"], read["total_lines"]) == ("three", 2)
    assert read["sha256"] == told["sha256"]
    link = desk.place / "link"
    link.symlink_to("deep/a")
    await desk.write(link, "four", mode="overwrite", expected_sha256=read["sha256"])
    assert link.is_symlink()
    assert path.read_text() == "four"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    error = await desk.refused(
        "ssh_file_write",
        path=str(path),
        content="x",
        mode="overwrite",
        expected_sha256=read["sha256"],
    )
    assert error["reason"] == "FILE_CHANGED"
    assert error["sha256"] == hashlib.sha256(b"four").hexdigest()
    listed = await desk.told("ssh_dir_list", path=str(desk.place), depth=2)
    assert [(row["path"], row["type"]) for row in listed["entries"]] == [
        ("deep", "directory"),
        ("deep/a", "file"),
        ("link", "link"),
    ]


async def test_what_can_not_be_done_is_typed(desk: Desk) -> None:
    """FI-03, FI-11: refused as by a shell, or said to be missing."""
    path, fifo, ssh = desk.place / "a", desk.place / "fifo", desk.place / ".ssh"
    path.write_text("x")
    os.mkfifo(fifo)
    ssh.mkdir()
    (ssh / "id_x").write_text("canary")
    for tool, arguments, reason in (
        ("ssh_file_read", {"path": str(desk.place / "none")}, "FILE_NOT_FOUND"),
        ("ssh_file_read", {"path": str(desk.place)}, "NOT_TEXT"),
        ("ssh_file_read", {"path": str(fifo)}, "NOT_TEXT"),
        ("ssh_file_read", {"path": str(ssh / "id_x")}, "SENSITIVE_PATH"),
        ("ssh_file_read", {"path": str(path), "sudo": True}, "UNSUPPORTED"),
        ("ssh_file_write", {"path": str(path), "content": ""}, "FILE_EXISTS"),
        (
            "ssh_file_write",
            {"path": str(desk.place / "no" / "a"), "content": ""},
            "FILE_NOT_FOUND",
        ),
        ("ssh_dir_list", {"path": str(path)}, "FILE_FAILED"),
        ("ssh_search", {"pattern": "x", "path": str(desk.place)}, "UNSUPPORTED"),
        ("ssh_find", {"glob": "*", "path": str(desk.place)}, "UNSUPPORTED"),
    ):
        error = await desk.refused(tool, **arguments)
        assert (error["reason"], error["ran"]) == (reason, "no"), (tool, arguments)
    assert sorted(one.name for one in desk.place.iterdir()) == [".ssh", "a", "fifo"]


async def test_a_closed_directory_hides_no_other(tmp_path: Path) -> None:
    """FI-07: nothing at all was listed where one below could not be read."""
    with login(tmp_path, "rbash") as (sshd, who), served(sshd) as world:
        place = who.home / "place"
        for name in ("closed", "open"):
            (place / name).mkdir(parents=True)
            (place / name / "a").touch()
        (place / "closed").chmod(0o700)
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            told = await desk.told("ssh_dir_list", path=str(place), depth=2)
            error = await desk.refused("ssh_dir_list", path=str(place / "closed"))
    assert [row["path"] for row in told["entries"]] == ["closed", "open", "open/a"]
    assert "SFTP" in told["note"]
    assert "1 directories could not be read" in told["note"]
    assert (error["reason"], error["cause"]) == ("FILE_FAILED", "permission")
