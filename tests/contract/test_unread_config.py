"""A file of the ssh configuration that can't be read is named where hosts are listed.

Links that lead to each other are what even root can't read.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

WHY = "can't be read: Too many levels of symbolic links"


@pytest.fixture
def closed(short_path: Path) -> Path:
    file = short_path / "closed"
    file.symlink_to(file)
    return file


def test_a_person_is_told_why_there_are_no_hosts(
    short_path: Path, closed: Path
) -> None:
    with World(short_path, ssh_config=closed) as world:
        told = world.cli("hosts", "list")
        assert told.stdout == b""
        assert told.stderr.decode().splitlines() == [
            "holdfast: no hosts",
            f"holdfast: {closed} {WHY}",
        ]


def test_what_could_be_read_is_listed_with_what_could_not(
    short_path: Path, closed: Path
) -> None:
    config = short_path / "ssh"
    config.write_text(f"Include {closed}\nHost one\n")
    with World(short_path, ssh_config=config) as world:
        found = world.cli_json("hosts", "list")
        assert [host["name"] for host in found["hosts"]] == ["one"]
        assert found["notes"] == [f"{closed} {WHY}"]
        shown = world.cli("hosts", "list").stderr.decode()
        assert shown == f"holdfast: {closed} {WHY}\n"
        closed.unlink()
        closed.write_text("Host two\n")
        found = world.cli_json("hosts", "list")
        assert [host["name"] for host in found["hosts"]] == ["one", "two"]
        assert found["notes"] == []


async def test_an_agent_is_told_too(short_path: Path, closed: Path) -> None:
    with World(short_path, ssh_config=closed) as world:
        async with tools(world) as ssh:
            told = await ssh.call("ssh_hosts")
            assert told["structuredContent"]["notes"] == [f"{closed} {WHY}"]
            assert WHY in json.dumps(told["content"])


def test_a_configuration_that_is_not_there_is_nothing_to_tell(short_path: Path) -> None:
    config = short_path / "ssh"
    config.write_text(f"Include {short_path}/none\n")
    for path in (config, short_path / "none", config / "none"):
        with World(short_path, ssh_config=path) as world:
            assert world.cli("hosts", "list").stderr == b"holdfast: no hosts\n"
