"""Ending a daemon whose end nobody takes note of, and what journalctl's end is told as.

An editor's shim that started it may not look, nor does the init of most containers.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.world import PATIENCE, World, program
from holdfast_shim.service import standing

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("by", ["proc", "ps"])
def test_a_daemon_that_has_ended_is_not_waited_for(
    short_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """PK-04: a restart waited 30 s for a process that was gone, and gave up."""
    if by == "ps":  # as on macOS
        monkeypatch.setattr(standing, "_PROC", short_path / "no-proc")
    monkeypatch.setattr(standing, "END_SECONDS", PATIENCE / 2)
    with World(short_path) as world:
        assert not standing.free(world.socket)
        standing.end(world.pid, world.socket)
        # Nobody has looked: it is a process still, as far as the kernel is asked.
        os.kill(world.pid, 0)
        assert standing.free(world.socket)
        assert world.stop() == 0


@pytest.mark.parametrize(("ends", "code"), [("kill -PIPE $$", 141), ("exit 3", 3)])
def test_how_journalctl_ended_is_told_as_a_shell_tells_it(
    short_path: Path, ends: str, code: int
) -> None:
    """IN-08: `holdfast service logs | head` ended with 243, which is nothing."""
    journalctl = short_path / "bin" / "journalctl"
    journalctl.parent.mkdir()
    journalctl.write_text(f"#!/bin/sh\necho one record\n{ends}\n")
    journalctl.chmod(0o755)
    environment = World(short_path).environment
    environment["PATH"] = f"{journalctl.parent}:{environment['PATH']}"
    told = subprocess.run(
        [program("holdfast"), "service", "logs"],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (told.returncode, told.stdout) == (code, b"one record\n")
