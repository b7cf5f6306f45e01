"""Files in places with rules of their own: mounted ones, and directories of a group."""

from __future__ import annotations

import os
import stat
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.filing import HOSTS, Desk, host_of_files
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_places"),
    pytest.mark.needs_sshd,
]

# The number of a group that no system has.
TEAM = 61_998


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Sshd]:
    """Run a host where `place/hosts` is the file `source`, mounted."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    source, path = tmp_path / "source", tmp_path / "place" / "hosts"
    path.parent.mkdir()
    source.write_text("one\n")
    path.touch()
    apart = "unshare --mount --propagation private sh -c"
    mount = f"mount --bind {source} {path}"
    if subprocess.run([*apart.split(), mount], check=False).returncode:
        pytest.skip("nothing can be mounted here")
    forced = f"{apart} '{mount}; exec sh -c \"$SSH_ORIGINAL_COMMAND\"'"
    with Sshd(tmp_path, options={"ForceCommand": forced}) as one:
        yield one


async def test_a_file_that_is_mounted_is_written_in_place(
    mounted: Sshd, tmp_path: Path
) -> None:
    """FI-13: containers mount single files (/etc/hosts): "Device or resource busy"."""
    place, source = tmp_path / "place", tmp_path / "source"
    path = place / "hosts"
    with served(mounted) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            told = await desk.edit(path, ("one", "two"))
            assert "in place" in told["note"]
            assert source.read_text() == "two\n"
            source.chmod(0o644)
            told = await desk.write(
                path, "three\n", mode="overwrite", permissions="640"
            )
            assert "in place" in told["note"]
    assert source.read_text() == "three\n"
    assert stat.S_IMODE(source.stat().st_mode) == 0o640
    assert [one.name for one in place.iterdir()] == ["hosts"]


@pytest.mark.parametrize("kind", HOSTS[:2])
async def test_a_new_file_in_a_directory_of_a_group(tmp_path: Path, kind: str) -> None:
    """FI-04: what is made there is the group's, as what anybody makes there is."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory to another group")
    place = tmp_path / "place"
    place.mkdir()
    os.chown(place, -1, TEAM)
    place.chmod(0o2775)
    with host_of_files(tmp_path, kind) as sshd, served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            await desk.write(place / "new", "text")
            await desk.write(place / "log", "line\n", mode="append")
    assert {one.stat().st_gid for one in place.iterdir()} == {TEAM}


@pytest.mark.parametrize("kind", HOSTS[:2])
async def test_a_new_file_is_as_open_as_its_directory_says(
    tmp_path: Path, kind: str
) -> None:
    """FI-04: an access list gives it to a group, whatever the mask of who makes it."""
    place = tmp_path / "place"
    place.mkdir()
    none = 0xFFFFFFFF
    rows = [
        (0x01, 7, none), (0x04, 5, none), (0x08, 7, TEAM), (0x10, 7, none),
        (0x20, 5, none),
    ]  # fmt: skip
    told = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    try:
        os.setxattr(place, "system.posix_acl_default", told)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error}")
    (place / "plain").touch()
    with host_of_files(tmp_path, kind) as sshd, served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            await desk.write(place / "new", "text")
            await desk.write(place / "own", "text", permissions="600")
    wanted = stat.S_IMODE((place / "plain").stat().st_mode)
    assert stat.S_IMODE((place / "new").stat().st_mode) == wanted
    assert wanted & 0o020
    assert stat.S_IMODE((place / "own").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", HOSTS)
async def test_what_lies_below_proc_self_is_read(tmp_path: Path, kind: str) -> None:
    """FI-03: /proc/mounts and /proc/net/dev were said not to be there."""
    with host_of_files(tmp_path, kind) as sshd, served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, tmp_path)
            link = tmp_path / "link"
            link.symlink_to("/proc/self/mounts")
            for path in ("/proc/mounts", str(link)):
                told = await desk.read(path)
                assert " / " in told["content"]
            told = await desk.read("/proc/net/dev")
            assert "lo:" in told["content"]
            error = await desk.refused("ssh_file_read", path="/proc/self/environ")
            assert error["reason"] == "SENSITIVE_PATH"
            if kind != HOSTS[2]:
                found = await desk.told(
                    "ssh_search", path="/proc/net/dev", pattern="lo:"
                )
                assert found["matches"] == [{"path": "/proc/net/dev"}]
