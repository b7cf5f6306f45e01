"""Uploads to a disk that has room for bytes, and for no more names."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.copying import Ways
from fakes.filing import host_of_files
from fakes.syncing import ROOTS
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.xdist_group("copy_few_names"),
    pytest.mark.needs_sshd,
]


@contextlib.contextmanager
def mounted(place: Path, options: str) -> Generator[None]:
    """Have a small file system of its own at `place`."""
    words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
    if subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this account may not mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("what", ["links", "directories"])
@pytest.mark.parametrize("kind", ["all programs", "busybox only"])
async def test_what_can_not_be_made_is_told(
    tmp_path: Path, kind: str, what: str
) -> None:
    """FI-01, NF-15: links and empty directories were missing, and nobody said so."""
    (tmp_path / "sshd").mkdir()
    with (
        host_of_files(tmp_path / "sshd", kind) as sshd,
        served(sshd, more=ROOTS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            top = ways.source / "t"
            top.mkdir()
            (top / "file").write_text("1")
            for number in range(40):
                one = top / f"-one {number}"
                if what == "links":
                    one.symlink_to("file")
                else:
                    one.mkdir()
            with mounted(ways.destination, "size=1m,nr_inodes=20"):
                error = await ways.refused("t", recursive=True)
                assert error["reason"] == "FILE_FAILED", error
                assert "No space left" in error["message"], error
                there = {path.name for path in (ways.destination / "t").iterdir()}
                missing = {path.name for path in top.iterdir()} - there
                assert missing
                assert error["message"].startswith(f"{len(missing)} of ")
                assert (ways.destination / "t/file").read_text() == "1"
                assert ways.left() == ["t"]
