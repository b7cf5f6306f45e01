"""Many clients, one session: each gets its own output and code.

HOLDFAST_SESSION_RUNS says how many commands each of them runs (`make soak`: 500).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest

from fakes.tools import QUICK, Tools, served, tools

if TYPE_CHECKING:
    from fakes.sshd import Sshd

RUNS = int(os.environ.get("HOLDFAST_SESSION_RUNS", "4"))
# on a machine that has much else to do, sixteen turns may take longer than usual
LIMITS = f"{QUICK}session_turn_seconds = 45\n"
SECONDS = 90 + RUNS * 3

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]


async def run_many(ssh: Tools, client: int) -> float:
    """Run one command after the other, while all others do so too.

    Returns the seconds that the slowest took.
    """
    slowest = 0.0
    for number in range(RUNS):
        begun = time.monotonic()
        word, code = f"c{client}-{number}", (client + number) % 256
        lines = number % 40
        told = await ssh.told(
            "ssh_session_run",
            session="shared",
            command=f"N=$((N+1)); seq -f '{word} %g' {lines}; echo {word} >&2;"
            f" (exit {code})",
        )
        slowest = max(slowest, time.monotonic() - begun)
        assert told["status"] == "exited", told
        assert told["exit_code"] == code
        assert told["stdout"] == "".join(f"{word} {n + 1}\n" for n in range(lines))
        assert told["stderr"] == f"{word}\n"
    return slowest


@pytest.mark.parametrize("clients", [16])
async def test_many_clients_share_a_session(sshd: Sshd, clients: int) -> None:
    """SE-14, NF-03: no interleaving, nobody starves, and each ran once."""
    async with contextlib.AsyncExitStack() as stack:
        world = stack.enter_context(served(sshd, limits=LIMITS))
        shims = [
            await stack.enter_async_context(tools(world, client=f"c{number}"))
            for number in range(clients)
        ]
        first = shims[0]
        await first.told(
            "ssh_session_open",
            target="box",
            session_name="shared",
            durability="remote",
        )
        slowest = await asyncio.gather(
            *(run_many(ssh, number) for number, ssh in enumerate(shims))
        )
        print(f"the slowest took {max(slowest):.1f} s")  # noqa: T201  for `make soak`
        told = await first.told("ssh_session_run", session="shared", command="echo $N")
        assert told["stdout"] == f"{clients * RUNS}\n"
        await first.told("ssh_session_close", session="shared", force=True)


async def test_a_name_opened_by_many_at_once_is_one_session(sshd: Sshd) -> None:
    """SE-04: whoever comes while another opens it gets the same one."""
    with served(sshd) as world:
        async with tools(world) as one, tools(world) as other:
            for number in range(4):
                wanted = {"target": "box", "session_name": f"n{number}"}
                calls = [("ssh_session_open", wanted)] * 12
                answers = [
                    answer["structuredContent"]
                    for answers in await asyncio.gather(
                        one.together(*calls), other.together(*calls)
                    )
                    for answer in answers
                ]
                assert len({answer["session_id"] for answer in answers}) == 1
                assert [answer["created"] for answer in answers].count(True) == 1
            for number in range(4):
                await one.told("ssh_session_close", session=f"n{number}", force=True)
