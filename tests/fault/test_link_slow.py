"""A link that is slow is none that is lost."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from fakes.copying import Ways
from fakes.filing import host_of_files
from fakes.proxy import Proxy
from fakes.syncing import ROOTS
from fakes.tools import QUICK, served, tools

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
# The server says something every two seconds, and a keepalive's answer takes twenty.
RATE = 50 * KIB
LIMITS = f"{QUICK}keepalive_seconds = 3\nkeepalive_misses = 3\n"

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


async def test_what_is_sent_slowly_ends_no_connection(tmp_path: Path) -> None:
    """NF-09: four keepalives waited behind it, and a session on it was cut off."""
    (tmp_path / "sshd").mkdir()
    with (
        host_of_files(tmp_path / "sshd") as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "c"), more=ROOTS, limits=LIMITS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            opened = {"target": "box", "session_name": "s", "durability": "held"}
            await ssh.told("ssh_session_open", **opened)
            ways = Ways(ssh, tmp_path, "upload")
            (ways.source / "f").write_bytes(os.urandom(1000 * KIB))
            proxy.throttle(RATE)
            told = await ways.copy("f")
            assert told["status"] == "exited", told
            proxy.throttle(0)
            rows = (await ssh.told("ssh_session_list"))["sessions"]
            assert [row["running"] for row in rows] == [True], rows
            told = await ssh.told("ssh_session_run", session="s", command="echo on")
            assert told["stdout"] == "on\n"
