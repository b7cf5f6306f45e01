"""`holdfast demo`: the promise of the first command in the README."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from fakes.watch import told_of
from fakes.world import program

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.sshd import Sshd


def demo(short_path: Path, *arguments: str, **more: str) -> tuple[int, str]:
    """Run the demo with its temporary files in `short_path`."""
    environment = {**os.environ, "TMPDIR": str(short_path), **more}
    done = subprocess.run(
        [program("holdfast"), "demo", *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        text=True,
        timeout=55,
    )
    return done.returncode, done.stdout


def test_the_demo_survives_a_killed_client_and_leaves_nothing(short_path: Path) -> None:
    """NF-01: a job of a client that was killed is read on by the next one."""
    code, text = demo(short_path, PATH=os.defpath)
    assert code == 0, text
    assert "SIGKILL" in text
    assert "step 12 of a long build" in text
    assert "Every line is there" in text
    assert "claude mcp add" in text
    assert "The daemon, the server and their files are gone" in text
    # This installation is not on PATH, so it is named by its place.
    assert f"    {program('holdfast')} mcp-config CLIENT" in text
    assert "claude-desktop" in text
    assert "Traceback" not in text
    assert "Warning" not in text
    assert list(short_path.iterdir()) == []
    assert told_of(short_path) == {}


@pytest.mark.needs_sshd
def test_the_demo_runs_on_a_host_of_ones_own(short_path: Path, sshd: Sshd) -> None:
    code, text = demo(short_path, "box", HOLDFAST_SSH_CONFIG=str(sshd.config))
    assert code == 0, text
    assert "Your own host box" in text
    assert "the server" not in text
    assert "Every line is there" in text
    assert list(short_path.iterdir()) == []


@pytest.mark.needs_sshd
def test_a_host_that_is_not_there_is_told(short_path: Path, sshd: Sshd) -> None:
    where = str(sshd.config)
    code, text = demo(
        short_path, "--json", "no-such-host.invalid", HOLDFAST_SSH_CONFIG=where
    )
    assert code == 1
    told = json.loads(text)
    assert told["ok"] is False
    assert "no-such-host.invalid" in told["error"]["message"]
    assert told["story"][0].startswith("1. Your own host")
    code, text = demo(short_path, "no-such-host.invalid", HOLDFAST_SSH_CONFIG=where)
    assert code == 1
    assert "no-such-host.invalid" in text
    assert "Traceback" not in text
    assert list(short_path.iterdir()) == []
    assert told_of(short_path) == {}
