"""Two agents who change one file, and call it by different names."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd, sshd_binary
from fakes.tools import served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("file_spellings"),
    pytest.mark.needs_sshd,
]

# The first who is about to put a file stands still until the gate is open.
_MV = """#!/bin/sh
if mkdir {place}/first 2>/dev/null;then
n=0;while [ ! -e {place}/gate ]&&[ $n -lt 300 ];do sleep 0.1;n=$((n+1));done;fi
exec /bin/mv "$@"
"""
# So long the second gets to overtake it, if it can.
_OVERTAKING_SECONDS = 2.0


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "mv").write_text(_MV.format(place=tmp_path))
    (programs / "mv").chmod(0o755)
    (tmp_path / "sshd").mkdir()
    path = f"{programs}:{os.environ['PATH']}"
    options = {"SetEnv": f"HOME={tmp_path / 'sshd'} PATH={path}"}
    with Sshd(tmp_path / "sshd", options=options) as one:
        yield one


@pytest.mark.parametrize("spelling", ["dots", "link", "host"])
async def test_no_change_of_another_agent_is_lost(
    sshd: Sshd, tmp_path: Path, spelling: str
) -> None:
    """FI-06: both looked, then both put the file: the first one's words were lost."""
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    path = place / "f"
    path.write_text("one two\n")
    sshd.config.write_text(sshd.client_config() + sshd.client_config("alias"))
    other = {"dots": place / ".." / "place" / "f", "link": tmp_path / "link" / "f"}
    called = {"path": str(other.get(spelling, path))}
    called["target"] = "alias" if spelling == "host" else "box"
    with served(sshd) as world:
        async with tools(world) as here, tools(world, client="other") as there:
            first = asyncio.create_task(
                here.told(
                    "ssh_file_edit",
                    target="box",
                    path=str(path),
                    edits=[{"old": "one", "new": "1"}],
                )
            )
            await soon((tmp_path / "first").exists, "the first is about to put it")
            second = asyncio.create_task(
                there.told(
                    "ssh_file_edit", **called, edits=[{"old": "two", "new": "2"}]
                )
            )
            await asyncio.wait({second}, timeout=_OVERTAKING_SECONDS)
            (tmp_path / "gate").touch()
            await asyncio.gather(first, second)
    assert path.read_text() == "1 2\n"
