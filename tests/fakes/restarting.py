"""Daemons that die, or are restarted, under what an agent has begun."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes import strays
from fakes.tools import content, failure
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from fakes.proxy import Proxy
    from fakes.tools import Result, Tools
    from fakes.world import World

# Why a call is refused while there is no daemon, or while it looks for its hosts.
AWAY = frozenset({"CONNECTION_LOST", "DAEMON_LOST", "DAEMON_UNAVAILABLE", "DRAINING"})


def crash(world: World) -> None:
    """Kill the daemon, and start another."""
    world.kill()
    world.start()


def restart(world: World) -> None:
    """Stop the daemon as a person does, and start another."""
    assert world.stop() == 0
    world.start()


async def restart_away(world: World, proxy: Proxy, *, tries: int = 1) -> None:
    """Kill the daemon, and start another that tries in vain to reach its host."""
    await asyncio.to_thread(world.kill)
    proxy.refuse()
    tried = len(proxy.accepted)
    await asyncio.to_thread(world.start)
    await soon(lambda: len(proxy.accepted) >= tried + tries, "it is tried", 30)


async def given_way(world: World) -> None:
    """Wait until the daemons that clients started meanwhile have given way to it.

    One that is slow to start would take over when this world's own is stopped.
    """

    def others() -> set[int]:
        found = strays.naming(world.run)
        daemons = {pid for pid, words in found.items() if "holdfast_daemon" in words}
        return daemons - {world.pid}

    await soon(lambda: not others(), "one daemon is left")


ENDS = pytest.mark.parametrize("end", [crash, restart])


async def ended(ssh: Tools, job_id: str) -> Result:
    """Read a job until it has ended, once the daemon is there again."""
    async with asyncio.timeout(60):
        while True:
            told = await ssh.call(
                "ssh_job_read", job_id=job_id, offset=0, wait_seconds=5
            )
            if told.get("isError"):
                assert failure(told)["reason"] in AWAY, told
            elif told["structuredContent"]["status"] != "running":
                return content(told)
            await moment()
