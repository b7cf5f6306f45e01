"""Copies to a host over a link that takes long for what is on its way already."""

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
# A window of 2 MiB takes three times as long as a channel may stand still.
RATE = 128 * KIB
LIMITS = f"{QUICK}copy_idle_seconds = 5\n"

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.xdist_group("copy_slow"),
    pytest.mark.needs_sshd,
    pytest.mark.timeout(180),
]


@pytest.mark.parametrize("many", [True, False], ids=["tree", "file"])
async def test_a_link_that_is_slow_and_whole(tmp_path: Path, *, many: bool) -> None:
    """NF-15: the host's answer to what was on its way was not waited for.

    A heap of small files was sent again and again, without an end.
    """
    (tmp_path / "sshd").mkdir()
    with (
        host_of_files(tmp_path / "sshd") as sshd,
        Proxy(sshd.port, rate=RATE) as proxy,
        served(proxy.config(sshd, tmp_path / "c"), more=ROOTS, limits=LIMITS) as world,
    ):
        async with tools(world, "--results", "structured") as ssh:
            ways = Ways(ssh, tmp_path, "upload")
            top = ways.source / "t"
            top.mkdir()
            count, size = (60, 40 * KIB) if many else (1, 2400 * KIB)
            for number in range(count):
                (top / f"{number}").write_bytes(os.urandom(size))
            before = proxy.up
            told = await ways.copy("t", recursive=True)
            assert told["status"] == "exited", told
            assert told["files"] == count
            assert proxy.up - before < 1.3 * count * size
