"""Connections that are cut in mid-copy: the next login need not wait for that."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fakes.links import find_host, make_pool
from holdfast_daemon.connection.sftp import sftp
from holdfast_daemon.transfer.means.stream import Cut, Wire
from holdfast_daemon.transfer.shell import words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from fakes.sshd import Sshd
    from holdfast_daemon.connection.lease import Lease

MIB = 1024 * 1024


async def by_shell(lease: Lease, file: Path) -> None:
    """Take a file, and have the connection cut at its first piece."""
    wire = Wire(lease, await lease.facts(), 10, 10)
    script = words.send(os.fsencode(file.parent), os.fsencode(file.name), 0)
    pieces = aiter(wire.take(script))
    await anext(pieces)
    lease.link.abort("cut")
    with pytest.raises(Cut):
        await _rest(pieces)


async def _rest(pieces: AsyncIterator[list[bytes]]) -> None:
    async for _ in pieces:
        continue


async def by_sftp(lease: Lease, file: Path) -> None:
    """The same where nothing else is to be had."""
    async with sftp(lease.link) as client:
        assert await client.stat(os.fsencode(file))
        lease.link.abort("cut")


@pytest.mark.needs_sshd
@pytest.mark.parametrize("cut", [by_shell, by_sftp])
async def test_a_connection_that_is_cut_in_mid_copy_was_of_use(
    sshd: Sshd, tmp_path: Path, cut: Callable[[Lease, Path], Awaitable[None]]
) -> None:
    """NF-15: its account is not held for one whose connections come to nothing.

    Each cut cost a copy four seconds before.
    """
    host, file = await find_host(sshd.config), tmp_path / "big"
    file.write_bytes(bytes(8 * MIB))
    async with make_pool(login_pause_seconds=5) as pool:
        # what its shell is like is known from now on, and is not asked again
        async with await pool.lease(host) as lease:
            await lease.facts()
            lease.link.abort("cut")
            await lease.link.wait_closed()
        async with await pool.lease(host) as lease:
            await cut(lease, file)
            await lease.link.wait_closed()
        (standing,) = pool.standings([host.account])
    assert standing.retry <= 0, standing
