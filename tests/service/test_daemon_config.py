"""Edits of the configuration reach the running daemon, and mistakes do not."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from fakes.watch import records, until
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

FAST = "[limits]\nconfig_check_seconds = 0.1\n"
SLOW = "[limits]\nconfig_check_seconds = 3600\n"


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    one = World(short_path, ssh_config=sshd.config)
    one.configure(FAST)
    with one:
        yield one


def refusal(world: World) -> str:
    """Return why `box` is refused just now; empty: it is not."""
    done = world.cli("exec", "--json", "box", "--", "true", check=False)
    if done.returncode == 0:
        return ""
    assert b"HOST_NOT_ALLOWED" in done.stdout + done.stderr, done
    return (done.stdout + done.stderr).decode()


@pytest.mark.timed
def test_an_edit_takes_effect_within_two_seconds(world: World) -> None:
    """IN-02, SC-01: allowed_hosts without a restart; the refusal names what is."""
    pid = world.pid
    assert not refusal(world)
    world.configure(f'allowed_hosts = ["web1", "db-*"]\n{FAST}')
    edited = time.monotonic()
    refused = until(lambda: refusal(world), "the edit counts")
    assert time.monotonic() - edited < 2 + 1  # the last look itself takes a moment
    assert "web1" in refused
    assert "db-*" in refused
    world.configure(f'allowed_hosts = ["bo?"]\n{FAST}')
    until(lambda: not refusal(world), "the next edit counts")
    assert world.cli_json("status")["pid"] == pid


def test_the_log_level_follows_the_file(world: World) -> None:
    """OB-02: level by config, without a restart."""
    world.configure(f'log_level = "error"\n{FAST}')
    until(lambda: "configuration taken" in world.log.read_text(), "it was taken")
    before = world.log.read_text()
    world.configure(f'log_level = "error"\nallowed_hosts = ["box"]\n{FAST}')
    world.cli("reload")
    assert world.log.read_text() == before
    world.configure(f'log_level = "debug"\n{FAST}')
    world.cli("reload")
    world.configure(f'log_level = "debug"\nallowed_hosts = ["box"]\n{FAST}')
    world.cli("reload")
    assert world.log.read_text() != before


def test_a_bad_edit_keeps_the_last_good_one_and_the_status_says_why(
    world: World,
) -> None:
    """IN-02, PK-07: file, line, key and the nearest known key."""
    world.configure(f'allowed_hosts = ["box"]\n{FAST}')
    until(lambda: "configuration taken" in world.log.read_text(), "it was taken")
    world.configure('\nallowed_host = ["other"]\n')
    error = until(lambda: world.cli_json("status")["config_error"], "it is told")
    for word in (str(world.config), "allowed_host", "allowed_hosts", "2"):
        assert word in error
    shown = world.cli("status")
    assert b"allowed_host" in shown.stdout + shown.stderr
    assert not refusal(world)
    assert world.cli("exec", "root@127.0.0.1", "--", "true", check=False).returncode
    world.configure(FAST)
    until(lambda: not world.cli_json("status")["config_error"], "it is well again")
    assert "configuration not taken" in world.log.read_text()


def test_a_signal_and_a_verb_read_it_again(short_path: Path, sshd: Sshd) -> None:
    """IN-02: SIGHUP and `holdfast reload`; a mistake is an exit code."""
    world = World(short_path, ssh_config=sshd.config)
    world.configure(SLOW)
    with world:
        world.configure(f'allowed_hosts = ["other"]\n{SLOW}')
        os.kill(world.pid, signal.SIGHUP)
        until(lambda: "configuration taken" in world.log.read_text(), "SIGHUP")
        assert refusal(world)
        world.configure(SLOW)
        assert world.cli("reload").returncode == 0
        assert not refusal(world)
        world.configure("nonsense = 1\n")
        failed = world.cli("reload", check=False)
        assert failed.returncode == 1
        assert b"nonsense" in failed.stdout + failed.stderr
        os.kill(world.pid, signal.SIGHUP)
        assert not refusal(world)
    assert [r["event_type"] for r in records(world)].count("configuration") == 4
