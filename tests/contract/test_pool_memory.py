from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.asyncssh_server import Odd, mute, raw_server
from fakes.links import Collector, change_limits, make_limits, make_pool
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.connection import idle, shells
from holdfast_daemon.connection.pool import Pool
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.host import Host
from holdfast_daemon.secrets import Redactor, Secret

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.connection.shell import ShellFacts


async def ask(pool: Pool, host: Host) -> ShellFacts:
    """Ask for the login shell's nature."""
    async with await pool.lease(host) as lease:
        return await lease.facts()


async def drop(odd: Odd, pool: Pool, host: Host) -> None:
    """Let the server end every connection, and wait until the pool has seen it."""
    link = pool.find(host)
    for connection in odd.connections:
        connection.abort()
    if link is not None:
        await link.wait_closed()


async def test_a_no_is_forgotten_with_its_connection_and_a_yes_is_not(
    tmp_path: Path,
) -> None:
    """A shell once "not POSIX" stayed so for the daemon's life, repaired or not."""
    async with Odd(posix=False) as odd, make_pool() as pool:
        host = odd.host(tmp_path / "kh")
        assert (await ask(pool, host)).family == "other"
        assert (await ask(pool, host)).family == "other"
        assert odd.probes == 1
        await drop(odd, pool, host)
        odd.posix = True
        assert (await ask(pool, host)).family == "posix"
        assert odd.probes == 2
        await drop(odd, pool, host)
        assert (await ask(pool, host)).family == "posix"
        assert odd.probes == 2


async def test_who_disconnects_has_the_shell_asked_again(tmp_path: Path) -> None:
    """A changed login shell was taken for the old one until the daemon ended."""
    async with Odd(posix=True) as odd, make_pool() as pool:
        host = odd.host(tmp_path / "kh")
        assert (await ask(pool, host)).family == "posix"
        assert await pool.disconnect(host)
        odd.posix = False
        assert (await ask(pool, host)).family == "other"


async def test_only_so_many_accounts_are_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every account ever used was kept."""
    monkeypatch.setattr(shells, "_KEPT", 2)
    async with Odd(posix=True) as odd, make_pool() as pool:
        first = odd.host(tmp_path / "kh", user="first")
        for name in ("first", "second", "third"):
            await ask(pool, replace(first, user=name))
        assert odd.probes == 3
        await drop(odd, pool, first)
        await ask(pool, replace(first, user="third"))
        assert odd.probes == 3
        await ask(pool, first)
        assert odd.probes == 4


async def test_one_key_s_shell_says_nothing_of_another_key_s(tmp_path: Path) -> None:
    """A forced command was sent scripts, and channels were opened to it unasked."""
    async with Odd(posix=True) as odd, make_pool() as pool:
        first = odd.host(tmp_path / "kh")
        other = replace(first, password=Secret("another way in"))
        assert (await ask(pool, first)).family == "posix"
        odd.posix = False
        assert (await ask(pool, other)).family == "other"
        await drop(odd, pool, other)
        assert (await ask(pool, first)).family == "posix"
        assert odd.probes == 2
        # who disconnects has all of the account asked again
        odd.posix = True
        await drop(odd, pool, first)
        assert (await ask(pool, other)).family == "posix"
        assert await pool.disconnect(first)
        odd.posix = False
        assert (await ask(pool, other)).family == "other"
        assert (await ask(pool, first)).family == "other"


async def test_a_secret_is_hidden_as_long_as_its_connection_lives(
    tmp_path: Path,
) -> None:
    """Secrets were added at each login and never taken out again."""
    redactor = Redactor()
    async with (
        Odd(password="right one") as odd,
        Pool(make_limits(), SystemClock(), redactor) as pool,
    ):
        right = odd.host(tmp_path / "kh", password=Secret("right one"))
        wrong = replace(right, password=Secret("wrong one"))
        async with await pool.lease(right):
            assert redactor.clean("the right one") == "the [redacted]"
        assert redactor.clean("the right one") == "the [redacted]"
        for _ in range(3):
            with pytest.raises(DaemonError):
                await pool.lease(wrong)
        assert repr(redactor) == "<Redactor of 1 secrets>"
        assert await pool.disconnect(right)
        assert redactor.clean("the right one") == "the right one"
        async with await pool.lease(right):
            pass
    assert repr(redactor) == "<Redactor of 0 secrets>"


async def test_two_connections_with_one_secret_hide_it_until_both_are_gone(
    tmp_path: Path,
) -> None:
    redactor = Redactor()
    limits = make_limits(channels_per_connection=1)
    async with (
        Odd(password="right one") as odd,
        Pool(limits, SystemClock(), redactor) as pool,
    ):
        host = odd.host(tmp_path / "kh", password=Secret("right one"))
        async with await pool.lease(host) as first, await pool.lease(host) as second:
            assert first.link is not second.link
            await first.link.close()
            assert redactor.clean("the right one") == "the [redacted]"
            await second.link.close()
            assert redactor.clean("the right one") == "the right one"


async def test_a_login_under_way_is_not_connected_and_a_name_tells_nothing(
    tmp_path: Path,
) -> None:
    """A host was shown as connected while its login hung, and by typed name only."""
    async with raw_server(mute) as port, Odd() as odd, make_pool() as pool:
        hanging = Host(name="h", hostname="127.0.0.1", port=port, user="u")
        waiting = asyncio.create_task(pool.lease(hanging))
        host = odd.host(tmp_path / "kh")
        async with await pool.lease(host):
            rows = {row.account: row.state for row in pool.list()}
            assert rows == {hanging.account: "connecting", host.account: "ready"}
            assert not pool.connected(hanging.account)
            assert pool.connected(replace(host, name="another name").account)
            assert not pool.connected(replace(host, user="another").account)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_who_waits_for_a_login_that_is_disconnected_is_told_so() -> None:
    """The waiter itself was cancelled, as if it had given up."""
    async with raw_server(mute) as port, make_pool() as pool:
        host = Host(name="h", hostname="127.0.0.1", port=port, user="u")
        waiting = asyncio.create_task(pool.lease(host))
        async with asyncio.timeout(40):
            while not pool.list():  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert await pool.disconnect(replace(host, name="other name"), force=True)
        with pytest.raises(DaemonError) as caught:
            await waiting
        assert caught.value.reason is Reason.CONNECTION_LOST
        assert caught.value.ran == "no"
        assert not pool.list()


async def test_a_changed_limit_of_channels_counts_at_the_next_lease(
    tmp_path: Path,
) -> None:
    """A connection kept the limit it was made with."""
    limits = make_limits(channels_per_connection=5)
    async with Odd() as odd, Pool(limits, SystemClock(), Redactor()) as pool:
        host = odd.host(tmp_path / "kh")
        async with await pool.lease(host) as first, await pool.lease(host) as second:
            assert second.link is first.link
            change_limits(limits, channels_per_connection=2)
            async with await pool.lease(host) as third:
                assert third.link is not first.link
            change_limits(limits, connections_per_host=2, channels_per_connection=1)
            async with await pool.lease(host) as third:
                assert third.link is not first.link
                with pytest.raises(DaemonError) as caught:
                    await pool.lease(host)
            assert caught.value.metadata["value"] == "2"


async def test_a_changed_idle_time_counts_for_connections_that_are_idle_already(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The timer that was set ran on for as long as the old limit said."""
    monkeypatch.setattr(idle, "_LOOK_SECONDS", 0.05)
    limits = make_limits(connection_idle_seconds=600)
    async with Odd() as odd, Pool(limits, SystemClock(), Redactor()) as pool:
        host = odd.host(tmp_path / "kh")
        async with await pool.lease(host) as lease:
            channel = await lease.open("exit 0", Collector())
            await channel.ended()
        change_limits(limits, connection_idle_seconds=0.1)
        async with asyncio.timeout(40):
            await lease.link.wait_closed()
        assert lease.link.reason == "nobody used it"


def test_who_needs_a_host_is_told_by_account_whatever_the_name() -> None:
    bastion = Host(name="bastion", hostname="b.example", user="j")
    inner = Host(name="in", hostname="i.example", user="u", proxy_jump=bastion)
    alias = replace(bastion, name="j@b.example", hostname="B.example")
    assert alias.account == bastion.account
    assert alias.needs(bastion)
    assert inner.needs(alias)
    assert not bastion.needs(inner)
    assert not replace(inner, proxy_jump=None).needs(inner)
