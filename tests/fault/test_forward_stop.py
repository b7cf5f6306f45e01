"""A forward that is being opened while the daemon stops."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, failure, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


async def test_who_waits_for_a_forward_is_told_that_the_daemon_stops(
    tmp_path: Path,
) -> None:
    """FW-01, NF-20: that is no fault of the daemon, and nothing was opened."""
    with Sshd(tmp_path / "sshd") as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        limits = f"{QUICK}connect_timeout_seconds = 60\n"
        with served(config, limits=limits) as world:
            async with tools(world, "--no-autostart") as ssh:
                proxy.freeze()
                wanted = {
                    "target": "box",
                    "direction": "local",
                    "local_port": 0,
                    "remote_host": "127.0.0.1",
                    "remote_port": sshd.port,
                }
                call = await ssh.wire.start(
                    "tools/call", {"name": "ssh_forward_open", "arguments": wanted}
                )
                await soon(lambda: proxy.accepted, "it logs in")
                assert await asyncio.to_thread(world.stop) == 0
                error = failure((await ssh.wire.reply(call))["result"])
        assert (error["reason"], error["ran"]) == ("DRAINING", "no"), error
