"""Whose a file is that was changed on a host without a shell."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fakes.filing import Desk
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_owners"),
    pytest.mark.needs_sshd,
]

_SOMEBODY, _GROUP = 65534, 12345


async def test_by_sftp_a_file_stays_whose_it_was(tmp_path: Path) -> None:
    """FI-13: root changed a service's file, which the service then could not read."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    if os.geteuid():
        pytest.skip("only root gives files away")
    path = tmp_path / "place" / "service.conf"
    path.parent.mkdir()
    path.write_text("old")
    path.chmod(0o640)
    os.chown(path, _SOMEBODY, _GROUP)
    (tmp_path / "host").mkdir()
    options = {"ForceCommand": "internal-sftp", "Subsystem": "sftp internal-sftp"}
    with Sshd(tmp_path / "host", options=options) as sshd, served(sshd) as world:
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, path.parent)
            await desk.write(path, "new", mode="overwrite")
            assert owner(path) == (0o640, _SOMEBODY, _GROUP)
            edits = [{"old": "new", "new": "newer"}]
            await desk.told("ssh_file_edit", path=str(path), edits=edits)
            assert owner(path) == (0o640, _SOMEBODY, _GROUP)
    assert path.read_text() == "newer"
    assert os.listdir(path.parent) == ["service.conf"]  # noqa: PTH208


def owner(path: Path) -> tuple[int, int, int]:
    about = path.stat()
    return about.st_mode & 0o7777, about.st_uid, about.st_gid
