"""`holdfast reload` tells what it did: whether the file is in force, and is another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.watch import until
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# The daemon does not look by itself while this test does.
SLOW = "[limits]\nconfig_check_seconds = 60\n"


@pytest.fixture
def world(short_path: Path, tmp_path: Path) -> Iterator[World]:
    config = tmp_path / "ssh_config"
    config.touch()
    one = World(short_path, ssh_config=config)
    one.configure(SLOW)
    with one:
        yield one


def test_a_reload_says_whether_anything_changed(world: World) -> None:
    """IN-02: in JSON and in words; the same file again changes nothing."""
    same = {"reloaded": True, "error": "", "changed": False}
    assert world.cli_json("reload") == same
    assert b"was in force already" in world.cli("reload").stdout
    world.configure(f'default_host = "web"\n{SLOW}')
    assert world.cli_json("reload") == {**same, "changed": True}
    assert world.cli_json("reload") == same
    world.configure(f'default_host = "db"\n{SLOW}')
    assert world.cli("reload").stdout.endswith(b" is in force\n")


def test_a_reload_of_a_mistake_changes_nothing_and_says_why(world: World) -> None:
    """IN-02, PK-07: not in force, not changed, exit code 1."""
    world.configure("nonsense = 1\n")
    done = world.cli("reload", "--json", check=False)
    assert done.returncode == 1
    told = done.stdout.decode()
    assert '"reloaded": false' in told
    assert '"changed": false' in told
    assert "nonsense" in told
    until(lambda: world.cli_json("status")["config_error"], "it is told")
