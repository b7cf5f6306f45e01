from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest

from fakes.asyncssh_server import Odd
from fakes.links import Collector, make_pool, run
from holdfast_daemon.errors import DaemonError, LinkError, Ran, Reason

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.asyncssh_server import Cut
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host

CUTS = ("login", "channel", "command")


async def work(pool: Pool, host: Host) -> bytes:
    """Do what a command does: a lease, the shell's nature, a channel."""
    async with await pool.lease(host) as lease:
        await lease.facts()
        return (await run(lease, "print hi"))[1]


@pytest.mark.parametrize("cut", CUTS)
async def test_a_host_that_hangs_up_after_the_login_is_tried_a_few_times_only(
    tmp_path: Path, cut: Cut
) -> None:
    """One command led to 254 logins in a second: nothing counted such a connection."""
    async with Odd(cut=cut) as odd, make_pool(login_tries=3) as pool:
        host = odd.host(tmp_path / "kh")
        begun = time.monotonic()
        with pytest.raises(LinkError) as caught:
            await work(pool, host)
        assert len(odd.logins) == 3
        # half of 0.3 s and half of 0.6 s at least
        assert time.monotonic() - begun > 0.44
        assert not pool.list()
    error = caught.value
    assert error.reason is Reason.CONNECTION_LOST
    assert error.ran is Ran.NO
    assert "right after login" in error.message
    assert error.metadata["tries"] == "3"
    assert "ChrootDirectory" in error.hint


@pytest.mark.parametrize("cut", CUTS)
async def test_many_callers_of_such_a_host_log_in_no_more_often_than_one(
    tmp_path: Path, cut: Cut
) -> None:
    """Each caller had a loop of its own."""
    async with (
        Odd(cut=cut) as odd,
        make_pool(login_tries=3, channels_per_connection=50) as pool,
    ):
        host = odd.host(tmp_path / "kh")
        results = await asyncio.gather(
            *(work(pool, host) for _ in range(30)), return_exceptions=True
        )
        assert all(isinstance(result, LinkError) for result in results)
        assert len(odd.logins) == 3


async def test_a_host_behind_such_a_jump_host_is_no_storm_either(
    tmp_path: Path,
) -> None:
    """A carrier that is gone at once counts as any other connection does."""
    async with Odd(cut="login") as odd, make_pool() as pool:
        bastion = odd.host(tmp_path / "kh")
        host = odd.host(tmp_path / "kh", user="inner", proxy_jump=bastion)
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
        assert len(odd.logins) <= 3
    assert caught.value.ran is Ran.NO
    assert caught.value.reason in (Reason.HOST_UNREACHABLE, Reason.CONNECTION_LOST)


@pytest.mark.timed
async def test_a_host_that_was_mended_is_used_again_and_its_failures_forgotten(
    tmp_path: Path,
) -> None:
    async with Odd(cut="login") as odd, make_pool(login_pause_seconds=1) as pool:
        host = odd.host(tmp_path / "kh")
        with pytest.raises(LinkError):
            await work(pool, host)
        odd.cut = ""
        assert await work(pool, host) == b"hi"
        odd.connections[-1].abort()
        link = pool.find(host)
        if link is not None:
            await link.wait_closed()
        begun = time.monotonic()
        assert await work(pool, host) == b"hi"
        # the pause had grown to 4 s, and half of it at least would pass
        assert time.monotonic() - begun < 2


@pytest.mark.parametrize("code", [0, 3])
async def test_a_cut_after_the_status_leaves_a_warning_beside_it(
    tmp_path: Path, code: int
) -> None:
    """Exit 0 was all that was told though the rest of the output was lost."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        channel = await lease.open(f"status {code}", sink := Collector())
        await channel.exited()
        odd.connections[0].abort()
        end = await channel.ended()
    assert (end.exit_code, end.lost) == (code, None)
    assert sink.out == b"some output"
    assert "was lost" in end.warning
    assert "not all of the output" in end.warning


async def test_our_own_cut_after_the_status_is_warned_of_too(tmp_path: Path) -> None:
    """Exit 0 was all that was told, and what a paused reader had not taken was lost."""
    async with Odd() as odd, make_pool() as pool:
        host = odd.host(tmp_path / "kh")
        async with await pool.lease(host) as lease:
            channel = await lease.open("status 0", sink := Collector())
            channel.pause()
            await channel.exited()
            await pool.disconnect(host, force=True)
            end = await channel.ended()
    assert end.exit_code == 0
    assert "disconnected on request" in end.warning
    assert sink.out == b"some output"


@pytest.mark.parametrize("command", ["print hi", "exit 0", "signal TERM", "nothing"])
async def test_an_ordinary_end_has_no_warning(tmp_path: Path, command: str) -> None:
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        end, _, _ = await run(lease, command)
    assert end.warning == ""


async def test_a_cut_after_the_output_s_own_end_takes_nothing_away(
    tmp_path: Path,
) -> None:
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        channel = await lease.open("status-eof 0", sink := Collector())
        await channel.exited()
        odd.connections[0].abort()
        end = await channel.ended()
    assert (end.exit_code, end.warning) == (0, "")
    assert sink.out == b"some output"


async def test_a_cut_before_a_paused_reader_has_taken_the_rest_takes_nothing_away(
    tmp_path: Path,
) -> None:
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        channel = await lease.open("cat", sink := Collector())
        await channel.write(b"one\n")
        await sink.wait_for(b"one\n")
        channel.pause()
        await channel.write(b"two\n")
        channel.eof()
        await channel.exited()
        await lease.link.rtt()  # its close is here, unread
        odd.connections[0].abort()
        end = await channel.ended()
    assert (end.exit_code, end.warning) == (0, "")
    assert sink.out == b"one\ntwo\n"


async def test_who_closes_a_channel_is_not_warned_of_what_it_gave_up(
    tmp_path: Path,
) -> None:
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        channel = await lease.open("status 0", Collector())
        await channel.exited()
        channel.close()
        odd.connections[0].abort()
        end = await channel.ended()
    assert (end.exit_code, end.warning) == (0, "")
