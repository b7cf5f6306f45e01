"""OB-02: the daemon's own log, as its configuration says, from real use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

pytestmark = pytest.mark.needs_sshd

FILE_BYTES, FILES = 10_000, 3
LIMITS = f"[limits]\nlog_file_bytes = {FILE_BYTES}\nlog_files = {FILES}\n"


@pytest.fixture
def place(short_path: Path, sshd: Sshd) -> Iterator[World]:
    """Yield a daemon with small log files."""
    one = World(short_path, ssh_config=sshd.config)
    one.configure(LIMITS)
    with one:
        yield one


async def use(world: World, times: int = 1) -> None:
    """Run commands on the host."""
    async with tools(world) as ssh:
        for number in range(times):
            ran = await ssh.call("ssh_exec", command=f"echo {number}")
            assert "isError" not in ran, ran


def began(world: World) -> int:
    """Return how many records tell of a job's begin; only debug does."""
    return world.log.read_text().count("job begins")


async def test_the_level_is_that_of_the_configuration(place: World) -> None:
    """OB-02: from a reload on, both ways, without a restart."""
    await use(place)
    assert began(place) == 0
    place.configure(f'log_level = "debug"\n{LIMITS}')
    place.cli("reload")
    await use(place)
    assert began(place) == 1
    place.configure(f'log_level = "error"\n{LIMITS}')
    place.cli("reload")
    size = place.log.stat().st_size
    await use(place)
    assert place.log.stat().st_size == size


async def test_files_of_the_log_are_bounded_and_none_is_open_to_others(
    place: World,
) -> None:
    """OB-02, SC-11: rotation; the newest record is always in the newest file."""
    place.configure(f'log_level = "debug"\n{LIMITS}')
    place.cli("reload")
    await use(place, 250)
    files = sorted(place.log.parent.glob(f"{place.log.name}*"))
    assert [path.name for path in files] == [
        place.log.name,
        *(f"{place.log.name}.{number}" for number in range(1, FILES)),
    ]
    for path in files:
        assert 0 < path.stat().st_size <= FILE_BYTES
        assert path.stat().st_mode & 0o777 == 0o600
    assert "job " in place.log.read_text()


async def test_records_about_a_session_name_it(place: World) -> None:
    """OB-02: host, session and client, also where no journal is."""
    async with tools(place, client="editor") as ssh:
        opened = await ssh.told("ssh_session_open", target="box", session_name="build")
        ident = opened["session_id"]
        await ssh.told("ssh_session_close", session="build")
    lines = [line for line in place.log.read_text().splitlines() if ident in line]
    about = f"client=editor/1 host=box session={ident} session_name=build"
    assert [re.split(r": ", line, maxsplit=1)[1] for line in lines] == [
        f"session opened {about}",
        f"session ended: closed {about}",
    ]
