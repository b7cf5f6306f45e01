"""A link that is lost in the worst moment of a file call by SFTP."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest
from asyncssh import SFTPFailure

from fakes.sftp_host import Fair, SftpHost
from fakes.tools import QUICK, served, tools

if TYPE_CHECKING:
    from pathlib import Path

    from asyncssh import SFTPAttrs, SSHServerChannel

    from fakes.tools import Result, Tools

MIB = 1024 * 1024
BLOCK = 8192
# No real server does a request, and loses its link before the answer, when asked to.


class _Cutting(Fair):
    """Does what is asked, and in the midst of one request loses its link."""

    def __init__(self, channel: SSHServerChannel[bytes], at: str) -> None:
        super().__init__(channel)
        self._at = at

    def _cut(self, what: str) -> None:
        if what == self._at:
            self.channel.get_connection().abort()

    def stat(self, path: bytes) -> SFTPAttrs:
        self._cut("stat")
        return super().stat(path)  # type: ignore[return-value]

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        self._cut("read")
        return super().read(file_obj, offset, size)  # type: ignore[return-value]

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        done = super().write(file_obj, offset, data)
        self._cut("write")
        return done  # type: ignore[return-value]

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:
        super().posix_rename(oldpath, newpath)
        self._cut("rename")


async def lost(ssh: Tools, tool: str, **arguments: object) -> Result:
    error = await ssh.refused(tool, target="box", **arguments)
    assert error["reason"] == "CONNECTION_LOST", error
    told: Result = error
    return told


@pytest.mark.parametrize(
    ("at", "ran"), [("stat", "no"), ("write", "unknown"), ("rename", "unknown")]
)
async def test_what_may_have_been_written_is_told_so(
    tmp_path: Path, at: str, ran: str
) -> None:
    """FI-04, NF-09: it was told as undone, and the same call appended it twice."""
    path = tmp_path / "file"
    path.write_text("one\n")
    async with SftpHost(serve=lambda channel: _Cutting(channel, at)) as host:
        config = host.client_files(tmp_path)
        with served(config, limits=f"{QUICK}probe_seconds = 2\n") as world:
            async with tools(world, "--results", "structured") as ssh:
                mode = "append" if at == "write" else "overwrite"
                call = {"path": f"C:{path}", "content": "two\n", "mode": mode}
                error = await lost(ssh, "ssh_file_write", request_id="r1", **call)
                assert error["ran"] == ran, error
                if at == "write":
                    again = await ssh.call(
                        "ssh_file_write", target="box", request_id="r1", **call
                    )
                    assert again.get("isError"), again
                    assert path.read_text() == "one\ntwo\n"
                elif at == "rename":
                    assert path.read_text() == "two\n"
                else:
                    assert path.read_text() == "one\n"


class _Full(Fair):
    """Takes the beginning of what is written, and has no room for the rest."""

    def write(self, file_obj: object, offset: int, data: bytes) -> int:
        super().write(file_obj, offset, data[:BLOCK])
        raise SFTPFailure("No space left on device")


async def test_what_was_added_in_part_is_no_file_as_it_was(tmp_path: Path) -> None:
    """FI-04, NF-17: it was told as undone, and the same call added to the torn half."""
    path = tmp_path / "file"
    path.write_text("one\n")
    async with SftpHost(serve=_Full) as host:
        config = host.client_files(tmp_path)
        with served(config, limits=QUICK) as world:
            async with tools(world, "--results", "structured") as ssh:
                call = {"path": f"C:{path}", "content": "x" * 100_000, "mode": "append"}
                for _ in range(2):
                    error = await ssh.refused(
                        "ssh_file_write", target="box", request_id="r1", **call
                    )
                    assert (error["reason"], error["ran"]) == ("FILE_FAILED", "yes")
                    assert "not to its end" in error["message"]
                    assert "No space left" in error["message"]
                    assert path.stat().st_size == 4 + BLOCK


class _Counting(Fair):
    """Counts what is read of it."""

    taken = 0

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        found: bytes = super().read(file_obj, offset, size)  # type: ignore[assignment]
        _Counting.taken += len(found)
        return found


async def test_a_large_file_is_not_fetched_to_be_added_to(tmp_path: Path) -> None:
    """FI-04: all of it came into the daemon's memory, for a sum; nor is it compared."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(200 * MIB)
    call = {"path": f"C:{path}", "content": "two\n"}
    async with SftpHost(serve=_Counting) as host:
        config = host.client_files(tmp_path)
        with served(config, limits=QUICK) as world:
            async with tools(world, "--results", "structured") as ssh:
                told = await ssh.told(
                    "ssh_file_write", target="box", mode="append", **call
                )
                assert told["sha256"] == ""
                error = await ssh.refused(
                    "ssh_file_write",
                    target="box",
                    mode="overwrite",
                    expected_sha256=hashlib.sha256(b"").hexdigest(),
                    **call,
                )
    assert (error["reason"], error["ran"]) == ("NOT_TEXT", "no")
    assert path.stat().st_size == 200 * MIB + 4
    assert _Counting.taken < MIB


@pytest.mark.parametrize("at", ["stat", "read"])
async def test_a_look_that_is_cut_off_is_no_fault_of_ours(
    tmp_path: Path, at: str
) -> None:
    """FI-03, NF-09: it was told as an incident of the daemon."""
    (tmp_path / "file").write_text("one\n")
    digest = hashlib.sha256(b"one\n").hexdigest()
    path = f"C:{tmp_path}/file"
    async with SftpHost(serve=lambda channel: _Cutting(channel, at)) as host:
        config = host.client_files(tmp_path)
        with served(config, limits=f"{QUICK}probe_seconds = 2\n") as world:
            async with tools(world, "--results", "structured") as ssh:
                assert (await lost(ssh, "ssh_file_read", path=path))["ran"] == "no"
                edits = [{"old": "one", "new": "two"}]
                error = await lost(ssh, "ssh_file_edit", path=path, edits=edits)
                assert error["ran"] == "no"
    left = hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest()
    assert left == digest
