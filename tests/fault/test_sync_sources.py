"""Syncs whose source here goes away, or is another one, before the host lets us in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import sshd_binary
from fakes.syncing import Pair, engine_and_network, tree
from fakes.tools import failure, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("sync_sources"),
    pytest.mark.needs_sshd,
]


def gone(source: Path) -> None:
    source.rename(source.with_name("elsewhere"))


def unmounted(source: Path) -> None:
    source.rename(source.with_name("elsewhere"))
    source.mkdir()


@pytest.mark.parametrize("kind", ["none-there", "rsync"])
@pytest.mark.parametrize("change", [gone, unmounted])
async def test_what_is_gone_empties_no_host(
    tmp_path: Path, kind: str, change: Callable[[Path], None]
) -> None:
    """FI-02: a disk that went away while the host was logged in to emptied it."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    (tmp_path / "host").mkdir()
    with engine_and_network(
        kind, tmp_path / "host", "connect_timeout_seconds = 60\n"
    ) as (world, proxy):
        async with tools(world) as ssh, tools(world, client="other") as other:
            pair = Pair(ssh, tmp_path, "upload")
            pair.fill({"a": b"1", "d/b": b"2"})
            pair.fill({"a": b"1", "old": b"3"}, pair.destination)
            before = tree(pair.destination)
            proxy.freeze()
            asking = asyncio.create_task(
                ssh.call("ssh_sync", **pair.filled({"delete": True}))
            )

            async def running() -> bool:
                jobs = (await other.told("ssh_job_list", running_only=True))["jobs"]
                return bool(jobs)

            async with asyncio.timeout(40):
                while not await running():
                    await moment()
            change(pair.source)
            proxy.heal()
            error = failure(await asking)
            assert error["ran"] == "no"
            assert str(pair.source) in error["message"]
            assert tree(pair.destination) == before
            assert not (pair.source / "a").exists()
            if change is gone:
                assert not pair.source.exists()
