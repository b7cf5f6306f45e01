"""Copies into directories of production: shared by a group, or with disks below."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files, only_busybox
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.syncing import ROOTS
from fakes.tools import QUICK, content, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_places"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module", params=["shell", "SFTP only"])
def sshd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    with host_of_files(tmp_path_factory.mktemp("sshd"), request.param) as one:
        yield one


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd, more=ROOTS) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


def of_a_group(folder: Path) -> None:
    folder.chmod(0o2775)


def of_an_acl(folder: Path) -> None:
    """Let all that is made there be for everybody's eyes, whatever the mask says."""
    none = 0xFFFFFFFF
    rows = [(0x01, 7, none), (0x04, 7, none), (0x10, 7, none), (0x20, 7, none)]
    told = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    try:
        os.setxattr(folder, "system.posix_acl_default", told)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error}")


@pytest.mark.parametrize("shared", [of_a_group, of_an_acl])
async def test_a_directory_that_is_shared(ways: Ways, shared: object) -> None:
    """NF-15: what is made there inherits more than we want; it was refused as odd."""
    assert callable(shared)
    (ways.source / "t/u").mkdir(parents=True)
    for number in range(3):
        (ways.source / f"t/u/{number}").write_bytes(os.urandom(5000))
    shared(ways.destination)
    told = await ways.copy("t", recursive=True)
    assert told["files"] == 3
    assert ways.left() == ["t"]
    group = ways.destination.stat().st_mode & stat.S_ISGID
    for name in ("t", "t/u"):
        about = (ways.destination / name).stat()
        assert about.st_mode & 0o7777 == group | 0o755


@pytest.mark.parametrize("shared", [of_a_group, of_an_acl])
@pytest.mark.parametrize("way", WAYS)
async def test_a_shared_directory_after_a_restart(
    sshd: Sshd, tmp_path: Path, way: str, shared: object
) -> None:
    """NF-15: its own parts are known again there, and nobody else could read them."""
    assert callable(shared)
    with Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        with served(config, more=ROOTS, limits=QUICK) as world:
            async with tools(world, "--results", "structured") as one:
                ways = Ways(one, tmp_path, way)
                shared(ways.destination)
                (ways.source / "big").write_bytes(os.urandom(6 * MIB))
                proxy.throttle(3 * MIB)
                asking = asyncio.create_task(one.call("ssh_copy", **ways.filled("big")))
                await soon(
                    lambda: ways.arrived() >= 2 * MIB,
                    "some of it is there",
                    30,
                )
                proxy.throttle(MIB / 16)
                (stage,) = ways.destination.iterdir()
                assert stage.stat().st_mode & 0o077 == 0
                world.kill()
                assert (await asking)["isError"]
                proxy.throttle(0)
            async with tools(world, "--results", "structured") as other:
                (job,) = (await other.told("ssh_job_list"))["jobs"]
                ended = await other.ended(job["job_id"])
                assert (ended["status"], ended["exit_code"]) == ("exited", 0), ended
    assert (ways.destination / "big").read_bytes() == (ways.source / "big").read_bytes()
    assert ways.left() == ["big"]


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Generator[None]:
    place.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this account may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def without_shell(ways: Ways, sshd: Sshd) -> bool:
    return ways.way == "upload" and "ForceCommand" in sshd.options


async def test_a_disk_below_the_destination(ways: Ways, sshd: Sshd) -> None:
    """NF-15: what goes to another disk is put in one step there too."""
    below = ways.destination / "t" / "disk"
    (ways.source / "t/disk/sub").mkdir(parents=True)
    for name in ("t/disk/f", "t/disk/sub/g", "t/h"):
        (ways.source / name).write_bytes(os.urandom(20_000))
    (ways.source / "t/disk/l").symlink_to("f")
    with mounted(below, "size=4m"):
        (below / "f").write_bytes(b"old")
        if without_shell(ways, sshd):
            # SFTP moves nothing to another disk: that is told, and all stays.
            error = await ways.refused("t", recursive=True, overwrite=True)
            assert "t/disk/f: " in error["message"]
            assert (below / "f").read_bytes() == b"old"
            assert ways.left() == ["t"]
            return
        told = await ways.copy("t", recursive=True, overwrite=True)
        assert told["files"] == 4
        for name in ("t/disk/f", "t/disk/sub/g", "t/h"):
            copied = ways.destination / name
            assert copied.read_bytes() == (ways.source / name).read_bytes()
        assert (below / "l").readlink().name == "f"
        assert sorted(one.name for one in below.iterdir()) == ["f", "l", "sub"]
    assert ways.left() == ["t"]


@pytest.mark.parametrize("overwrite", [True, False], ids=["over", "new"])
async def test_a_full_disk_below_the_destination(
    ways: Ways, sshd: Sshd, *, overwrite: bool
) -> None:
    """NF-15: the file that was there was lost, and half of the new one was put."""
    below = ways.destination / "t" / "disk"
    (ways.source / "t/disk").mkdir(parents=True)
    (ways.source / "t/disk/f").write_bytes(os.urandom(3 * MIB))
    (ways.source / "t/h").write_text("h")
    with mounted(below, "size=1m"):
        if overwrite:
            (below / "f").write_bytes(b"old" * 1000)
        error = await ways.refused("t", recursive=True, overwrite=overwrite)
        assert error["reason"] == "FILE_FAILED"
        why = "Failure" if without_shell(ways, sshd) else "No space left"
        assert why in error["message"]
        if overwrite:
            assert (below / "f").read_bytes() == b"old" * 1000
        assert sorted(below.iterdir()) == ([below / "f"] if overwrite else [])
    assert ways.left() == ["t"]
    assert (ways.destination / "t/h").read_text() == "h"


async def test_a_disk_below_where_busybox_moves(tmp_path: Path) -> None:
    """NF-15: with its programs too all is put, or told, and nothing is half."""
    (tmp_path / "host").mkdir()
    variables = f"HOME={tmp_path / 'host'} PATH={only_busybox(tmp_path / 'bin')}"
    with (
        Sshd(tmp_path / "host", options={"SetEnv": variables}) as sshd,
        served(sshd, more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            await test_a_disk_below_the_destination(ways, sshd)
            for one in (ways.source, ways.destination):
                shutil.rmtree(one)
                one.mkdir()
            await test_a_full_disk_below_the_destination(ways, sshd, overwrite=True)


async def test_a_copy_of_next_to_nothing_but_long_can_be_stopped(
    ways: Ways, world: World
) -> None:
    """NF-15: 8 TiB of holes were added up to their end, whoever had given up."""
    with (ways.source / "long").open("wb") as file:
        file.truncate(8 << 40)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **ways.filled("long")))
    async with tools(world, "--results", "structured", client="other") as other:

        def begun() -> bool:
            return any(p.is_file() for p in ways.destination.rglob("*"))

        await soon(begun, "it has begun", 30)
        jobs = (await other.told("ssh_job_list", running_only=True))["jobs"]
        (job_id,) = [job["job_id"] for job in jobs if "copy" in job["command"]]
        async with asyncio.timeout(40):
            stopped = await other.stop(job_id)
        assert stopped["status"] == "cancelled"
    assert content(await asking)["status"] == "cancelled"
    await soon(lambda: ways.left() == [], "nothing is left", 20)


async def test_a_home_that_nobody_has(ways: Ways) -> None:
    """FI-15: a path of this machine that names no account is wrong input."""
    (ways.source / "a").write_text("1")
    asked = ways.filled("a")
    if ways.way == "upload":
        asked["sources"] = ["~nobody-of-that-name/a"]
    else:
        asked["destination"] = "~nobody-of-that-name/"
    error = await ways.ssh.refused("ssh_copy", **asked)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert "no account of this machine" in error["message"]


async def test_what_is_refused_makes_no_directory(ways: Ways) -> None:
    """FI-01: "nothing ran" was told, and the directory it was to go to was made."""
    place = ways.destination / "new" / ".ssh"
    name = "authorized_keys" if ways.way == "upload" else "none"
    (ways.source / "authorized_keys").write_text("let me in")
    error = await ways.refused(name, destination=f"{place}/")
    reason = "SENSITIVE_PATH" if ways.way == "upload" else "FILE_NOT_FOUND"
    assert (error["reason"], error["ran"]) == (reason, "no")
    assert ways.left() == []


# A host may have a disk that went wrong, or mean no good.
_STAT = """#!/bin/sh
{real} "$@" | sed 's/ 1[0-9]\\{{9\\}} / {time} /'
"""


@pytest.mark.parametrize("time", [10**20, -(10**20)])
async def test_times_that_can_not_be(tmp_path: Path, time: int) -> None:
    """FI-10: a time that this machine has no number for ended in a fault of ours."""
    programs, host = tmp_path / "bin", tmp_path / "host"
    for one in (programs, host):
        one.mkdir()
    (programs / "stat").write_text(_STAT.format(real=shutil.which("stat"), time=time))
    (programs / "stat").chmod(0o755)
    variables = f"HOME={host} PATH={programs}:{os.environ['PATH']}"
    with (
        Sshd(host, options={"SetEnv": variables}) as sshd,
        served(sshd, more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "download")
            for name in ("a", "b"):
                (ways.source / name).write_text(name)
            told = await ways.copy("a", "b")
            assert told["files"] == 2
            told = await ways.copy("a", overwrite=True)
            assert told["files"] == 1
            assert ways.left() == ["a", "b"]


# As one that has to copy all onto another disk.
_SLOW = """#!/bin/sh
echo "$0" >>"$HOME/done"
sleep 12
PATH=${PATH#*:}
exec "${0##*/}" "$@"
"""


async def test_a_host_that_takes_its_time_to_put_all_in_place(tmp_path: Path) -> None:
    """NF-15: it was taken for dead, and all was put a second time beside the first."""
    programs, host = tmp_path / "bin", tmp_path / "host"
    for one in (programs, host):
        one.mkdir()
    (programs / "mv").write_text(_SLOW)
    (programs / "mv").chmod(0o755)
    options = {"SetEnv": f"HOME={host} PATH={programs}:{os.environ['PATH']}"}
    with (
        Sshd(host, options=options) as sshd,
        served(sshd, more=ROOTS, limits="copy_idle_seconds = 4\n") as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "t").mkdir()
            (ways.source / "t/f").write_bytes(os.urandom(1000))
            told = await ways.copy("t", recursive=True)
            assert (told["status"], told["files"]) == ("exited", 1)
            there = ways.destination / "t/f"
            assert there.read_bytes() == (ways.source / "t/f").read_bytes()
    assert len((host / "done").read_text().splitlines()) == 1


_TOUCH = """#!/bin/sh
echo "touch: setting times: Operation not permitted" >&2
exit 1
"""


@pytest.mark.parametrize("kind", ["shell", "SFTP"])
@pytest.mark.parametrize("name", ["t", "t/f"])
async def test_a_host_that_takes_no_times(tmp_path: Path, kind: str, name: str) -> None:
    """FI-01: what was asked to be kept and could not be was kept back."""
    programs, host = tmp_path / "bin", tmp_path / "host"
    for one in (programs, host):
        one.mkdir()
    (programs / "touch").write_text(_TOUCH)
    (programs / "touch").chmod(0o755)
    options = {"SetEnv": f"HOME={host} PATH={programs}:{os.environ['PATH']}"}
    if kind == "SFTP":
        options["ForceCommand"] = "internal-sftp -P setstat"
        options["Subsystem"] = "sftp internal-sftp"
    with Sshd(host, options=options) as sshd, served(sshd, more=ROOTS) as world:
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "t").mkdir()
            (ways.source / "t/f").write_bytes(os.urandom(1000))
            told = await ways.copy(name, recursive=True, preserve=True)
            assert told["files"] == 1
            assert "not every mode and time could be set: " in told["note"]
            why = "Permission denied" if kind == "SFTP" else "setting times"
            assert why in told["note"]


@pytest.mark.parametrize("way", WAYS)
async def test_what_is_left_by_a_stop_is_told(
    sshd: Sshd, tmp_path: Path, way: str
) -> None:
    """NF-15: stopped while its host was away it left parts there, and said nothing."""
    with Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        with served(config, more=ROOTS, limits=QUICK) as world:
            async with tools(world, "--results", "structured") as one:
                ways = Ways(one, tmp_path, way)
                (ways.source / "big").write_bytes(os.urandom(6 * MIB))
                proxy.throttle(MIB)
                asking = asyncio.create_task(one.call("ssh_copy", **ways.filled("big")))
                await soon(lambda: ways.arrived() > 0, "some of it is there", 30)
                proxy.refuse()
                proxy.rst()
                async with tools(world, client="other") as other:
                    told = await other.told("ssh_job_list", running_only=True)
                    (job,) = told["jobs"]
                    stopped = await other.stop(job["job_id"])
                assert stopped["status"] == "cancelled"
                told = content(await asking)
                (left,) = ways.left() or [""]
                assert bool(left) is (way == "upload")
                assert (left in told.get("note", "")) if left else "note" not in told
                proxy.heal()
                proxy.throttle(0)
                async with asyncio.timeout(40):
                    # Without a shell it is being deleted still.
                    while (again := await one.call("ssh_copy", **ways.filled("big")))[
                        "structuredContent"
                    ].get("error", {}).get("reason") == "IN_USE":
                        await moment()
                assert content(again)["files"] == 1
                assert ways.left() == ["big"]
