"""A host that sends all it has in packets as large as may be, as we were slow to read.

OpenSSH fills one up to what the channel allows while it has to wait for us; the library
ends a connection over a packet that is larger than it takes.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SIZE = 48 * 1024 * 1024
COMMANDS = 4
HALTS = 2

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={tmp_path}/sshd"}) as one:
        yield one


def held_up(pid: int) -> bool:
    """Whether a process sleeps: what writes without end does so only where it must."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] != "R"


async def test_a_daemon_that_was_held_up_takes_what_has_heaped_up(
    host: Sshd, tmp_path: Path
) -> None:
    """EX-12: all of it comes, of several commands and over the same connection."""
    with served(host) as world:
        async with tools(world, target="box") as ssh:
            await ssh.run("true")
            (before,) = (await ssh.told("ssh_hosts"))["hosts"]
            for halt in range(HALTS):
                # several: what one may send before it waits fits into the sockets
                notes = [tmp_path / f"{halt}.{number}" for number in range(COMMANDS)]
                jobs = [
                    await ssh.start(f"echo $$ >{note}; exec head -c {SIZE} /dev/zero")
                    for note in notes
                ]
                pids = [int(await soon(_reads(note), "it runs")) for note in notes]
                os.kill(world.pid, signal.SIGSTOP)
                try:
                    await soon(lambda: all(map(held_up, pids)), "all have to wait")  # noqa: B023
                finally:
                    os.kill(world.pid, signal.SIGCONT)
                for job in jobs:
                    ended = await ssh.ended(job)
                    assert (ended["status"], ended["exit_code"]) == ("exited", 0), ended
                    assert ended["next_offset"] == SIZE
            (after,) = (await ssh.told("ssh_hosts"))["hosts"]
            assert after["since"] == before["since"], "it is another connection"


def _reads(note: Path) -> Callable[[], str]:
    return lambda: note.read_text() if note.exists() else ""
