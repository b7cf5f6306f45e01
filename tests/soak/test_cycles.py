"""A5 row 17: nothing is left behind by connects and disconnects of which many fail.

`make soak` runs 10,000 cycles of each kind, the ordinary suite a few; HOLDFAST_CYCLES
is the number. Its seed is fixed, so a failure is the same one again.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.links import find_host, make_pool, run
from fakes.proxy import Proxy
from fakes.sshd import Sshd, descendants, free_port, keygen
from fakes.tools import served, tools
from fakes.watch import descriptors, soon
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Tools
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host

CYCLES = int(os.environ.get("HOLDFAST_CYCLES", "200"))
# The tools make the same way longer, and their daemon is another process.
TOOL_CYCLES = CYCLES if "HOLDFAST_CYCLES" in os.environ else 60
SECONDS = 60 + CYCLES * 0.5
AT_ONCE = 8
WAYS = 4
SEED = 17

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "home"
    home.mkdir()
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def wrong_key(host: Host, path: Path) -> Host:
    key = keygen(path)
    return replace(host, identity_files=(str(key),), explicit_identity=True)


async def cycle(pool: Pool, host: Host) -> bool:
    """Connect, run a command, disconnect; return whether all of it went well."""
    ended = False
    # whatever is told is right here: what is asked is what is left behind
    with contextlib.suppress(DaemonError):
        async with await pool.lease(host) as lease:
            await lease.facts()
            end, said, _ = await run(lease, "echo hi")
            ended = (end.exit_code, said) == (0, b"hi\n")
    # not `disconnect`, which is for all connections of an account
    if (link := pool.find(host)) is not None:
        await link.close()
    return ended


async def test_connects_and_disconnects_leave_no_task_descriptor_or_process(
    server: Sshd, tmp_path: Path
) -> None:
    """A5 row 17: three in ten fail, by the link, the key or the port."""
    dice = random.Random(SEED)
    with Proxy(server.port, seed=SEED) as proxy:
        host = await find_host(proxy.config(server, tmp_path / "config"))
        bad_key = wrong_key(host, tmp_path / "wrong")
        bad_port = replace(host, port=free_port())
        limits = {
            "keepalive_seconds": 1,
            "keepalive_misses": 1,
            "connect_timeout_seconds": 3,
            "channel_open_seconds": 3,
            "probe_seconds": 3,
            "login_pause_seconds": 0.01,
            "login_pause_max_seconds": 0.05,
        }
        async with make_pool(**limits) as pool:
            assert await cycle(pool, host)
            await settled(proxy, server)
            before = len(asyncio.all_tasks()), descriptors(os.getpid())
            proxy.flaky(0.2, 6000)
            outcomes = [0, 0]
            numbers = iter(range(CYCLES))

            async def work(worker: int) -> None:
                # something of its own each, or they would share their connections
                mine = (("LC_WORKER", str(worker)),)
                for _ in numbers:
                    what = dice.random()
                    base = host if what > 0.1 else bad_key if what > 0.05 else bad_port
                    outcomes[await cycle(pool, replace(base, environment=mine))] += 1

            await asyncio.gather(*(work(worker) for worker in range(AT_ONCE)))
            failed, went_well = outcomes
            assert failed + went_well == CYCLES
            # also those refused at once, while the host is left in peace
            assert 0.15 < failed / CYCLES < 0.7, outcomes
            proxy.heal()
            assert not pool.list()
            await settled(proxy, server)
            gc.collect()
            await soon(
                lambda: descriptors(os.getpid()) <= before[1],
                f"{before[1]} descriptors as before",
            )
            assert len(asyncio.all_tasks()) == before[0]
            assert await cycle(pool, host)


async def settled(proxy: Proxy, server: Sshd) -> None:
    """Wait until nothing is connected, and no process of the server is left."""
    await soon(lambda: not proxy.connections, "no connection is left")
    await soon(lambda: not descendants(server.pid), "no process is left")


async def use(ssh: Tools, cycles: int, wrong: Path, dice: random.Random) -> int:
    """Run commands, each on a connection of its own; return how many failed."""
    failed = 0
    for _ in range(cycles):
        bad = {"connect": {"identity_file": str(wrong)}}
        more = bad if dice.random() < 0.08 else {}
        told = await ssh.call("ssh_exec", command="echo hi", **more)
        failed += told["structuredContent"].get("exit_code") != 0
        await ssh.told("ssh_disconnect", target=ssh.target, force=True)
    return failed


async def test_the_daemon_holds_nothing_of_connections_that_are_gone(
    server: Sshd, tmp_path: Path
) -> None:
    """A5 row 17: the same through shims and daemon, by several ways at once."""
    wrong = keygen(tmp_path / "wrong")
    limits = (
        "keepalive_seconds = 1\nkeepalive_misses = 2\nconnect_timeout_seconds = 3\n"
        "login_pause_seconds = 0.01\nlogin_pause_max_seconds = 1\njobs_kept = 10\n"
        "channel_open_seconds = 3\nreap_seconds = 0.2\n"
    )
    async with contextlib.AsyncExitStack() as stack:
        proxies = [
            stack.enter_context(Proxy(server.port, seed=SEED + n)) for n in range(WAYS)
        ]
        config = tmp_path / "config"
        texts = [
            proxy.config(server, tmp_path / f"way{n}")
            .read_text()
            .replace("Host box\n", f"Host way{n}\n")
            for n, proxy in enumerate(proxies)
        ]
        config.write_text("".join(texts))
        world = stack.enter_context(served(config, limits=limits))
        shims = [
            await stack.enter_async_context(tools(world, target=f"way{n}"))
            for n in range(WAYS)
        ]
        for ssh in shims:
            assert (await ssh.run("echo hi"))["stdout"] == "hi\n"
            await ssh.told("ssh_disconnect", target=ssh.target)
        for proxy in proxies:
            await settled(proxy, server)
        before = descriptors(world.pid)
        for proxy in proxies:
            proxy.flaky(0.25, 6000)
        failed = await asyncio.gather(
            *(
                use(ssh, TOOL_CYCLES // WAYS, wrong, random.Random(SEED + n))
                for n, ssh in enumerate(shims)
            )
        )
        assert 0.1 < sum(failed) / TOOL_CYCLES < 0.6, failed
        for proxy in proxies:
            proxy.heal()
        for proxy in proxies:
            await settled(proxy, server)
        status = await asyncio.to_thread(world.cli_json, "status")
        assert status["connections"] == []
        assert status["jobs_running"] == 0
        # spools of the last results come and go with their jobs
        await soon(
            lambda: descriptors(world.pid) <= before + 2,
            f"about {before} descriptors as before",
        )
        for ssh in shims:
            assert (await ssh.run("echo hi"))["stdout"] == "hi\n"
