"""What holdfast lets go of is let go of, though nobody at the other end helps."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import pytest

from fakes.links import Collector, find_host, make_pool
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools
from fakes.watch import moment
from holdfast_daemon.errors import LimitError

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host

MIB = 1024 * 1024
# far above what is waited for a server's word, and below all other limits
SECONDS = 15

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


@pytest.mark.parametrize("size", [MIB, 8 * MIB], ids=["taken", "unsent"])
async def test_a_channel_is_over_once_it_is_closed(tmp_path: Path, size: int) -> None:
    """NF-09: its command reads none of its input, so the server never says so."""
    with Sshd(tmp_path / "sshd") as sshd:
        host = await find_host(sshd.config)
        async with make_pool() as pool, await pool.lease(host) as lease:
            sink = Collector()
            channel = await lease.open("echo begun; exec sleep 60", sink)
            await sink.wait_for(b"begun")
            writing = asyncio.create_task(channel.write(b"x" * size))
            await asyncio.wait({writing}, timeout=SECONDS if size == MIB else 1)
            assert writing.done() is (size == MIB)
            channel.close()
            async with asyncio.timeout(SECONDS):
                end = await channel.ended()
            assert end.exit_code is None
            assert end.lost == "the channel was closed by holdfast"
            with contextlib.suppress(BrokenPipeError):
                async with asyncio.timeout(SECONDS):
                    await writing


async def test_a_stop_that_can_t_end_a_command_comes_to_an_end(tmp_path: Path) -> None:
    """EX-15: a device passes no signals on, and its command takes no input."""
    device = tmp_path / "device"
    device.write_text(
        "#!/bin/sh\ntrap '' TERM HUP\n"
        'case $SSH_ORIGINAL_COMMAND in printf*) echo "% Invalid input detected" ;;\n'
        "*) echo begun; exec sleep 60 ;; esac\n"
    )
    device.chmod(0o755)
    options = {"ForceCommand": str(device)}
    with Sshd(tmp_path / "sshd", options=options) as sshd, served(sshd) as world:
        async with tools(world) as ssh:
            job = await ssh.start("show all", stdin="x" * MIB)
            await ssh.until(job, "begun")
            async with asyncio.timeout(SECONDS):
                told = await ssh.stop(job)
                assert told["stopped"] is False
                assert "passes no signals on" in told["note"]
                told = await ssh.ended(job)
            assert told["status"] == "cancelled"
            assert "exit_code" not in told


async def _stir(pool: Pool, host: Host) -> None:
    while True:
        (await pool.ride(host)).release()
        await moment()


async def test_who_waits_for_a_person_s_connection_is_told_in_time(
    tmp_path: Path,
) -> None:
    """NF-04: however often others take and give back something meanwhile."""
    with Sshd(tmp_path / "sshd") as sshd:
        host = await find_host(sshd.config)
        async with (
            make_pool(channels_per_connection=1, channel_open_seconds=1) as pool,
            await pool.lease(host) as lease,
        ):
            lease.entry.attended = True
            stirring = asyncio.create_task(_stir(pool, host))
            with pytest.raises(LimitError):
                async with asyncio.timeout(SECONDS):
                    await pool.lease(host)
            stirring.cancel()
            await asyncio.gather(stirring, return_exceptions=True)


async def test_a_kept_shell_is_not_given_up_for_what_a_person_mends(
    tmp_path: Path,
) -> None:
    """NF-09: a login that fails for now, here, says nothing of the shell there."""
    home, revoked = tmp_path / "sshd", tmp_path / "revoked"
    revoked.touch()
    with (
        Sshd(home, options={"SetEnv": f"HOME={home}"}) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        extra = f"  RevokedHostKeys {revoked}\n"
        config = proxy.config(sshd, tmp_path / "config", extra=extra)
        with served(config, limits=QUICK) as world:
            async with tools(world) as ssh:
                await ssh.told("ssh_session_open", target="box", session_name="s")
                told = await ssh.told("ssh_session_run", session="s", command="echo $$")
                shell = told["stdout"]
                revoked.write_text("ssh-ed25519 no key at all\n")
                proxy.rst()
                told = await ssh.refused("ssh_session_write", session="s", input="x")
                assert told["ran"] == "no"
                assert "RevokedHostKeys" in told["message"]
                revoked.write_text("")
                told = await ssh.told("ssh_session_run", session="s", command="echo $$")
                assert told["stdout"] == shell
                await ssh.told("ssh_session_close", session="s", force=True)
