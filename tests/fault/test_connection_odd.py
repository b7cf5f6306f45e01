from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.asyncssh_server import Odd, hang_up, mute, raw_server, talk_http
from fakes.links import Collector, make_pool, run
from fakes.sshd import free_port
from holdfast_daemon.connection.session import NO_STATUS
from holdfast_daemon.errors import DaemonError, Ran, Reason
from holdfast_daemon.hosts.host import Host

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.streams import Stream


def somewhere(port: int, **more: object) -> Host:
    fields: dict[str, object] = {
        "name": "x",
        "hostname": "127.0.0.1",
        "port": port,
        "user": "u",
        "identity_agent": "none",
        **more,
    }
    return Host(**fields)  # type: ignore[arg-type]  # tests name any field


async def refused(host: Host, **limits: float) -> DaemonError:
    async with make_pool(**limits) as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
        assert not pool.list()
    assert caught.value.ran is Ran.NO
    return caught.value


async def test_a_host_that_never_speaks_is_given_up_in_time() -> None:
    """AU-11: the connect timeout is apart from the command's; bad input."""
    async with raw_server(mute) as port:
        error = await refused(somewhere(port, connect_timeout=2))
    assert error.reason is Reason.CONNECT_TIMEOUT
    assert error.metadata["waiting_for"] == "a word from it"
    assert error.metadata["seconds"] == "2"


async def test_a_refused_port_is_said_so() -> None:
    """Bad input: a refused port."""
    port = free_port()
    error = await refused(somewhere(port))
    assert error.reason is Reason.HOST_UNREACHABLE
    assert "refused" in error.message
    assert error.metadata["port"] == str(port)


async def test_a_name_that_does_not_resolve_is_said_so() -> None:
    error = await refused(somewhere(22, hostname="no-such-host.invalid"))
    assert error.reason is Reason.HOST_NOT_FOUND


async def test_something_that_is_no_ssh_server_is_said_so() -> None:
    async with raw_server(talk_http) as port:
        error = await refused(somewhere(port))
    assert error.reason in (Reason.PROTOCOL_ERROR, Reason.HOST_UNREACHABLE)


async def test_a_host_that_hangs_up_at_once_is_said_so() -> None:
    async with raw_server(hang_up) as port:
        error = await refused(somewhere(port))
    assert error.reason is Reason.HOST_UNREACHABLE
    assert "hung up" in error.message


async def test_a_missing_exit_status_is_never_zero(tmp_path: Path) -> None:
    """EX-10, A5 row 14: a server that sends no exit status."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        end, _, _ = await run(lease, "nothing")
    assert end.exit_code is None
    assert end.lost == NO_STATUS


@pytest.mark.parametrize("code", [0, 1, 4, 5, 44, 255])
async def test_exit_codes_are_told_as_they_are(tmp_path: Path, code: int) -> None:
    """A5 row 14: truth of outcomes."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        end, _, _ = await run(lease, f"exit {code}")
    assert end.exit_code == code


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "KILL", "TERM", "SEGV"])
async def test_exit_signals_are_told_by_name(tmp_path: Path, name: str) -> None:
    """A5 row 14: six signals, and asyncssh's -1 never shows."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        end, _, _ = await run(lease, f"signal {name}")
    assert (end.signal, end.exit_code) == (name, None)


async def test_a_link_cut_in_mid_command_is_lost_after_its_output(
    tmp_path: Path,
) -> None:
    """A5 rows 9 and 14: a link cut in mid-command."""
    async with Odd() as odd, make_pool() as pool:
        async with await pool.lease(odd.host(tmp_path / "kh")) as lease:
            waiting = await lease.open("hang", Collector())
            end, out, _ = await run(lease, "cut")
            assert end.lost is not None
            assert "was lost" in end.lost
            assert out == b"before the cut"
            assert (await waiting.ended()).lost is not None
            assert lease.link.closed
            assert lease.link.reason
            with pytest.raises(BrokenPipeError):
                await waiting.write(b"too late")
        assert not pool.list()


async def test_output_that_came_before_the_cut_is_kept_though_reading_was_paused(
    tmp_path: Path,
) -> None:
    """The library would drop what a paused channel had received."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        sink = Collector()
        channel = await lease.open("cat", sink)
        await channel.write(b"first\n")
        await sink.wait_for(b"first\n")
        channel.pause()
        await channel.write(b"second\n")
        await lease.link.rtt()  # the echo is here, unread
        await lease.link.rtt()
        odd.connections[0].abort()
        assert (await channel.ended()).lost is not None
        assert sink.out == b"first\nsecond\n"


async def test_refused_channels_are_an_error_and_not_a_storm_of_logins(
    tmp_path: Path,
) -> None:
    async with Odd(refuse_channels=True) as odd, make_pool() as pool:
        async with await pool.lease(odd.host(tmp_path / "kh")) as lease:
            with pytest.raises(DaemonError) as caught:
                await lease.open("exit 0", Collector())
        assert caught.value.reason is Reason.LIMIT_REACHED
        assert caught.value.ran is Ran.NO
        assert len(odd.connections) == 1


async def test_a_channel_that_never_opens_is_given_up_and_nothing_ran(
    tmp_path: Path,
) -> None:
    """Bad input: hangs over no limit."""
    async with (
        Odd(open_channels=False) as odd,
        make_pool(channel_open_seconds=0.3) as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        with pytest.raises(DaemonError) as caught:
            await lease.open("exit 0", Collector())
        assert lease.link.channels == 1
    assert caught.value.reason is Reason.CONNECT_TIMEOUT
    assert caught.value.ran is Ran.NO


async def test_a_reader_that_fails_ends_its_own_channel_only(tmp_path: Path) -> None:
    class Broken:
        def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
            raise RuntimeError("a fault of the reader")

    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        channel = await lease.open("print something", Broken())
        end = await channel.ended()
        assert end.exit_code in (0, None)
        assert (await run(lease, "print hi"))[1] == b"hi"


async def test_an_empty_command_is_refused_and_none_is_the_login_shell(
    tmp_path: Path,
) -> None:
    """EX-07: a blank command is an error, never an interactive shell."""
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        with pytest.raises(DaemonError) as caught:
            await lease.open("", Collector())
        assert caught.value.reason is Reason.INVALID_ARGUMENT
        assert odd.opened == 0
        shell = await lease.open(None, Collector())
        assert (await shell.ended()).exit_code == 1


async def test_a_host_key_that_changes_under_us_is_seen_at_the_next_login(
    tmp_path: Path,
) -> None:
    """A5 row 26: changed host key."""
    async with Odd() as odd:
        host = odd.host(tmp_path / "kh")
        port = odd.port
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert lease.link.host_key_fingerprint.startswith("SHA256:")
    async with Odd(port=port) as other:
        error = await refused(host)
        assert error.reason is Reason.HOST_KEY_CHANGED
        assert other.logins == []


async def test_a_caller_who_gives_up_leaves_no_channel_behind(tmp_path: Path) -> None:
    async with (
        Odd() as odd,
        make_pool() as pool,
        await pool.lease(odd.host(tmp_path / "kh")) as lease,
    ):
        opening = asyncio.create_task(lease.open("hang", Collector()))
        await asyncio.sleep(0)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        async with asyncio.timeout(40):
            while lease.link.channels:
                await lease.link.rtt()
        assert (await run(lease, "print hi"))[1] == b"hi"
