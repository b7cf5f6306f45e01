"""Files written in a directory whose access list is handed down to all made there."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from fakes.filing import Desk
from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_acl"),
    pytest.mark.needs_sshd,
]

# Notes who may enter the directory that the new text is written in.
_MV = """#!/bin/sh
ls -ldn {place}/.holdfast.* >>{log}
exec /bin/mv "$@"
"""


def for_everybody(folder: Path) -> None:
    """Let all that is made there be everybody's, whatever the mask says."""
    none = 0xFFFFFFFF
    rows = [(0x01, 7, none), (0x04, 7, none), (0x10, 7, none), (0x20, 7, none)]
    told = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *row) for row in rows)
    try:
        os.setxattr(folder, "system.posix_acl_default", told)
    except OSError as error:
        pytest.skip(f"no access lists on this file system: {error}")


async def test_nobody_else_enters_where_a_text_is_written(tmp_path: Path) -> None:
    """FI-13: all could read it, and put another one in its place before it was put."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    place, programs, log = tmp_path / "place", tmp_path / "bin", tmp_path / "seen"
    for one in (place, programs, tmp_path / "host"):
        one.mkdir()
    (programs / "mv").write_text(_MV.format(place=place, log=log))
    (programs / "mv").chmod(0o755)
    path = place / "own"
    path.write_text("old")
    path.chmod(0o600)
    for_everybody(place)
    variables = f"HOME={tmp_path / 'host'} PATH={programs}:{os.environ['PATH']}"
    with (
        Sshd(tmp_path / "host", options={"SetEnv": variables}) as sshd,
        served(sshd) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            desk = Desk(ssh, place)
            await desk.write(path, "new", mode="overwrite")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    (row,) = log.read_text().splitlines()
    assert row.startswith("drwx------")
