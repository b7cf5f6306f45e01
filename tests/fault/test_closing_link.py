"""A connection that is being closed refuses nothing in its server's name."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import asyncssh
import pytest

from fakes.links import Collector, find_host, make_pool
from fakes.sshd import Sshd
from holdfast_daemon.connection.session import Session
from holdfast_daemon.connection.waiting import Carried, Start, Waiting
from holdfast_daemon.errors import DaemonError, Ran, Reason

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(60)]


def nobody_s() -> Session:
    return Session(lambda _: None, Collector(), lambda _: None, lambda _: None)


async def test_a_command_that_a_disconnect_overtakes_was_not_refused_by_its_host(
    tmp_path: Path,
) -> None:
    """EX-01, NF-04: somebody disconnects between its channel and its start."""
    with Sshd(tmp_path / "sshd") as sshd:
        host = await find_host(sshd.config)
        async with make_pool() as pool, await pool.lease(host) as lease:
            link = lease.link
            channel = await Waiting.open(link.connection, Carried())
            session = nobody_s()
            closing = asyncio.create_task(link.close("it was disconnected on request"))
            # it is told so, and has not come to it
            await asyncio.sleep(0)
            assert not link.closed
            with pytest.raises(DaemonError) as found:
                await cast("Any", link)._start(channel, session, Start(b"true"))
            await closing
        assert (found.value.reason, found.value.ran) == (
            Reason.CONNECTION_LOST,
            Ran.NO,
        )
        assert "disconnected on request" in found.value.message


async def test_a_connection_that_was_just_cut_is_not_a_full_one(tmp_path: Path) -> None:
    """EX-01, NF-09: the library has no channel for it; its host said nothing."""
    with Sshd(tmp_path / "sshd") as sshd:
        host = await find_host(sshd.config)
        async with make_pool() as pool, await pool.lease(host) as lease:
            link = lease.link
            cast("Any", link.connection)._force_close(asyncssh.ConnectionLost("cut"))
            assert not link.closed
            with pytest.raises(DaemonError) as found:
                await cast("Any", link)._open_and_start(nobody_s(), Start(b"true"))
        assert (found.value.reason, found.value.ran) == (
            Reason.CONNECTION_LOST,
            Ran.NO,
        )
