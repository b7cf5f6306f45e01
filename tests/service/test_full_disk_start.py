"""A daemon that is started while the disk of its state directory is full."""

from __future__ import annotations

import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.watch import until
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DISK = 2 * 1024 * 1024


@pytest.fixture
def full(short_path: Path) -> Iterator[World]:
    """Yield a user's machine whose state directory is a disk without a free byte."""
    world = World(short_path)
    world.state.mkdir(mode=0o700)
    options = f"size={DISK},mode=0700"
    words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(world.state)]
    if os.geteuid() != 0 or subprocess.run(words, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    filler = world.state / "filler"
    with contextlib.suppress(OSError), filler.open("ab", 0) as file:
        while file.write(bytes(4096)):
            continue
    try:
        yield world
    finally:
        world.close()
        subprocess.run(["umount", "-l", str(world.state)], check=True)


def test_it_starts_and_says_what_it_cannot_write(full: World) -> None:
    """OB-03: it ended at once, for want of room to write who holds its lock."""
    full.start()
    told = full.cli_json("status")
    assert "No space left" in told["audit_error"]
    (full.state / "filler").unlink()
    until(lambda: not full.cli_json("status").get("audit_error"), "it goes on")
