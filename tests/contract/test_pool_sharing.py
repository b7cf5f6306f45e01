from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.asking_server import Asking, Step, key_in
from fakes.asyncssh_server import Odd, hang_up, raw_server
from fakes.links import Collector, find_host, make_pool, run
from fakes.sshd import Sshd
from holdfast_daemon.errors import DaemonError, LimitError, Reason, StateError
from holdfast_daemon.hosts.host import Host, Overrides
from holdfast_daemon.secrets import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    from holdfast_daemon.connection.pool import Pool

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def own_sshd(tmp_path: Path) -> Iterator[Callable[..., Sshd]]:
    """Start servers with options of the test's own."""
    servers: list[Sshd] = []

    def start(**options: str) -> Sshd:
        directory = tmp_path / f"sshd{len(servers)}"
        server = Sshd(directory, options=options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, bounded, for something no event announces."""
    async with asyncio.timeout(40):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def hold(pool: Pool, host: Host, count: int) -> list[tuple[bytes, int | None]]:
    """Run `count` commands that are all there at once; returns what each said."""
    sinks = [Collector() for _ in range(count)]

    async def one(sink: Collector, all_there: asyncio.Barrier) -> int | None:
        async with await pool.lease(host) as lease:
            channel = await lease.open("echo here; cat; exit 7", sink)
            await sink.wait_for(b"here\n")
            await all_there.wait()
            await channel.write(b"mine")
            channel.eof()
            return (await channel.ended()).exit_code

    barrier = asyncio.Barrier(count)
    codes = await asyncio.gather(*(one(sink, barrier) for sink in sinks))
    return [(sink.out, code) for sink, code in zip(sinks, codes, strict=True)]


async def test_many_who_ask_at_once_share_one_login(
    own_sshd: Callable[..., Sshd],
) -> None:
    """AU-02, NF-07: twenty leases at once are one login."""
    sshd = own_sshd(MaxSessions="20")
    host = await find_host(sshd.config)
    async with make_pool(channels_per_connection=20) as pool:
        leases = await asyncio.gather(*(pool.lease(host) for _ in range(20)))
        assert len({id(lease.link) for lease in leases}) == 1
        assert not any(lease.reused for lease in leases)
        again = await pool.lease(host)
        assert again.link is not leases[0].link or again.reused
        for lease in (*leases, again):
            lease.release()
        later = await pool.lease(host)
        assert later.reused
        later.release()
    assert sshd.log.count("Connection from") == 2  # the 21st needed a second one


@pytest.mark.parametrize(("sessions", "connections"), [("1", 25), ("10", 3)])
async def test_commands_spread_over_as_many_connections_as_it_takes(
    own_sshd: Callable[..., Sshd], sessions: str, connections: int
) -> None:
    """A5 row 12: 25 channels at MaxSessions 1 and 10, no refusal is shown."""
    sshd = own_sshd(MaxSessions=sessions)
    host = await find_host(sshd.config)
    async with make_pool(connections_per_host=30) as pool:
        async with await pool.lease(host) as lease:
            assert (await lease.link.facts()).family == "posix"
        found = await hold(pool, host, 25)
        assert found == [(b"here\nmine", 7)] * 25
        rows = pool.list()
        # one more where sshd had not cleared the probe's channel away yet
        assert len(rows) in (connections, connections + 1)
        assert all(row.state == "ready" for row in rows)
    assert sshd.log.count("Failed") == 0


async def test_what_was_learned_about_a_server_is_kept_for_the_next(
    own_sshd: Callable[..., Sshd],
) -> None:
    sshd = own_sshd(MaxSessions="2")
    host = await find_host(sshd.config)
    async with make_pool() as pool:
        await hold(pool, host, 4)
        assert len(pool.list()) == 2
        await hold(pool, host, 6)
        assert len(pool.list()) in (3, 4)
        assert all(row.leases == 0 for row in pool.list())


async def test_the_limit_of_connections_is_told_and_killing_goes_on(
    own_sshd: Callable[..., Sshd],
) -> None:
    """SE-21: a clear refusal that names the limit."""
    host = await find_host(own_sshd().config)
    async with make_pool(connections_per_host=1, channels_per_connection=1) as pool:
        async with await pool.lease(host):
            with pytest.raises(LimitError) as caught:
                await pool.lease(host)
            assert caught.value.metadata["limit"] == "connections_per_host"
            assert caught.value.ran == "no"
            async with await pool.lease(host, urgent=True) as lease:
                assert (await run(lease, "true"))[0].exit_code == 0
        async with await pool.lease(host) as lease:
            assert lease.reused


async def test_several_who_end_something_wait_for_each_other(
    own_sshd: Callable[..., Sshd],
) -> None:
    """SE-21: two stops at one time are no reason to refuse one, on a full host too."""
    host = await find_host(own_sshd().config)
    full = {"connections_per_host": 1, "channels_per_connection": 1}
    async with (
        make_pool(**full, channel_open_seconds=60) as pool,
        await pool.lease(host),
    ):
        first = await pool.lease(host, urgent=True)
        second = asyncio.create_task(pool.lease(host, urgent=True))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not second.done()
        first.release()
        async with asyncio.timeout(40):
            (await second).release()
    async with make_pool(**full, channel_open_seconds=0.5) as pool:
        async with await pool.lease(host), await pool.lease(host, urgent=True):
            with pytest.raises(LimitError) as caught:
                await pool.lease(host, urgent=True)
        assert caught.value.metadata["limit"] == "connections_per_host"


async def test_an_idle_connection_closes_and_a_used_one_does_not(sshd: Sshd) -> None:
    """Idle connections close by policy, not while anything uses them."""
    host = await find_host(sshd.config)
    async with make_pool(connection_idle_seconds=0.2) as pool:
        lease = await pool.lease(host)
        channel = await lease.open("cat", sink := Collector())
        lease.release()
        await asyncio.sleep(0.5)  # well over the limit: nothing may happen
        assert len(pool.list()) == 1
        await channel.write(b"still here")
        channel.eof()
        assert (await channel.ended()).exit_code == 0
        assert sink.out == b"still here"
        link = lease.link
        await eventually(lambda: not pool.list())
        assert link.closed
        assert link.reason == "nobody used it"


async def test_one_who_gives_up_does_not_end_the_login_of_the_others(
    sshd: Sshd,
) -> None:
    host = await find_host(sshd.config)
    async with make_pool() as pool:
        first = asyncio.create_task(pool.lease(host))
        await eventually(lambda: bool(pool.list()))
        others = [asyncio.create_task(pool.lease(host)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        leases = await asyncio.gather(*others)
        assert first.cancelled() or first.cancelling()
        assert len({id(lease.link) for lease in leases}) == 1
        assert len(pool.list()) == 1
        for lease in leases:
            lease.release()


async def test_a_failure_is_told_to_all_who_waited_and_to_nobody_after(
    tmp_path: Path,
) -> None:
    """A5 row 11: one attempt, and none by itself after a failed authentication."""
    async with Odd(password="right one") as odd:
        wrong = odd.host(tmp_path / "kh", password=Secret("wrong one"))
        right = replace(wrong, password=Secret("right one"))
        async with make_pool() as pool:
            results = await asyncio.gather(
                *(pool.lease(wrong) for _ in range(5)), return_exceptions=True
            )
            assert all(isinstance(result, DaemonError) for result in results)
            assert odd.attempts == ["wrong one"]
            assert not pool.list()
            async with await pool.lease(right) as lease:
                assert lease.link.auth_method == "password"


async def test_who_names_no_credential_shares_and_who_names_one_does_not(
    tmp_path: Path,
) -> None:
    """NF-07: log in once, for all; AU-05: a named credential is really used."""
    async with Odd(password="right one") as odd:
        bare = odd.host(tmp_path / "kh")
        named = replace(bare, password=Secret("right one"))
        wrong = replace(bare, password=Secret("wrong one"))
        async with make_pool() as pool, await pool.lease(named) as first:
            async with await pool.lease(bare) as second:
                assert second.reused
                assert second.link is first.link
            with pytest.raises(DaemonError):
                await pool.lease(wrong)
            unchecked = replace(bare, host_key_checking="no")
            assert pool.find(unchecked) is None
            assert pool.find(bare) is first.link


@pytest.fixture
async def two_keys(tmp_path: Path) -> AsyncIterator[tuple[Asking, str, str]]:
    """Yield a host whose account has two keys, and their files."""
    admin, readonly = tmp_path / "admin", tmp_path / "readonly"
    async with Asking(Step(keys=[key_in(admin), key_in(readonly)])) as asking:
        yield asking, str(admin), str(readonly)


@pytest.mark.parametrize(
    ("have", "want"),
    [
        ((0, True), (1, True)),
        ((0, True), (1, False)),
        ((0, False), (1, True)),
        # the first may have come in by another key, of an agent
        ((0, False), (0, True)),
    ],
)
async def test_a_key_that_is_the_only_one_gives_nobody_another_s_rights(
    two_keys: tuple[Asking, str, str],
    tmp_path: Path,
    have: tuple[int, bool],
    want: tuple[int, bool],
) -> None:
    """AU-05: a server may bind each key of an account to a command."""
    asking, *keys = two_keys
    extra = "  IdentityAgent none\n"
    host = await find_host(asking.config(tmp_path, extra=extra), "web1")

    def alias(name: str, number: int, only: bool) -> Host:
        named = (keys[number],)
        return replace(host, name=name, identity_files=named, identities_only=only)

    one, other = alias("one", *have), alias("other", *want)
    async with make_pool() as pool, await pool.lease(one) as first:
        assert pool.find(other) is None
        async with await pool.lease(other) as second:
            assert not second.reused
            assert second.link is not first.link
            async with await pool.lease(replace(other, name="third")) as third:
                assert third.reused
                assert third.link is second.link
            assert pool.find(one) is first.link
        assert asking.seen.logins == 2


async def test_a_key_named_by_an_option_is_really_used(
    two_keys: tuple[Asking, str, str], tmp_path: Path
) -> None:
    """AU-05: `-o IdentityFile` goes before the configuration's, as with ssh."""
    asking, usual, named = two_keys
    extra = f"  IdentityAgent none\n  IdentityFile {usual}\n"
    config = asking.config(tmp_path, extra=extra)
    host = await find_host(config, "web1")
    over = Overrides(options={"IdentityFile": named})
    own = await find_host(config, "web1", over)
    async with make_pool() as pool, await pool.lease(host) as first:
        assert usual in first.link.auth_method
        async with await pool.lease(own) as second:
            assert not second.reused
            assert named in second.link.auth_method
            async with await pool.lease(own) as third:
                assert third.link is second.link
        assert pool.find(host) is first.link
        await first.link.close()
        # who names none still has what others opened
        assert pool.find(host) is second.link


async def test_a_call_that_lifts_identitiesonly_gets_nobody_else_s_connection(
    two_keys: tuple[Asking, str, str], tmp_path: Path
) -> None:
    """AU-05: the person bound the alias to its key, and not the call's own words."""
    asking, usual, named = two_keys
    extra = f"  IdentityAgent none\n  IdentitiesOnly yes\n  IdentityFile {named}\n"
    config = asking.config(tmp_path, extra=extra)
    over = Overrides(options={"IdentitiesOnly": "no"})
    loose = await find_host(config, "web1", over)
    assert not loose.identities_only
    wide = replace(loose, identity_files=(usual,), asked=None)
    async with make_pool() as pool, await pool.lease(wide) as first:
        assert usual in first.link.auth_method
        async with await pool.lease(loose) as second:
            assert named in second.link.auth_method


async def test_a_host_that_moved_gets_a_connection_of_its_own(
    own_sshd: Callable[..., Sshd],
) -> None:
    """IN-02: the alias follows its configuration."""
    old, new = own_sshd(), own_sshd()
    async with make_pool() as pool:
        async with await pool.lease(await find_host(old.config)) as lease:
            before = lease.link
        async with await pool.lease(await find_host(new.config)) as lease:
            assert lease.link is not before
        assert new.logins == old.logins == 1


async def test_a_connection_in_use_is_closed_only_by_force(sshd: Sshd) -> None:
    """Contract 4: ssh_disconnect is refused while a command uses it unless forced."""
    host = await find_host(sshd.config)
    async with make_pool() as pool:
        assert not await pool.disconnect(host)
        async with await pool.lease(host) as lease:
            channel = await lease.open("cat", Collector())
            with pytest.raises(StateError):
                await pool.disconnect(host)
            assert await pool.disconnect(host, force=True)
            end = await channel.ended()
            assert end.lost is not None
            assert "disconnected on request" in end.lost
        assert not pool.list()


async def test_closing_the_pool_ends_everything_in_time(sshd: Sshd) -> None:
    """A5 row 19, PK-05: nothing is left, and later callers are told."""
    host = await find_host(sshd.config)
    pool = make_pool(stop_seconds=2)
    lease = await pool.lease(host)
    channel = await lease.open("sleep 60", Collector())
    async with asyncio.timeout(30):
        await pool.close()
    assert (await channel.ended()).lost is not None
    with pytest.raises(StateError) as caught:
        await pool.lease(host)
    assert caught.value.reason is Reason.DRAINING
    assert not pool.list()


async def test_handshakes_are_budgeted_per_host(own_sshd: Callable[..., Sshd]) -> None:
    """A5 row 11: 30 connections at once to a strict sshd, none is dropped."""
    sshd = own_sshd(MaxStartups="10:100:10", MaxSessions="1")
    host = await find_host(sshd.config)
    async with make_pool(
        channels_per_connection=1, connections_per_host=30, connect_timeout_seconds=30
    ) as pool:
        leases = await asyncio.gather(*(pool.lease(host) for _ in range(30)))
        assert len({id(lease.link) for lease in leases}) == 30
        for lease in leases:
            lease.release()
    assert sshd.log.count("MaxStartups") == 0


async def test_a_server_that_hangs_up_before_a_word_is_asked_a_few_times_more() -> None:
    """A busy sshd does so; nothing was sent, so nothing is repeated."""
    knocks = 0

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal knocks
        knocks += 1
        await hang_up(reader, writer)

    async with raw_server(count) as port, make_pool() as pool:
        host = Host(name="x", hostname="127.0.0.1", port=port, user="u")
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
    assert caught.value.reason is Reason.HOST_UNREACHABLE
    assert "MaxStartups" in caught.value.hint
    assert knocks == 3


async def test_a_pause_is_for_one_server_and_not_for_its_address(
    tmp_path: Path,
) -> None:
    """NF-09: behind a jump host the same address is another server."""
    async with (
        raw_server(hang_up) as port,
        Odd() as hub,
        make_pool(login_tries=1, login_pause_seconds=60) as pool,
    ):
        host = Host(name="x", hostname="127.0.0.1", port=port, user="u")
        behind = replace(host, proxy_jump=hub.host(tmp_path / "kh"))

        async def told(one: Host) -> str:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(one)
            return caught.value.message

        assert "then hung up" in await told(host)
        assert "does not knock again" in await told(host)
        # the hub opens no tunnels: that it was asked is what matters
        assert "does not knock again" not in await told(behind)


async def test_rows_tell_what_is_connected_and_how_busy(sshd: Sshd) -> None:
    """OB-03, contract: status shows connections."""
    host = await find_host(sshd.config, overrides=Overrides())
    async with make_pool() as pool, await pool.lease(host) as lease:
        channel = await lease.open("cat", Collector())
        (row,) = pool.list()
        assert (row.name, row.target) == ("box", sshd.target)
        assert (row.state, row.channels, row.leases) == ("ready", 1, 1)
        assert row.idle == 0
        assert row.age >= 0
        assert row.server_version.startswith("SSH-2.0-OpenSSH")
        channel.eof()
        await channel.ended()
        assert await lease.link.rtt() < 5
