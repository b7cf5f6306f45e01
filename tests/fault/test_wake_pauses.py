"""Who pauses between two tries of a host, when this machine wakes."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fakes.tools import Tools

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]

LIMITS = (
    "wake_check_seconds = 0.2\nwake_gap_seconds = 1\nwake_probe_seconds = 1\n"
    "login_pause_seconds = 60\nlogin_pause_max_seconds = 60\n"
)


async def _forward(ssh: Tools, reached: Callable[[dict[str, Any]], bool]) -> None:
    async with asyncio.timeout(40):
        while True:
            (one,) = (await ssh.told("ssh_forward_list"))["forwards"]
            if reached(one):
                return
            await moment()


async def test_a_forward_comes_back_at_once_after_a_sleep(tmp_path: Path) -> None:
    """NF-09, FW-06: its host is tried then, and not when a long pause is over.

    The daemon is stopped as a sleeping machine stops it; half a minute at least is left
    of the pause.
    """
    with Sshd(tmp_path / "sshd") as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        with served(config, limits=LIMITS) as world:
            async with tools(world) as ssh:
                await ssh.told(
                    "ssh_forward_open",
                    target="box", direction="local", local_port=0,
                    remote_host="127.0.0.1", remote_port=sshd.port,
                )  # fmt: skip
                proxy.refuse()
                proxy.rst()
                await _forward(
                    ssh,
                    lambda one: (
                        "state" in one
                        and one["state"] == "away"
                        and "connection was lost" not in one["last_error"]
                    ),
                )
                proxy.heal()
                os.kill(world.pid, signal.SIGSTOP)
                await asyncio.sleep(1.6)  # the sleep's own length
                os.kill(world.pid, signal.SIGCONT)
                await _forward(ssh, lambda one: one["state"] == "up")
