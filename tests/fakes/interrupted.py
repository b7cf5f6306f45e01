"""Syncs of one large file and some small ones, in whose middle something happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from fakes.sshd import sshd_binary
from fakes.syncing import WAYS, Pair, engine_and_network, tree
from fakes.tools import tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from fakes.proxy import Proxy
    from fakes.tools import Tools
    from fakes.world import World

MIB = 1024 * 1024
LARGE = int(os.environ.get("HOLDFAST_SYNC_RESTART_MIB", "4")) * MIB
# The small ones come at once; the large one takes until the test goes on.
RATE = LARGE / 8
SLOW = MIB / 16
SMALL = 20

BOTH = pytest.mark.parametrize("way", WAYS)
KINDS = pytest.mark.parametrize("kind", ["rsync", "none-there"])


class Net(NamedTuple):
    """A daemon, and the network between it and its host."""

    world: World
    proxy: Proxy


@contextlib.contextmanager
def network(kind: str, directory: Path) -> Generator[Net]:
    """Run a daemon and a host, where both or only this side have rsync."""
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    directory.mkdir()
    with engine_and_network(kind, directory) as (world, proxy):
        yield Net(world, proxy)


def filled(pair: Pair) -> None:
    """Make what is synced, and something that is not in it."""
    pair.fill({f"a{number:02}": os.urandom(1_000) for number in range(SMALL)})
    pair.fill({"large": os.urandom(LARGE), "z/deep": b"1", "left.log": b"2"})
    pair.fill({"old": b"3"}, pair.destination)


def drafts(pair: Pair) -> list[Path]:
    """Return the parts of the large file that have come, before it is put in place."""
    return list(pair.destination.glob(".large*"))


def half(pair: Pair) -> bool:
    """Whether a part of the large file has come, and the small ones are there."""
    with contextlib.suppress(FileNotFoundError):
        part = any(draft.stat().st_size > 0 for draft in drafts(pair))
        small = (pair.destination / f"a{number:02}" for number in range(SMALL))
        return part and all(path.exists() for path in small)
    return False


async def syncing(ssh: Tools) -> str:
    """Return the job that syncs."""
    (job,) = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
    assert job["command"].startswith("sync ")
    return str(job["job_id"])


@contextlib.asynccontextmanager
async def begun(
    net: Net, place: Path, way: str, **arguments: Any
) -> AsyncGenerator[tuple[str, Pair]]:
    """Have an agent sync; in the middle yield the job, and another agent's pair."""
    async with (
        tools(net.world, "--no-autostart", client="first") as one,
        tools(net.world, "--no-autostart", client="other") as other,
    ):
        pair = Pair(other, place, way)
        filled(pair)
        net.proxy.throttle(RATE)
        asking = asyncio.create_task(one.call("ssh_sync", **pair.filled(arguments)))
        await soon(partial(half, pair), "the half of it is there", 60)
        net.proxy.throttle(SLOW)
        job_id = await syncing(other)
        yield job_id, pair
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


def same(pair: Pair, *, but: tuple[str, ...] = ()) -> None:
    """Expect both to be alike, and nothing else there."""
    wanted = {name: what for name, what in tree(pair.source).items() if name not in but}
    assert tree(pair.destination) == wanted
