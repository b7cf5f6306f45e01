from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING

import pytest

from fakes.links import Collector, find_host, make_pool, run
from fakes.sshd import Sshd
from fakes.watch import moment
from holdfast_daemon.errors import DaemonError, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd") as one:
        yield one


async def test_a_frozen_peer_is_noticed_by_keepalive(server: Sshd) -> None:
    """A5 row 9: half-open; interval x (misses + 1), everything waiting ends."""
    host = await find_host(server.config)
    async with make_pool(keepalive_seconds=3, keepalive_misses=1) as pool:
        async with await pool.lease(host) as lease:
            sink = Collector()
            channels = [await lease.open("echo up; cat", sink) for _ in range(3)]
            await sink.wait_for(b"up\nup\nup\n")
            frozen = await asyncio.to_thread(server.freeze_connections)
            try:
                async with asyncio.timeout(40):
                    ends = [await channel.ended() for channel in channels]
            finally:
                server.thaw(frozen)
            assert all(end.exit_code is None for end in ends)
            assert all("stopped answering" in (end.lost or "") for end in ends)
            assert lease.link.reason == "the host stopped answering"
        async with await pool.lease(host) as lease:
            assert (await run(lease, "echo again"))[1] == b"again\n"


async def test_killed_server_processes_end_every_command_as_lost(server: Sshd) -> None:
    """A5 row 9, 14: 20 commands in flight, none is run again by itself."""
    host = await find_host(server.config)
    async with make_pool() as pool:
        sinks = [Collector() for _ in range(20)]
        leases = await asyncio.gather(*(pool.lease(host) for _ in sinks))
        channels = [
            await lease.open("echo up; sleep 60", sink)
            for lease, sink in zip(leases, sinks, strict=True)
        ]
        for sink in sinks:
            await sink.wait_for(b"up\n")
        started = server.log.count("Starting session")
        await asyncio.to_thread(server.drop_connections)
        for channel in channels:
            end = await channel.ended()
            assert end.lost is not None
        for lease in leases:
            lease.release()
        assert not pool.list()
        assert server.log.count("Starting session") == started


async def test_a_restarted_server_is_reached_again_at_the_next_call(
    server: Sshd,
) -> None:
    """Issue 3: sshd restarted; a lease on the dead connection moves on by itself."""
    host = await find_host(server.config)
    async with make_pool() as pool:
        async with await pool.lease(host) as lease:
            old = lease.link
            await asyncio.to_thread(server.restart)
            await old.wait_closed()
            assert (await run(lease, "echo on"))[1] == b"on\n"
            assert lease.link is not old
        await asyncio.to_thread(server.stop)
        await lease.link.wait_closed()
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
        assert caught.value.reason is Reason.HOST_UNREACHABLE
        assert caught.value.ran == "no"


async def test_a_login_that_hangs_is_given_up_in_time(server: Sshd) -> None:
    """AU-11: link faults while authenticating."""
    command = "  ConnectTimeout 1\n"
    server.config.write_text(server.client_config(extra=command))
    host = await find_host(server.config)
    for _ in range(20):
        after = server.log.position
        async with make_pool() as pool:
            task = asyncio.create_task(pool.lease(host))
            await asyncio.to_thread(server.log.wait_for, "Connection from", after=after)
            frozen = await asyncio.to_thread(server.freeze_connections)
            await asyncio.wait({task})
            server.thaw(frozen)
            error = task.exception()
            if error is None:
                # The login was faster than the freeze: once more.
                task.result().release()
                continue
            assert isinstance(error, DaemonError)
            assert error.reason is Reason.CONNECT_TIMEOUT
            return
    pytest.fail("no login was slow enough to be frozen in the middle")


async def test_many_logins_leave_no_task_behind(server: Sshd) -> None:
    """A5 row 17: nothing is left behind after connects and disconnects."""
    host = await find_host(server.config)
    before = len(asyncio.all_tasks())
    for _ in range(10):
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert (await run(lease, "true"))[0].exit_code == 0
    gc.collect()
    async with asyncio.timeout(40):
        while len(asyncio.all_tasks()) > before:
            await moment()
