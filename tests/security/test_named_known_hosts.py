"""A call may name a known_hosts file: that is read as one, and never written."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("named_known_hosts"),
    pytest.mark.needs_sshd,
]

HUGE = 2 << 30
MOST_GROWTH_KIB = 200 * 1024


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("named")
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as server:
        yield server


@pytest.fixture(scope="module")
def world(host: Sshd) -> Iterator[World]:
    with served(host) as one:
        yield one
        # No thread is left that reads for ever.
        assert one.stop() == 0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


def peak(world: World) -> int:
    """Return the most memory the daemon ever used, in KiB."""
    status = Path(f"/proc/{world.pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("kind", ["missing", "authorized_keys", "text"])
async def test_a_new_key_goes_to_the_person_s_own_file(
    ssh: Tools, host: Sshd, tmp_path: Path, kind: str
) -> None:
    """AU-09, SC-10: accept-new writes no line into a file of one's choice."""
    host.known_hosts.write_text("")
    file = tmp_path / kind
    before = {"missing": None, "authorized_keys": "# mine\n", "text": "set -e\n"}[kind]
    if before is not None:
        file.write_text(before)
    connect = {"host_key_checking": "accept-new", "known_hosts_file": str(file)}
    told = await ssh.told("ssh_exec", command="echo in", connect=connect)
    assert told["stdout"] == "in\n"
    assert file.exists() is (before is not None)
    if before is not None:
        assert file.read_text() == before
    assert host.known_hosts.read_text() == host.known_hosts_lines()
    # Known from now on, to the same call and to all others.
    strict = {**connect, "host_key_checking": "yes"}
    assert (await ssh.told("ssh_connect", connect=strict))["connected"] is True
    assert (await ssh.told("ssh_connect"))["connected"] is True


@pytest.mark.parametrize("kind", ["fifo", "zero", "tty", "directory", "huge"])
async def test_what_is_no_such_file_stops_nobody(
    ssh: Tools, host: Sshd, world: World, tmp_path: Path, kind: str
) -> None:
    """AU-09, SE-21: neither a pipe nor a device is waited for, nor memory filled."""
    host.known_hosts.write_text("")
    fifo, directory, huge = (tmp_path / one for one in ("fifo", "directory", "huge"))
    os.mkfifo(fifo)
    directory.mkdir()
    with huge.open("wb") as opened:
        opened.truncate(HUGE)
    file = {
        "fifo": fifo,
        "zero": Path("/dev/zero"),
        "tty": Path("/dev/tty"),
        "directory": directory,
        "huge": huge,
    }[kind]
    before = peak(world)
    async with asyncio.timeout(40):
        error = await ssh.refused(
            "ssh_exec", command="true", connect={"known_hosts_file": str(file)}
        )
    wanted = "BAD_CONFIGURATION" if kind == "huge" else "HOST_KEY_UNKNOWN"
    assert (error["reason"], error["ran"]) == (wanted, "no"), error
    assert "no credential was sent" in error["message"]
    if kind == "huge":
        assert str(file) in error["message"]
    assert peak(world) - before < MOST_GROWTH_KIB
