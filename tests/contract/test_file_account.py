"""Files of an ordinary account, and of root by sudo, against a real sshd."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.account import Account, host_of_accounts
from fakes.filing import Desk
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_account"),
    pytest.mark.needs_sshd,
]

PASSWORD = "canary-Fil3 'pass"
# The number of a group that no system has.
COMPANY = 61_999


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with host_of_accounts(tmp_path_factory.mktemp("sshd")) as one:
        yield one


@pytest.fixture(scope="module")
def who(sshd: Sshd) -> Iterator[Account]:
    with Account(sshd.key, password=PASSWORD) as one:
        sshd.config.write_text(
            sshd.client_config().replace(f"User {sshd.user}", f"User {one.name}")
        )
        one.sudoers("USER ALL=(ALL) ALL")
        yield one


@pytest.fixture(scope="module")
def world(
    sshd: Sshd, who: Account, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    secret = tmp_path_factory.mktemp("secret") / "password"
    secret.write_text(f"{PASSWORD}\n")
    secret.chmod(0o600)
    entry = f'[hosts.rooted]\nhost = "box"\nsudo_password_from = "file:{secret}"\n'
    with served(sshd, more=entry) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def desk(world: World, who: Account) -> AsyncIterator[Desk]:
    async with tools(world, "--results", "structured") as ssh:
        yield Desk(ssh, who.home)


@pytest.fixture
def place(who: Account, request: pytest.FixtureRequest) -> Path:
    directory: Path = who.home / str(request.node.name)
    directory.mkdir()
    os.chown(directory, *ids(who))
    return directory


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


def ids(who: Account) -> tuple[int, int]:
    user = pwd.getpwnam(who.name)
    return user.pw_uid, user.pw_gid


async def test_a_directory_that_may_not_be_written(
    desk: Desk, who: Account, place: Path
) -> None:
    """FI-13: refused in words; a file there that may be written is, in place."""
    path = place / "mine"
    path.write_text("one\n")
    os.chown(path, *ids(who))
    path.chmod(0o600)
    os.chown(place, 0, 0)
    error = await desk.refused("ssh_file_write", path=str(place / "new"), content="x")
    assert (error["reason"], error["cause"]) == ("FILE_FAILED", "permission")
    assert (error["ran"], "sudo" in error["hint"]) == ("no", True)
    before = path.stat()
    told = await desk.write(path, "two\n", mode="overwrite")
    assert "in place" in told["note"]
    await desk.edit(path, ("two", "three"))
    await desk.write(path, "four\n", mode="append")
    now = path.stat()
    assert path.read_text() == "three\nfour\n"
    assert (now.st_ino, now.st_mode, now.st_uid) == (
        before.st_ino,
        before.st_mode,
        before.st_uid,
    )
    assert names(place) == ["mine"]


async def test_a_file_of_another_stays_his(
    desk: Desk, who: Account, place: Path
) -> None:
    """FI-13: a file that may be written by its group keeps its owner."""
    path = place / "shared"
    path.write_text("one\n")
    os.chown(path, 0, ids(who)[1])
    path.chmod(0o664)
    told = await desk.write(path, "two\n", mode="overwrite")
    assert "in place" in told["note"]
    assert (path.read_text(), path.stat().st_uid) == ("two\n", 0)


@pytest.fixture
def company(tmp_path: Path) -> Iterator[Sshd]:
    """Run a host that knows a group with a blank in its name."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    settings = tmp_path / "etc"
    settings.mkdir()
    for name in ("passwd", "nsswitch.conf", "ld.so.cache"):
        shutil.copy(f"/etc/{name}", settings)
    groups = f"{Path('/etc/group').read_text()}domain users:x:{COMPANY}:\n"
    (settings / "group").write_text(groups)
    apart = "unshare --mount --propagation private sh -c"
    # All of it: a mount on the file is gone once another test adds an account.
    mount = f"mount --bind {settings} /etc"
    if subprocess.run([*apart.split(), mount], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    forced = f"{apart} '{mount}; exec sh -c \"$SSH_ORIGINAL_COMMAND\"'"
    with Sshd(tmp_path, options={"ForceCommand": forced}) as one:
        yield one


async def test_a_group_with_a_blank_in_its_name(company: Sshd, tmp_path: Path) -> None:
    """FI-07: a company's directory has "domain users": its files are listed too."""
    place = tmp_path / "place"
    place.mkdir()
    (place / "a: b").write_text("12")
    os.chown(place / "a: b", 0, COMPANY)
    with served(company) as world:
        async with tools(world, "--results", "structured") as ssh:
            told = await ssh.told(
                "ssh_dir_list", target="box", path=str(place), detailed=True
            )
    (row,) = told["entries"]
    assert (row["path"], row["owner"]) == ("a: b", "root:domain users")
    assert row["size_bytes"] == 2


async def test_what_may_not_be_read_or_written_is_told(desk: Desk, place: Path) -> None:
    """FI-03, FI-04: the system's own words, the path and the next step."""
    path, closed = place / "roots", place / "closed"
    path.write_text("x\n")
    path.chmod(0o600)
    closed.mkdir(mode=0o700)
    for tool, arguments in (
        ("ssh_file_read", {"path": str(path)}),
        ("ssh_file_write", {"path": str(path), "content": "", "mode": "overwrite"}),
        ("ssh_file_edit", {"path": str(path), "edits": [{"old": "x", "new": "y"}]}),
        ("ssh_dir_list", {"path": str(closed)}),
        ("ssh_find", {"path": str(closed), "glob": "*"}),
        ("ssh_search", {"path": str(closed), "pattern": "x"}),
        ("ssh_file_read", {"path": str(closed / "deep")}),
    ):
        error = await desk.refused(tool, **arguments)
        assert (error["reason"], error["ran"]) == ("FILE_FAILED", "no"), tool
        assert error["cause"] == "permission"
        assert "Permission denied" in error["message"]
    told = await desk.told("ssh_dir_list", path=str(place), depth=2)
    assert "1 directories could not be read" in told["note"]
    assert path.read_text() == "x\n"


@pytest_asyncio.fixture(loop_scope="module")
async def with_grep(desk: Desk, who: Account, place: Path) -> AsyncIterator[None]:
    """Let the host have grep and no rg, to a connection of its own."""
    programs, start = place / "bin", who.home / ".bashrc"
    programs.mkdir()
    for name in ("sh", "ls", "find", "grep", "head", "readlink", "wc", "cat"):
        (programs / name).symlink_to(shutil.which(name) or name)
    before = start.read_text() if start.exists() else ""
    # bash reads it at the start of a command by ssh
    start.write_text(f"PATH={programs}\n")
    await desk.told("ssh_disconnect", force=True)
    yield
    start.write_text(before)
    await desk.told("ssh_disconnect", force=True)


async def search_what_is_closed(desk: Desk, place: Path) -> None:
    looked = place / "looked"
    (looked / "closed").mkdir(parents=True)
    (looked / "closed").chmod(0o700)
    for name in ("roots", "open"):
        (looked / name).write_text("needle\n")
    (looked / "roots").chmod(0o600)
    told = await desk.told("ssh_search", pattern="needle", path=str(looked))
    assert told["matches"] == [{"path": f"{looked}/open"}]
    assert told["note"] == "2 files or directories could not be searched"
    told = await desk.told("ssh_search", pattern="needle", path=f"{looked}/open")
    assert "note" not in told


async def test_what_rg_could_not_search_is_told(desk: Desk, place: Path) -> None:
    """FI-08: "no match" was all that was told of files that could not be read."""
    if shutil.which("rg") is None:
        pytest.skip("no rg here: run packaging/test-packages.sh")
    await search_what_is_closed(desk, place)


@pytest.mark.usefixtures("with_grep")
async def test_what_grep_could_not_search_is_told(desk: Desk, place: Path) -> None:
    """FI-08: the same where the host has no rg."""
    await search_what_is_closed(desk, place)


async def test_files_of_root_by_sudo(desk: Desk, place: Path) -> None:
    """FI-14: with the password that the configuration names; owner and mode kept."""
    path = place / "etc" / "roots"
    path.parent.mkdir(mode=0o700)
    path.write_text("one\n")
    path.chmod(0o640)
    rooted = Desk(desk.ssh, place, "rooted")
    told = await rooted.read(path, sudo=True)
    assert told["content"] == "one\n"
    await rooted.write(path, "two\n", mode="overwrite", sudo=True)
    await rooted.told(
        "ssh_file_edit",
        path=str(path),
        edits=[{"old": "two", "new": "three"}],
        sudo=True,
    )
    big = "x" * 100_000
    await rooted.write(path, big, mode="append", sudo=True)
    assert path.read_text() == f"three\n{big}"
    now = path.stat()
    assert (now.st_uid, stat.S_IMODE(now.st_mode)) == (0, 0o640)
    listed = await rooted.told("ssh_dir_list", path=str(path.parent), sudo=True)
    assert [row["path"] for row in listed["entries"]] == ["roots"]
    found = await rooted.told("ssh_find", path=str(path.parent), glob="*", sudo=True)
    assert found["matches"] == [str(path)]
    searched = await rooted.told(
        "ssh_search", path=str(path.parent), pattern="three", sudo=True
    )
    assert searched["matches"] == [{"path": str(path)}]
    error = await rooted.refused("ssh_file_read", path="/etc/shadow", sudo=True)
    assert error["reason"] == "SENSITIVE_PATH"


async def test_sudo_that_is_not_to_be_had(desk: Desk, place: Path) -> None:
    """FI-14: no password is named for this host: nothing ran."""
    path = place / "a"
    error = await desk.refused("ssh_file_write", path=str(path), content="x", sudo=True)
    assert (error["reason"], error["ran"]) == ("SUDO_REFUSED", "no")
    assert not path.exists()


# What the owner of a directory may do while root makes a file in it.
_SWAP = """#!/bin/sh
for draft in "{place}"/.holdfast.*;do
mv "$draft" "{place}/moved"&&ln -s "{victim}" "$draft";done
exec /bin/cp "$@"
"""


async def test_root_follows_no_link_put_in_its_way(
    desk: Desk, who: Account, place: Path, tmp_path: Path
) -> None:
    """FI-14: who owns a directory can't turn root's writing in it to another file.

    What was written, and its owner, went to the file that a link led to.
    """
    victim = tmp_path / "victim"
    victim.write_text("root's")
    victim.chmod(0o600)
    programs = tmp_path / "bin"
    programs.mkdir()
    program = programs / "cp"
    program.write_text(_SWAP.format(place=place, victim=victim))
    program.chmod(0o755)
    path = place / "settings"
    path.write_text("old")
    os.chown(path, *ids(who))
    who.sudoers(
        "USER ALL=(ALL) ALL",
        f'Defaults:USER secure_path="{programs}:/usr/bin:/bin"',
    )
    try:
        rooted = Desk(desk.ssh, place, "rooted")
        await rooted.write(path, "new", mode="overwrite", sudo=True)
    finally:
        who.sudoers("USER ALL=(ALL) ALL")
    about = victim.stat()
    assert (about.st_uid, stat.S_IMODE(about.st_mode)) == (0, 0o600)
    assert victim.read_text() == "root's"
    assert not path.is_symlink()
    assert path.read_text() == "new"
    assert (path.stat().st_uid, path.stat().st_gid) == ids(who)
