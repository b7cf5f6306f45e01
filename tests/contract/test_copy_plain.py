"""Copies where there is SFTP and no POSIX shell, through the real shim.

What a copy does on every host is in test_copy.py, which has such a host too; here is
what is told, and what only such hosts do.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from typing import TYPE_CHECKING

import pytest

from fakes.account import login
from fakes.copying import WAYS, Ways
from fakes.foreign_host import ForeignHost, ios
from fakes.proxy import Proxy
from fakes.sftp_host import SftpHost
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ROOTS, tree
from fakes.tools import QUICK, content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.asyncio

MIB = 1024 * 1024
INTERNAL = {
    "ForceCommand": "internal-sftp",
    "Subsystem": "sftp internal-sftp",
}
PROBE = f"{QUICK}probe_seconds = 5\n"
# a shell is not waited for, and SFTP is as long as any channel
SILENT = f"{QUICK}probe_seconds = 0.5\nchannel_open_seconds = 3\n"

needs_sshd = pytest.mark.skipif(
    sshd_binary() is None, reason="no sshd here: run packaging/test-packages.sh"
)


@pytest.mark.parametrize("way", WAYS)
async def test_windows(tmp_path: Path, way: str) -> None:
    """FI-01: a tree to a host whose shell is cmd.exe, and back; it is said how."""
    async with SftpHost() as host:
        config = host.client_files(tmp_path / "client")
        with served(config, more=ROOTS, limits=PROBE) as world:
            async with tools(world, "--results", "structured") as ssh:
                ways = Ways(ssh, tmp_path, way)
                (ways.source / "t/d").mkdir(parents=True)
                (ways.source / "t/d/big").write_bytes(os.urandom(3 * MIB))
                (ways.source / "t/ä b").write_text("small\r\n")
                (ways.source / "t/link").symlink_to("d/big")
                told = await ways.copy("t", recursive=True, preserve=True)
                assert told["files"] == 3
                assert tree(ways.source) == tree(ways.destination)
                for words in ("SFTP", "no checksums", "sizes were compared"):
                    assert words in told["note"]
                data = (ways.source / "t/d/big").read_bytes()
                one = await ways.copy("t/d/big")
                assert one["sha256"] == hashlib.sha256(data).hexdigest()
                assert ways.left() == ["big", "t"]


async def test_paths_as_windows_writes_them(tmp_path: Path) -> None:
    """FI-01: a drive, backslashes; a new name, a directory, a name that comes."""
    async with SftpHost() as host:
        config = host.client_files(tmp_path / "client")
        with served(config, more=ROOTS, limits=PROBE) as world:
            async with tools(world, "--results", "structured") as ssh:
                up = Ways(ssh, tmp_path, "upload")
                (up.source / "a").write_text("1")
                place = "C:" + str(up.destination).replace("/", "\\")
                await up.copy("a", destination=f"{place}\\new.txt")
                await up.copy("a", destination=place)
                assert up.left() == ["a", "new.txt"]
                back = tmp_path / "back"
                told = await ssh.told(
                    "ssh_copy",
                    target="box",
                    direction="download",
                    sources=[f"{place}\\new.txt"],
                    destination=f"{back}/",
                )
                assert told["files"] == 1
                assert [one.name for one in back.iterdir()] == ["new.txt"]
                error = await up.refused("a", destination=f"{place}\\no\\new.txt")
                assert error["reason"] == "FILE_NOT_FOUND"


@pytest.mark.parametrize("way", WAYS)
async def test_neither_shell_nor_files(tmp_path: Path, way: str) -> None:
    """FI-01: gear without SFTP refuses a copy, and says what it has not."""
    async with ForeignHost(ios, version="Cisco-1.25") as host:
        config = host.client_files(tmp_path / "client")
        with served(config, more=ROOTS, limits=PROBE) as world:
            async with tools(world, "--results", "structured") as ssh:
                ways = Ways(ssh, tmp_path, way)
                (ways.source / "a").write_text("1")
                error = await ways.refused("a")
                assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
                assert "neither a POSIX shell nor SFTP" in error["message"]
                assert error["hint"]
                assert ways.left() == []


@needs_sshd
@pytest.mark.parametrize("way", WAYS)
async def test_an_account_that_may_do_nothing(tmp_path: Path, way: str) -> None:
    """FI-01: the same where every session is answered by a command of the host's."""
    options = {"ForceCommand": "/bin/false"}
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=PROBE) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, way)
            (ways.source / "a").write_text("1")
            error = await ways.refused("a")
            assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
            assert "neither a POSIX shell nor SFTP" in error["message"]


@needs_sshd
async def test_a_session_that_says_nothing(tmp_path: Path) -> None:
    """FI-01: a forced command that never answers is given up in time."""
    options = {"ForceCommand": "exec sleep 30"}
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=SILENT) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "a").write_text("1")
            error = await ways.refused("a")
            assert error["reason"] == "UNSUPPORTED"
            assert "nothing answered for 3 s" in error["message"]


@needs_sshd
async def test_a_server_that_can_not_replace(tmp_path: Path) -> None:
    """FI-13: what can't be replaced at once is in two steps, and that is said."""
    options = INTERNAL | {"ForceCommand": "internal-sftp -P posix-rename"}
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=PROBE) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "t").mkdir()
            (ways.destination / "t").mkdir()
            for name in ("a", "b"):
                (ways.source / "t" / name).write_text("new")
            (ways.destination / "t/a").write_text("old")
            told = await ways.copy("t", recursive=True, overwrite=True)
            assert "1 replaced in two steps" in told["note"]
            assert tree(ways.source).keys() == tree(ways.destination).keys()
            assert (ways.destination / "t/a").read_text() == "new"
            again = await ways.copy("t", recursive=True)
            assert again["skipped"] == 2
            assert ways.left() == ["t"]


@needs_sshd
@pytest.mark.parametrize(
    ("way", "harm"),
    [
        ("upload", "none"),
        ("upload", "early"),
        ("upload", "last"),
        ("upload", "source"),
        ("download", "none"),
        ("download", "last"),
        ("download", "source"),
        ("download", "zeros"),
        ("upload", "zeros"),
    ],
)
async def test_what_an_earlier_call_brought(
    tmp_path: Path, way: str, harm: str
) -> None:
    """NF-15: it is compared before it is used, and never trusted for its length.

    What came from a host lies on this machine, under the size and time of its source:
    of that only the last is compared, for all of it would have to come again. Zeros
    are not written: where the part was another, its bytes stood in their place.
    """
    size = 12 * MIB
    with Sshd(tmp_path / "sshd", options=INTERNAL) as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        limits = f"{PROBE}copy_patience_seconds = 0\n"
        with served(config, more=ROOTS, limits=limits) as world:
            async with tools(world, "--results", "structured") as ssh:
                ways = Ways(ssh, tmp_path, way)
                source = ways.source / "big"
                source.write_bytes(os.urandom(size))
                proxy.throttle(size / 4)
                asking = asyncio.create_task(ssh.call("ssh_copy", **ways.filled("big")))
                await soon(lambda: _part(ways) > size // 4, "some of it is there", 60)
                proxy.throttle(size / 64)
                proxy.rst()
                assert (await asking)["isError"]
                assert ways.left() != ["big"]
                before = _part(ways)
                proxy.throttle(0)
                _harm(ways, harm)
                told = content(await ssh.call("ssh_copy", **ways.filled("big")))
                copied = (ways.destination / "big").read_bytes()
                wanted = source.read_bytes()
                assert told["sha256"] == hashlib.sha256(wanted).hexdigest()
                assert copied == wanted
                if harm == "none":
                    assert told["bytes_transferred"] <= size - before + MIB
                    assert "compared" in told["note"]
                assert ways.left() == ["big"]


def _parts(ways: Ways) -> list[Path]:
    return [p for p in ways.destination.rglob("*") if p.is_file()]


def _part(ways: Ways) -> int:
    return sum(path.stat().st_size for path in _parts(ways))


def _harm(ways: Ways, harm: str) -> None:
    (part,) = _parts(ways)
    source = ways.source / "big"
    if harm == "source":
        source.write_bytes(os.urandom(9 * MIB))
    elif harm == "zeros":  # of the same size and time
        about = source.stat()
        source.write_bytes(os.urandom(MIB) + bytes(11 * MIB))
        os.utime(source, ns=(about.st_atime_ns, about.st_mtime_ns))
    elif harm != "none":
        at = 1000 if harm == "early" else part.stat().st_size - 1000
        with part.open("r+b") as file:
            file.seek(at)
            file.write(b"damage")


@needs_sshd
async def test_names_that_only_a_shell_knows(tmp_path: Path) -> None:
    """FI-01: ~user is refused by name; ~ is the account's directory."""
    options = INTERNAL | {"ForceCommand": f"internal-sftp -d {tmp_path}"}
    with (
        Sshd(tmp_path / "sshd", options=options) as sshd,
        served(sshd, more=ROOTS, limits=PROBE) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "a").write_text("1")
            error = await ways.refused("a", destination="~nobody/x")
            assert error["reason"] == "INVALID_ARGUMENT"
            assert "~nobody/x" in error["message"]
            await ways.copy("a", destination="~/destination/b")
            assert ways.left() == ["b"]


@needs_sshd
@pytest.mark.parametrize("way", WAYS)
async def test_more_names_than_are_copied(tmp_path: Path, way: str) -> None:
    """NF-15: a tree without an end is refused before anything is copied."""
    with (
        Sshd(tmp_path / "sshd", options=INTERNAL) as sshd,
        served(sshd, more=ROOTS, limits=f"{PROBE}copy_names = 100\n") as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, way)
            (ways.source / "t").mkdir()
            for number in range(120):
                (ways.source / f"t/{number}").touch()
            error = await ways.refused("t", recursive=True)
            assert error["reason"] == "INVALID_ARGUMENT"
            assert "more than 100 names" in error["message"]
            assert ways.left() == []


@needs_sshd
async def test_what_nobody_may_write(tmp_path: Path) -> None:
    """FI-01: a read-only file that goes in stretches failed, but for root."""
    with (
        login(tmp_path, "bash") as (sshd, who),
        served(sshd, more=ROOTS, limits=QUICK) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            thin = ways.source / "thin"
            with thin.open("wb") as file:
                file.write(b"begin")
                file.seek(8 * MIB, os.SEEK_CUR)
                file.write(b"end")
            thin.chmod(0o444)
            told = await ways.copy("thin", destination="thin")
            assert told["status"] == "exited", told
            there = who.home / "thin"
            assert there.read_bytes() == thin.read_bytes()
            assert stat.S_IMODE(there.stat().st_mode) == 0o444
            assert there.owner() == who.name
