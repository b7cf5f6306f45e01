"""Syncs by SFTP to servers that can't put a file in the place of another at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import asyncssh
import pytest

from fakes.foreign_host import LOOPBACK
from fakes.proxy import Proxy
from fakes.sftp_host import Fair, SftpHost
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ROOTS, Pair
from fakes.tools import QUICK, served, tools
from fakes.watch import moment, soon
from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.connection.sftp_tree import SftpTree
from holdfast_daemon.transfer.tree.draft import drafted

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from asyncssh import SSHServerChannel

pytestmark = pytest.mark.asyncio

PART = drafted(b"f", "12345678")


class Turns:
    """What becomes of the steps by which one server's files are replaced.

    Attributes:
        held: Which of them waits for `gate`; the first is 1.
        refused: Which of them are refused.
        asked: How many there were.
    """

    def __init__(self) -> None:
        self.held = 0
        self.refused: set[int] = set()
        self.asked = 0
        self.waiting = asyncio.Event()
        self.gate = asyncio.Event()


class InTwo(Fair):
    """Renames only to where nothing is."""

    def __init__(self, channel: SSHServerChannel[bytes], turns: Turns) -> None:
        super().__init__(channel)
        self._turns = turns

    def posix_rename(self, oldpath: bytes, newpath: bytes) -> None:  # noqa: ARG002
        raise asyncssh.SFTPOpUnsupported("not here")

    async def remove(self, path: bytes) -> None:
        if path.endswith(b"/f"):
            await self._turn()
        super().remove(path)

    async def rename(self, oldpath: bytes, newpath: bytes) -> None:
        await self._turn()
        super().rename(oldpath, newpath)

    async def _turn(self) -> None:
        turns = self._turns
        turns.asked += 1
        number = turns.asked
        if number == turns.held:
            turns.waiting.set()
            await turns.gate.wait()
        if number in turns.refused:
            raise asyncssh.SFTPFailure("not now")


async def pieces() -> AsyncGenerator[bytes]:
    yield b"new"


async def write(root: Path, turns: Turns, *, stop: bool = False) -> None:
    """Replace the file `f`; stop once a rename waits."""
    async with (
        SftpHost(serve=lambda channel: InTwo(channel, turns)) as host,
        asyncssh.connect(LOOPBACK, host.port, known_hosts=None) as link,
        link.start_sftp_client() as client,
    ):
        tree = SftpTree(client, os.fsencode(root), 5)
        writing = asyncio.create_task(tree.write(b"f", pieces(), 0o600, 1, PART))
        if stop:
            async with asyncio.timeout(40):
                await turns.waiting.wait()
            writing.cancel()
            await moment()  # what it asks for now comes before the gate opens
            turns.gate.set()
        await writing


def held(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@pytest.mark.parametrize("there", [True, False])
async def test_a_file_is_replaced(tmp_path: Path, *, there: bool) -> None:
    """FI-02: the old one goes aside first, and is deleted once the new one is there."""
    if there:
        (tmp_path / "f").write_bytes(b"old")
    await write(tmp_path, Turns())
    assert held(tmp_path) == {"f": b"new"}


@pytest.mark.parametrize("number", [1, 2])
async def test_stopped_between_both_steps(tmp_path: Path, number: int) -> None:
    """FI-02: the old file was deleted, and the new one with what was half."""
    (tmp_path / "f").write_bytes(b"old")
    turns = Turns()
    turns.held = number
    with pytest.raises(asyncio.CancelledError):
        await write(tmp_path, turns, stop=True)
    assert held(tmp_path) == {"f": b"new"}


async def test_a_second_step_that_is_refused(tmp_path: Path) -> None:
    """FI-02: the old file is there again under its name."""
    (tmp_path / "f").write_bytes(b"old")
    turns = Turns()
    turns.refused = {2}
    with pytest.raises(SftpError, match="not now"):
        await write(tmp_path, turns)
    assert held(tmp_path) == {"f": b"old"}


async def test_an_old_file_that_has_to_stay_aside(tmp_path: Path) -> None:
    """FI-02: where it can't be had back, it is said what it is called."""
    (tmp_path / "f").write_bytes(b"old")
    turns = Turns()
    turns.refused = {2, 3}
    with pytest.raises(SftpError, match="is called") as caught:
        await write(tmp_path, turns)
    ((name, data),) = held(tmp_path).items()
    assert data == b"old"
    assert name in str(caught.value)


async def test_a_directory_in_the_way(tmp_path: Path) -> None:
    """FI-02: it is not moved aside, with all that it holds."""
    (tmp_path / "f").mkdir()
    with pytest.raises(SftpError):
        await write(tmp_path, Turns())
    assert os.listdir(tmp_path) == ["f"]  # noqa: PTH208  a moment
    assert (tmp_path / "f").is_dir()


@pytest.mark.needs_sshd
async def test_a_sync_stopped_in_the_midst(tmp_path: Path) -> None:
    """FI-02: every name is still there, with what it held or what it should."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    options = {
        "ForceCommand": "internal-sftp -P posix-rename",
        "Subsystem": "sftp internal-sftp",
    }
    names = [f"f{number}" for number in range(200)]
    with Sshd(tmp_path / "sshd", options=options) as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        limits = f"{QUICK}probe_seconds = 2\n"
        with served(config, more=ROOTS, limits=limits) as world:
            async with tools(world, "--results", "structured") as ssh:
                pair = Pair(ssh, tmp_path, "upload")
                pair.fill(dict.fromkeys(names, b"new content"))
                pair.fill(dict.fromkeys(names, b"old"), pair.destination)
                there = pair.destination
                proxy.delay(0.03)
                task = asyncio.create_task(ssh.call("ssh_sync", **pair.filled({})))

                def some() -> bool:
                    count = 0
                    for name in names:
                        # for a moment nothing is under a name
                        with contextlib.suppress(FileNotFoundError):
                            count += (there / name).stat().st_size > len(b"old")
                    return count > 20

                await soon(some, "some are replaced", 30)
                proxy.delay(0.2)  # the rest takes longer than it takes to stop it
                told = await asyncio.to_thread(world.cli_json, "jobs", "--running")
                (job,) = told["jobs"]
                await asyncio.to_thread(world.cli, "job", job["job_id"], "--stop")
                proxy.delay(0)
                told = (await task)["structuredContent"]
                assert told["status"] == "cancelled"
                assert 0 < told["updated"] < len(names)
    found = held(there)
    assert sorted(found) == sorted(names)
    assert set(found.values()) == {b"old", b"new content"}
