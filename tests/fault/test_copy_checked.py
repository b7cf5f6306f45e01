"""What was copied is checked: many small files as they come, a large one in parts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from fakes.copying import Ways
from fakes.filing import only_busybox
from fakes.proxy import Proxy
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ROOTS
from fakes.tools import QUICK, content, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from fakes.tools import Result

MIB = 1024 * 1024
UNVERIFIED = "not every checksum could be had"

pytestmark = [
    pytest.mark.asyncio(loop_scope="function"),
    pytest.mark.xdist_group("copy_checked"),
    pytest.mark.needs_sshd,
]

# The first time: what was read is changed before it is added up.
_TAR = """/usr/bin/tar "$@"
e=$?
mkdir "{place}/first" 2>/dev/null&&printf new >"{source}/t/f1"
: >"{place}/read"
exit $e
"""
_AFTER = """n=0
until [ -e "{place}/read" ]||[ $n = 500 ];do sleep 0.02;n=$((n+1));done
exec /usr/bin/sha256sum "$@"
"""
# The first time: one of them is not told of, as when it can't be read for a moment.
_ONE_LESS = """mkdir "{place}/first" 2>/dev/null||exec /usr/bin/sha256sum "$@"
/usr/bin/sha256sum "$@"|sed 1d
exit 1
"""
# Adds up only what has come already, and says so where nothing comes.
_LAST = """n=0
until [ -s "{destination}"/.holdfast-*/t/f4 ];do
[ $n = 500 ]&&: >"{place}/stuck"&&break
sleep 0.02;n=$((n+1));done
exec /usr/bin/sha256sum "$@"
"""
_NEVER = """/usr/bin/sha256sum "$@"|sed '/f1$/d'
"""
_NOTHING = "exit 1\n"
# One of its answers is another one.
_ONCE = """i=3
if mkdir "{place}/1" 2>/dev/null;then i=1
elif mkdir "{place}/2" 2>/dev/null;then i=2;fi
cat >"{place}/$i.$$"
[ $i = NUMBER ]&&{{ TOLD;exit;}}
exec /usr/bin/sha256sum <"{place}/$i.$$"
"""


def filled(ways: Ways, count: int, size: int) -> None:
    (ways.source / "t").mkdir()
    for number in range(count):
        (ways.source / f"t/f{number}").write_bytes(os.urandom(size))


def same(ways: Ways) -> bool:
    there = sorted(one.name for one in (ways.source / "t").iterdir())
    here = sorted(one.name for one in (ways.destination / "t").iterdir())
    return there == here and all(
        (ways.source / "t" / name).read_bytes()
        == (ways.destination / "t" / name).read_bytes()
        for name in there
    )


@contextlib.asynccontextmanager
async def host(
    tmp_path: Path, way: str = "download", **programs: str
) -> AsyncGenerator[Ways]:
    """Yield a way to or from a host with programs of its own."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    if not all(os.access(f"/usr/bin/{name}", os.X_OK) for name in ("tar", "sha256sum")):
        pytest.skip("tar and sha256sum are elsewhere here")
    place, ways = tmp_path / "host", Ways(None, tmp_path, way)
    (place / "bin").mkdir(parents=True)
    for name, text in programs.items():
        program = place / "bin" / name
        told = text.format(
            place=place, source=ways.source, destination=ways.destination
        )
        program.write_text(f"#!/bin/sh\n{told}")
        program.chmod(0o755)
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    options = {"SetEnv": f"HOME={place} PATH={path}"}
    with (
        Sshd(place, options=options) as sshd,
        served(sshd, more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ways.ssh:
            yield ways


async def copied(ways: Ways) -> Result:
    return await ways.copy("t", recursive=True)


async def test_what_changed_meanwhile_comes_again(tmp_path: Path) -> None:
    """NF-15: what came is not what the host has: it is fetched once more."""
    async with host(tmp_path, tar=_TAR, sha256sum=_AFTER) as ways:
        filled(ways, 5, 100)
        told = await copied(ways)
    assert (ways.destination / "t/f1").read_bytes() == b"new"
    assert same(ways)
    assert told["files"] == 5
    assert UNVERIFIED not in str(told)


async def test_one_checksum_less_hides_no_other(tmp_path: Path) -> None:
    """NF-15: where one was not told, none of the others counted as checked."""
    async with host(tmp_path, sha256sum=_ONE_LESS) as ways:
        filled(ways, 5, 100)
        told = await copied(ways)
    assert same(ways)
    assert told["files"] == 5
    assert UNVERIFIED not in str(told)


@pytest.mark.parametrize("text", [_NEVER, _NOTHING], ids=["one", "none"])
async def test_what_could_not_be_checked_is_said(tmp_path: Path, text: str) -> None:
    """NF-15: a host that tells no checksum is copied from, and the result says so."""
    async with host(tmp_path, sha256sum=text) as ways:
        filled(ways, 5, 100)
        told = await copied(ways)
    assert same(ways)
    assert told["files"] == 5
    assert UNVERIFIED in str(told)


async def test_checksums_that_come_last(tmp_path: Path) -> None:
    """NF-15: what comes does not wait for its checksums for ever: they may wait too."""
    async with host(tmp_path, sha256sum=_LAST) as ways:
        filled(ways, 5, 100)
        told = await copied(ways)
    assert not (tmp_path / "host/stuck").exists()
    assert same(ways)
    assert told["files"] == 5
    assert UNVERIFIED not in str(told)
    times = [one.stat().st_mtime for one in (ways.destination / "t").iterdir()]
    assert min(times) > (tmp_path / "host/bin/sha256sum").stat().st_mtime


async def test_a_host_with_one_channel_at_a_time(tmp_path: Path) -> None:
    """NF-15: where stream and checksums can not share a connection, both come."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    place, ways = tmp_path / "host", Ways(None, tmp_path, "download")
    place.mkdir()
    options = {"SetEnv": f"HOME={place}", "MaxSessions": "1"}
    filled(ways, 50, 1000)
    with Sshd(place, options=options) as sshd, served(sshd, more=ROOTS) as world:
        async with tools(world, "--results", "structured") as ways.ssh:
            told = await copied(ways)
    assert same(ways)
    assert told["files"] == 50


async def test_what_was_right_does_not_come_again(tmp_path: Path) -> None:
    """NF-15: a cut among small files brought all of their stream once more."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    place, ways = tmp_path / "host", Ways(None, tmp_path, "download")
    place.mkdir()
    filled(ways, 400, 20_000)
    size = 400 * 20_000

    def come() -> int:
        found = 0
        for one in ways.destination.rglob("f*"):
            with contextlib.suppress(FileNotFoundError):
                found += one.stat().st_size
        return found

    with (
        Sshd(place, options={"SetEnv": f"HOME={place}"}) as sshd,
        Proxy(sshd.port) as proxy,
        served(
            proxy.config(sshd, tmp_path / "config"), more=ROOTS, limits=QUICK
        ) as world,
    ):
        async with tools(world, "--results", "structured") as ways.ssh:
            await ways.ssh.run("true")
            before = proxy.down
            proxy.throttle(8 * MIB)
            asking = asyncio.create_task(
                ways.ssh.call("ssh_copy", **ways.filled("t", recursive=True))
            )
            await soon(lambda: come() > 5 * MIB, "most of it is there", 30)
            proxy.rst()
            proxy.throttle(0)
            told = content(await asking)
            twice = proxy.down - before - size
    assert same(ways)
    assert told["files"] == 400
    # the heads of tar, the list, and what was on its way at the cut
    assert twice <= 2.5 * MIB


@pytest.mark.parametrize("number", [1, 2])
async def test_both_parts_of_a_large_file_are_checked(
    tmp_path: Path, number: int
) -> None:
    """NF-15: what a host adds up while the rest is sent counts as what it does last."""
    text = _ONCE.replace("NUMBER", str(number)).replace("TOLD", f"echo {'0' * 64}")
    data = os.urandom(40 * MIB)
    async with host(tmp_path, "upload", openssl=text) as ways:
        (ways.source / "big").write_bytes(data)
        told = await ways.copy("big")
    assert (ways.destination / "big").read_bytes() == data
    assert told["sha256"] == hashlib.sha256(data).hexdigest()
    sizes = sorted(one.stat().st_size for one in (tmp_path / "host").glob("[123].*"))
    # each part was added up twice: it was sent anew
    assert sizes == [10 * MIB, 10 * MIB, 30 * MIB, 30 * MIB]


async def test_a_part_that_is_not_added_up_is_said(tmp_path: Path) -> None:
    """NF-15: a checksum of the last part alone does not stand for the whole file."""
    text = _ONCE.replace("NUMBER", "1").replace("TOLD", ":")
    data = os.urandom(40 * MIB)
    async with host(tmp_path, "upload", openssl=text) as ways:
        (ways.source / "big").write_bytes(data)
        told = await ways.copy("big")
    assert (ways.destination / "big").read_bytes() == data
    assert "no program for checksums" in str(told)


async def test_both_parts_without_gnu(tmp_path: Path) -> None:
    """NF-15: parts of a file are added up by what a small host has."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    programs, place = only_busybox(tmp_path / "bin"), tmp_path / "host"
    place.mkdir()
    ways = Ways(None, tmp_path, "upload")
    data = os.urandom(36 * MIB + 12345)
    (ways.source / "big").write_bytes(data)
    options = {"SetEnv": f"HOME={place} PATH={programs}"}
    with Sshd(place, options=options) as sshd, served(sshd, more=ROOTS) as world:
        async with tools(world, "--results", "structured") as ways.ssh:
            told = await ways.copy("big")
    assert (ways.destination / "big").read_bytes() == data
    assert told["bytes_transferred"] == len(data)  # it was right at once
    assert "note" not in told
