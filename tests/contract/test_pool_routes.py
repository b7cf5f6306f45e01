from __future__ import annotations

import asyncio
import shutil
import socket
from typing import TYPE_CHECKING

import pytest

from fakes.asyncssh_server import Odd
from fakes.links import Collector, find_host, make_pool, run
from fakes.sshd import Sshd
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.host import Overrides

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_daemon.streams import Stream

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def bastion(tmp_path: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "bastion", alias="bastion") as one:
        yield one


@pytest.fixture
def both(sshd: Sshd, bastion: Sshd, tmp_path: Path) -> Path:
    file = tmp_path / "both"
    file.write_text(
        bastion.client_config() + sshd.client_config(extra="  ProxyJump bastion\n")
    )
    return file


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_a_host_behind_a_jump_host_is_reached_through_it(
    sshd: Sshd, bastion: Sshd, both: Path
) -> None:
    """AU-07: ProxyJump through two real servers, one shared login at the bastion."""
    host = await find_host(both)
    before = sshd.logins
    async with make_pool(channels_per_connection=1, connections_per_host=3) as pool:
        leases = await asyncio.gather(*(pool.lease(host) for _ in range(3)))
        for lease in leases:
            assert (await run(lease, "echo $SSH_CLIENT"))[1].startswith(b"127.0.0.1")
        assert bastion.logins == 1
        assert sshd.logins == before + 3
        assert bastion.log.count("Starting session") == 0
        for lease in leases:
            lease.release()
        rows = {row.name: row for row in pool.list()}
        assert rows["box"].via == bastion.target
    assert not pool.list()


async def test_the_way_stays_open_as_long_as_somebody_is_on_it(
    bastion: Sshd, both: Path
) -> None:
    host = await find_host(both)
    async with (
        make_pool(connection_idle_seconds=0.2) as pool,
        await pool.lease(host) as lease,
    ):
        await asyncio.sleep(0.5)  # well over the limit: nothing may happen
        assert (await run(lease, "echo in"))[1] == b"in\n"
        assert len(pool.list()) == 2


async def test_each_hop_has_its_own_key_and_verdict(
    sshd: Sshd, bastion: Sshd, both: Path
) -> None:
    """A5 row 26: jump host; the error says which hop."""
    bastion.known_hosts.write_text("")
    async with make_pool() as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(await find_host(both))
    assert caught.value.reason is Reason.HOST_KEY_UNKNOWN
    assert caught.value.metadata["hop"] == bastion.target
    assert f"on the way to {sshd.target}" in caught.value.message


async def test_a_jump_host_that_can_t_reach_the_host_says_so(
    bastion: Sshd, both: Path
) -> None:
    over = Overrides(port=1)
    async with make_pool() as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(await find_host(both, overrides=over))
    assert caught.value.reason is Reason.HOST_UNREACHABLE
    assert bastion.target in caught.value.message


async def test_losing_the_jump_host_ends_what_was_behind_it(
    bastion: Sshd, both: Path
) -> None:
    """A5 row 9: all waiting calls end, with the reason."""
    host = await find_host(both)
    async with make_pool() as pool, await pool.lease(host) as lease:
        sink = Collector()
        channel = await lease.open("echo up; sleep 60", sink)
        await sink.wait_for(b"up")
        await asyncio.to_thread(bastion.drop_connections)
        end = await channel.ended()
        assert end.lost is not None
        assert "was lost" in end.lost


async def test_a_proxy_command_carries_the_connection(
    sshd: Sshd, tmp_path: Path
) -> None:
    """AU-07: ProxyCommand, by the user's shell, tokens filled in, noise kept out."""
    if shutil.which("python3") is None:
        pytest.skip("no python3 on the PATH")
    relay = tmp_path / "relay.py"
    relay.write_text(
        "import os, socket, sys, threading\n"
        "print('noise on stderr', file=sys.stderr, flush=True)\n"
        "s = socket.create_connection((sys.argv[1], int(sys.argv[2])))\n"
        "def up():\n"
        "    while data := os.read(0, 65536):\n"
        "        s.sendall(data)\n"
        "    s.shutdown(socket.SHUT_WR)\n"
        "threading.Thread(target=up, daemon=True).start()\n"
        "while data := s.recv(65536):\n"
        "    os.write(1, data)\n"
    )
    file = tmp_path / "config"
    command = f"  ProxyCommand python3 '{relay}' %h %p\n"
    file.write_text(sshd.client_config(extra=command))
    async with make_pool() as pool, await pool.lease(await find_host(file)) as lease:
        assert (await run(lease, "echo through"))[1] == b"through\n"
        big, out, _ = await run(lease, "head -c 300000 /dev/zero")
        assert (big.exit_code, len(out)) == (0, 300_000)


async def test_a_proxy_command_that_fails_is_quoted(sshd: Sshd, tmp_path: Path) -> None:
    file = tmp_path / "config"
    command = "  ProxyCommand echo no way there >&2\n"
    file.write_text(sshd.client_config(extra=command))
    async with make_pool() as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(await find_host(file))
    assert caught.value.reason is Reason.HOST_UNREACHABLE
    assert "no way there" in caught.value.message


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback")
async def test_an_ipv6_literal_is_reached(tmp_path: Path) -> None:
    """AU-15: IPv6 literals."""
    with Sshd(tmp_path / "six", addresses=("::1",)) as six:
        over = Overrides(
            identity_file=str(six.key), known_hosts_file=str(six.known_hosts)
        )
        host = await find_host(six.config, six.target, over)
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert (await run(lease, "echo six"))[1] == b"six\n"


async def test_input_output_and_exit_status_are_exact(sshd: Sshd) -> None:
    """EX-10, EX-11: binary both ways, both streams apart, the true exit code."""
    host = await find_host(sshd.config)
    data = bytes(range(256)) * 20_000
    async with make_pool() as pool, await pool.lease(host) as lease:
        sink = Collector()
        channel = await lease.open("cat; echo oops >&2; exit 44", sink)
        await channel.write(data)
        channel.eof()
        assert (await channel.ended()).exit_code == 44
        assert sink.out == data
        assert sink.err == b"oops\n"
        end, _, _ = await run(lease, "kill -KILL $$")
        assert (end.signal, end.exit_code) == ("KILL", None)


async def test_a_command_of_bytes_arrives_as_it_is(sshd: Sshd) -> None:
    host = await find_host(sshd.config)
    async with make_pool() as pool, await pool.lease(host) as lease:
        sink = Collector()
        channel = await lease.open(b"printf %s '\xff\xfe' | od -An -tx1", sink)
        await channel.ended()
        assert sink.out.split() == [b"ff", b"fe"]


async def test_a_paused_reader_makes_the_host_wait_and_loses_nothing(
    sshd: Sshd,
) -> None:
    """EX-13, NF: memory stays flat while nobody reads; a sibling goes on."""
    host = await find_host(sshd.config)
    total = 20 * 1024 * 1024

    class Meter:
        seen = 0

        def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
            self.seen += len(data)

    async with make_pool() as pool, await pool.lease(host) as lease:
        meter = Meter()
        channel = await lease.open(f"head -c {total} /dev/zero", meter)
        channel.pause()
        at_pause = meter.seen
        assert (await run(lease, "echo sibling"))[1] == b"sibling\n"
        assert meter.seen == at_pause
        channel.resume()
        assert (await channel.ended()).exit_code == 0
        assert meter.seen == total


async def test_a_forced_command_is_no_posix_shell(tmp_path: Path) -> None:
    """Issue 3 item 9: recognised without an error being shown."""
    options = {"ForceCommand": "echo $SSH_ORIGINAL_COMMAND"}
    with Sshd(tmp_path / "forced", options=options) as forced:
        host = await find_host(forced.config)
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert (await lease.link.facts()).family == "other"
            assert (await run(lease, "hello"))[1] == b"hello\n"


async def test_a_server_without_a_shell_is_no_posix_shell(tmp_path: Path) -> None:
    async with Odd() as odd:
        host = odd.host(tmp_path / "kh")
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert (await lease.link.facts()).family == "other"
            assert (await run(lease, "print hi"))[1] == b"hi"
