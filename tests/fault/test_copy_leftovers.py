"""What an earlier copy left beside the destination, and what lies under its names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.copying import WAYS, Ways
from fakes.filing import host_of_files, only_busybox
from fakes.proxy import Proxy
from fakes.sshd import Sshd, sshd_binary
from fakes.syncing import ROOTS
from fakes.tools import QUICK, content, failure, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from fakes.world import World

MIB = 1024 * 1024

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("copy_leftovers"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module", params=["shell", "SFTP only"])
def sshd(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sshd]:
    with host_of_files(tmp_path_factory.mktemp("sshd"), request.param) as one:
        yield one


@pytest.fixture(scope="module")
def proxy(sshd: Sshd) -> Iterator[Proxy]:
    with Proxy(sshd.port) as one:
        yield one


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    config = proxy.config(sshd, tmp_path_factory.mktemp("through") / "config")
    limits = f"{QUICK}copy_patience_seconds = 0\n"
    with served(config, more=ROOTS, limits=limits) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--results", "structured") as one:
        yield one


@pytest.fixture(params=WAYS)
def ways(
    request: pytest.FixtureRequest, ssh: Tools, proxy: Proxy, tmp_path: Path
) -> Iterator[Ways]:
    yield Ways(ssh, tmp_path, request.param)
    proxy.heal()
    proxy.throttle(0)


def _came(ways: Ways, name: str, size: int) -> bool:
    return any(path.stat().st_size == size for path in ways.destination.rglob(name))


async def test_what_was_deleted_meanwhile_is_not_put(ways: Ways, proxy: Proxy) -> None:
    """NF-15: what an earlier attempt brought goes nowhere once the source has it not.

    It was put in its place with the directory that held it.
    """
    top = ways.source / "t"
    (top / "d").mkdir(parents=True)
    (top / "d/gone").write_bytes(os.urandom(300_000))
    (top / "d/other").mkdir()
    (top / "d/other/gone too").write_bytes(os.urandom(300_000))
    (top / "d/swapped").write_bytes(os.urandom(300_000))
    (top / "z").write_bytes(os.urandom(12 * MIB))
    proxy.throttle(3 * MIB)
    asked = ways.filled("t", recursive=True)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **asked))

    def came() -> bool:
        names = ("gone", "gone too", "swapped")
        return all(_came(ways, name, 300_000) for name in names)

    await soon(came, "some files have come", 30)
    proxy.refuse()
    proxy.rst()
    error = failure(await asking)
    assert error["reason"] == "CONNECTION_LOST"
    (top / "d/gone").unlink()
    (top / "d/other/gone too").unlink()
    (top / "d/other").rmdir()
    (top / "d/swapped").unlink()
    (top / "d/swapped").mkdir()
    (top / "d/swapped/in").write_text("new")
    proxy.heal()
    proxy.throttle(0)
    await ways.copy("t", recursive=True)
    found = {
        str(path.relative_to(ways.destination))
        for path in ways.destination.rglob("*")
        if path.is_file()
    }
    assert found == {"t/z", "t/d/swapped/in"}
    assert not (ways.destination / "t/d/other").exists()
    assert ways.left() == ["t"]


async def test_a_link_to_a_directory_is_replaced(ways: Ways, tmp_path: Path) -> None:
    """NF-15: a file takes the place of a link; it does not go where that leads."""
    out = tmp_path / "out"
    out.mkdir()
    (ways.source / "current").write_text("new")
    (ways.destination / "current").symlink_to(out)
    (ways.source / "t").mkdir()
    (ways.source / "t/current").write_text("new")
    (ways.destination / "t").mkdir()
    (ways.destination / "t/current").symlink_to(out)
    await ways.copy("current", overwrite=True)
    await ways.copy("t", recursive=True, overwrite=True)
    assert list(out.iterdir()) == []
    for name in ("current", "t/current"):
        path = ways.destination / name
        assert not path.is_symlink()
        assert path.read_text() == "new"


async def test_two_daemons_to_one_place(sshd: Sshd, tmp_path: Path) -> None:
    """NF-15: two people's daemons that copy the same at once don't share its parts.

    One put what the other was just writing in its place, and told that it was whole.
    """
    ways = Ways(None, tmp_path, "upload")
    (ways.source / "t").mkdir()
    old, new = os.urandom(MIB), os.urandom(MIB)
    (ways.source / "t/a").write_bytes(old)
    (ways.source / "t/b").write_bytes(os.urandom(8 * MIB))
    asked = ways.filled("t", recursive=True, overwrite=True)
    limits = f"{QUICK}copy_parallel = 1\n"
    with Proxy(sshd.port) as near, Proxy(sshd.port) as far:
        configs = [
            proxy.config(sshd, tmp_path / f"config-{number}")
            for number, proxy in enumerate((near, far))
        ]
        with (
            served(configs[0], more=ROOTS, limits=limits) as one,
            served(configs[1], more=ROOTS, limits=limits) as two,
        ):
            async with tools(one) as first, tools(two) as second:
                near.throttle(2 * MIB)
                copying = asyncio.create_task(first.call("ssh_copy", **asked))
                await soon(lambda: _largest(ways) > 2 * MIB, "the second comes", 30)
                (tmp_path / "new").write_bytes(new)
                (tmp_path / "new").replace(ways.source / "t/a")
                far.throttle(MIB / 8)
                before = _parts(ways, "a")
                other = asyncio.create_task(second.call("ssh_copy", **asked))
                await soon(lambda: _parts(ways, "a") != before, "it begins", 30)
                near.throttle(0)
                content(await copying)
                assert (ways.destination / "t/a").read_bytes() == old
                far.throttle(0)
                content(await other)
                assert (ways.destination / "t/a").read_bytes() == new
    assert ways.left() == ["t"]


def _largest(ways: Ways) -> int:
    return max((size for _, size in _parts(ways, "*")), default=0)


def _parts(ways: Ways, name: str) -> set[tuple[int, int]]:
    """Return which files of that name have come, and how much of each."""
    found: set[tuple[int, int]] = set()
    for path in ways.destination.rglob(name):
        with contextlib.suppress(FileNotFoundError):
            about = path.stat()
            if path.is_file():
                found.add((about.st_ino, about.st_size))
    return found


@pytest.mark.parametrize("many", [False, True], ids=["file", "tree"])
async def test_a_source_that_shrinks(ways: Ways, proxy: Proxy, *, many: bool) -> None:
    """NF-15: what could not be read to its end is told, and nothing of it is put.

    What had come stood under the final name, or the link was said to be cut. What
    comes from a host is drawn again, as short as it is: it was said to have changed
    each time.
    """
    top = ways.source / "t"
    top.mkdir()
    (top / "other").write_bytes(os.urandom(300_000))
    big = ways.source / "big" if not many else top / "big"
    big.write_bytes(os.urandom(12 * MIB))
    proxy.throttle(4 * MIB)
    name = "t" if many else "big"
    asked = ways.filled(name, recursive=many)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **asked))
    await soon(lambda: _largest(ways) > 2 * MIB, "it comes", 30)
    os.truncate(big, MIB)
    proxy.throttle(0)
    told = await asking
    if ways.way == "download" or "isError" not in told:  # fetched anew, as it is now
        content(told)
        path = ways.destination / name / ("big" if many else "")
        assert path.read_bytes() == big.read_bytes()
        return
    error = failure(told)
    assert error["reason"] in {"FILE_CHANGED", "FILE_FAILED"}, error
    assert not (ways.destination / "big").exists()
    assert not (ways.destination / "t/big").exists()
    assert ways.left() in ([], ["t"])


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_how_many_could_not_be_copied(
    ways: Ways, proxy: Proxy, when: str
) -> None:
    """FI-01: of ten files one that can't be put is one of ten.

    Such as failed on their way were counted twice: it was one of eleven.
    """
    top, there = ways.source / "t", ways.destination / "t"
    top.mkdir()
    (top / "big").write_bytes(os.urandom(12 * MIB))
    for number in range(9):
        (top / f"s{number}").write_bytes(os.urandom(1000))
    if when == "before":
        (there / "s3/in").mkdir(parents=True)
    proxy.throttle(MIB)
    asked = ways.filled("t", recursive=True, overwrite=True)
    asking = asyncio.create_task(ways.ssh.call("ssh_copy", **asked))
    await soon(lambda: _largest(ways) > MIB, "it comes", 30)
    if when == "meanwhile":
        (there / "s3/in").mkdir(parents=True)
    proxy.throttle(0)
    error = failure(await asking)
    assert error["reason"] == "FILE_FAILED"
    assert "1 of 10 files" in error["message"]
    assert "t/s3" in error["message"]
    assert len([path for path in there.iterdir() if path.is_file()]) == 9


@pytest.mark.parametrize("how", ["in place", "replaced"])
async def test_a_source_that_changes(
    ssh: Tools, proxy: Proxy, tmp_path: Path, how: str
) -> None:
    """NF-15: what is written to while it is sent arrives as it is then, or is told.

    A mixture arrived, or as much of the new as the old had, and was called right.
    """
    ways = Ways(ssh, tmp_path, "upload")
    top = ways.source / "t"
    top.mkdir()
    for name in ("a", "b", "c"):
        (top / name).write_bytes(os.urandom(6 * MIB))
    # three go at once, and the small ones last
    later = {f"x{number}": 300_000 for number in range(4)} | {"small": 10}
    for name, size in later.items():
        (top / name).write_bytes(os.urandom(size))
    proxy.throttle(4 * MIB)
    asked = ways.filled("t", recursive=True)
    asking = asyncio.create_task(ssh.call("ssh_copy", **asked))
    await soon(lambda: _largest(ways) > 2 * MIB, "it comes", 30)
    for path in (top / "a", *(top / name for name in later)):
        if how == "replaced":
            fresh = tmp_path / "fresh"
            fresh.write_bytes(os.urandom(2 * MIB))
            fresh.replace(path)
        else:
            with path.open("r+b") as file:
                file.write(os.urandom(1000))
                file.seek(0, os.SEEK_END)
                file.write(os.urandom(2 * MIB))
    proxy.throttle(0)
    content(await asking)
    sizes = {"a": 6 * MIB, "b": 6 * MIB, "c": 6 * MIB} | later
    for name, size in sizes.items():
        there = (ways.destination / "t" / name).read_bytes()
        mine = (top / name).read_bytes()
        if how == "in place":
            # one whose copy was begun between both writes was only added to since then
            assert len(there) >= size, name
            assert mine.startswith(there), name
        elif name != "a":
            assert there == mine, name


async def test_small_files_that_go_away(
    ssh: Tools, proxy: Proxy, tmp_path: Path
) -> None:
    """NF-15: what can't be read by then is named; the others arrive.

    The daemon called it a fault of its own.
    """
    ways = Ways(ssh, tmp_path, "upload")
    top = ways.source / "t"
    top.mkdir()
    (top / "a").write_bytes(os.urandom(6 * MIB))
    for number in range(20):
        (top / f"s{number}").write_text("small")
    proxy.throttle(4 * MIB)
    asked = ways.filled("t", recursive=True)
    asking = asyncio.create_task(ssh.call("ssh_copy", **asked))
    await soon(lambda: _largest(ways) > 0, "it comes", 30)
    (top / "s7").unlink()
    proxy.throttle(0)
    told = await asking
    if "isError" in told:  # the small ones may have gone before
        error = failure(told)
        assert error["reason"] == "FILE_FAILED"
        assert "t/s7" in error["message"]
    assert len(list((ways.destination / "t").iterdir())) >= 20


async def test_a_log_that_grows_is_sent(
    ssh: Tools, proxy: Proxy, tmp_path: Path
) -> None:
    """NF-15: what is only added to arrives up to where it was."""
    ways = Ways(ssh, tmp_path, "upload")
    log = ways.source / "log"
    log.write_bytes(os.urandom(6 * MIB))
    proxy.throttle(3 * MIB)
    asking = asyncio.create_task(ssh.call("ssh_copy", **ways.filled("log")))
    await soon(lambda: _largest(ways) > 2 * MIB, "it comes", 30)
    with log.open("ab") as file:
        file.write(os.urandom(1000))
    proxy.throttle(0)
    content(await asking)
    arrived = (ways.destination / "log").read_bytes()
    assert len(arrived) >= 6 * MIB
    assert log.read_bytes().startswith(arrived)


async def test_what_is_replaced_keeps_its_mode_and_owner(
    ways: Ways, request: pytest.FixtureRequest
) -> None:
    """FI-01, FI-13: a file that only its owner may read stays so when it is replaced.

    It got the mode of what was copied over it, and was open to everybody.
    """
    owners = {"one": (1, 2), "t/small": (1, 2), "t/large": (3, 4)}
    owners |= {f"t/d/{number}": (1, 2) for number in range(3)}
    for name, owner in owners.items():
        new, old = ways.source / name, ways.destination / name
        new.parent.mkdir(parents=True, exist_ok=True)
        old.parent.mkdir(parents=True, exist_ok=True)
        new.write_bytes(b"n" * (300_000 if "large" in name else 10))
        new.chmod(0o644)
        old.write_text("old")
        old.chmod(0o600)
        if os.geteuid() == 0:
            os.chown(old, *owner)
    await ways.copy("one", overwrite=True)
    await ways.copy("t", recursive=True, overwrite=True)
    plain = "SFTP only" in request.node.name
    for name, owner in owners.items():
        about = (ways.destination / name).stat()
        assert about.st_size >= 10
        assert stat.S_IMODE(about.st_mode) == 0o600, name
        if os.geteuid() == 0 and not (plain and ways.way == "upload"):
            assert (about.st_uid, about.st_gid) == owner, name


_LATE_TAR = """#!/bin/sh
case " $* " in *" -xpof "*);;*) exec /usr/bin/tar "$@";;esac
mkdir "{place}/first" 2>/dev/null||exec /usr/bin/tar "$@"
cat >"{place}/late"
until [ -e "{place}/checked" ];do sleep 0.02;done
/usr/bin/tar "$@" <"{place}/late"
e=$?;: >"{place}/over"
exit $e
"""
_SUMS = """#!/bin/sh
/usr/bin/sha256sum "$@"
e=$?;: >"{place}/checked";n=0
until [ -e "{place}/over" ]||[ $n = 500 ];do sleep 0.02;n=$((n+1));done
exit $e
"""


async def test_what_a_cut_reader_still_writes(tmp_path: Path) -> None:
    """NF-15: a tar that lives on after its link touches nothing that was checked since.

    It made the last file of what it had anew, as far as it had it; that was put.
    """
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    if not all(os.access(f"/usr/bin/{name}", os.X_OK) for name in ("tar", "sha256sum")):
        pytest.skip("tar and sha256sum are elsewhere here")
    place = tmp_path / "host"
    (place / "bin").mkdir(parents=True)
    for name, text in (("tar", _LATE_TAR), ("sha256sum", _SUMS)):
        program = place / "bin" / name
        program.write_text(text.format(place=place))
        program.chmod(0o755)
    ways = Ways(None, tmp_path, "upload")
    (ways.source / "t").mkdir()
    wanted = {f"f{number:02}": os.urandom(200_000) for number in range(20)}
    for name, data in wanted.items():
        (ways.source / "t" / name).write_bytes(data)
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    options = {"SetEnv": f"HOME={place} PATH={path}"}
    with (
        Sshd(place, options=options) as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "config"), more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways.ssh = ssh
            proxy.throttle(2 * MIB)
            asked = ways.filled("t", recursive=True)
            asking = asyncio.create_task(ssh.call("ssh_copy", **asked))
            late = place / "late"
            await soon(lambda: late.exists() and late.stat().st_size > MIB, "it", 30)
            proxy.rst()
            proxy.throttle(0)
            told = content(await asking)
    assert told["files"] == len(wanted)
    assert (place / "over").exists()
    for name, data in wanted.items():
        assert (ways.destination / "t" / name).read_bytes() == data, name
    assert ways.left() == ["t"]


async def test_a_host_that_adds_up_nothing(tmp_path: Path) -> None:
    """NF-15: what can't be compared with the source is not gone on with.

    The beginning of one file and the end of another came, and were called right.
    """
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    programs = only_busybox(tmp_path / "bin")
    for name in ("sha256sum", "shasum", "sha256", "openssl"):
        (programs / name).unlink(missing_ok=True)
    ways = Ways(None, tmp_path, "download")
    source = ways.source / "big"
    source.write_bytes(os.urandom(6 * MIB))
    (tmp_path / "host").mkdir()
    options = {"SetEnv": f"HOME={tmp_path / 'host'} PATH={programs}"}
    limits = f"{QUICK}copy_patience_seconds = 0\n"
    with (
        Sshd(tmp_path / "host", options=options) as sshd,
        Proxy(sshd.port) as proxy,
        served(
            proxy.config(sshd, tmp_path / "config"), more=ROOTS, limits=limits
        ) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways.ssh = ssh
            proxy.throttle(3 * MIB)
            asking = asyncio.create_task(ssh.call("ssh_copy", **ways.filled("big")))
            await soon(lambda: _largest(ways) > MIB, "it comes", 30)
            proxy.refuse()
            proxy.rst()
            assert failure(await asking)["reason"] == "CONNECTION_LOST"
            source.write_bytes(os.urandom(6 * MIB))
            proxy.heal()
            proxy.throttle(0)
            told = await ways.copy("big")
    assert (ways.destination / "big").read_bytes() == source.read_bytes()
    assert "sizes were compared" in told["note"]


async def test_a_host_whose_names_have_no_end(tmp_path: Path) -> None:
    """NF-15: a listing without an end is given up, and not kept in memory.

    The daemon took all of it, as long as it came.
    """
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    ways = Ways(None, tmp_path, "download")
    (ways.source / "t").mkdir()
    host = tmp_path / "host"
    (host / "bin").mkdir(parents=True)
    find = host / "bin/find"
    find.write_text(f"#!/bin/sh\nexec yes {'x' * 4000}\n")
    find.chmod(0o755)
    path = f"{host / 'bin'}:{os.environ['PATH']}"
    limits = f"{QUICK}copy_names = 100\ncommand_timeout_seconds = 30\n"
    with (
        Sshd(host, options={"SetEnv": f"HOME={host} PATH={path}"}) as sshd,
        served(sshd, more=ROOTS, limits=limits) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways.ssh = ssh
            async with asyncio.timeout(40):
                error = await ways.refused("t", recursive=True)
    assert error["reason"] == "FILE_FAILED"
    assert error["ran"] == "no"
    assert "16 MiB" in error["message"]
