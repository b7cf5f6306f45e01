"""Syncs are begun anew by themselves when the daemon dies or is restarted meanwhile."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fakes.interrupted import (
    BOTH,
    KINDS,
    RATE,
    SLOW,
    SMALL,
    Net,
    begun,
    drafts,
    filled,
    half,
    network,
    same,
)
from fakes.restarting import ENDS, crash, ended, restart
from fakes.syncing import Pair, tree
from fakes.tools import content, failure, tools
from fakes.watch import records, soon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


@pytest.fixture
def net(kind: str, tmp_path: Path) -> Iterator[Net]:
    with network(kind, tmp_path / "host") as one:
        yield one


def audited(world: World, job_id: str) -> None:
    """Expect the log to be whole, and to tell that it was begun anew, and how."""
    assert world.cli_json("audit", "--verify")["intact"]
    world.stop()
    found = [one for one in records(world) if one["event_type"] == "file_operation"]
    first, *_, again, last = found
    for field in ("direction", "source", "destination", "delete", "exclude"):
        assert again["metadata"][field] == first["metadata"][field], field
    assert again["client"] == first["client"]
    assert again["metadata"]["job_id"] == last["metadata"]["job_id"] == job_id
    assert again["metadata"]["resumed"] is True
    assert (last["phase"], last["result"], last["exit_code"]) == ("end", "exited", 0)
    assert last["metadata"]["created"] >= 1
    log = world.log.read_text()
    for trouble in ("incident", "was destroyed", "asynchronous generator"):
        assert trouble not in log, log


@BOTH
@ENDS
@KINDS
async def test_a_sync_goes_on_by_itself(
    net: Net, tmp_path: Path, way: str, end: Callable[[World], None]
) -> None:
    """FI-02, NF-15: the same job is begun anew; what had come whole is not sent again.

    What is counted is of the last run alone, and the note says so.
    """
    asked = {"delete": True, "exclude": ["*.log"], "request_id": "once"}
    async with begun(net, tmp_path, way, **asked) as (job_id, pair):
        await asyncio.to_thread(end, net.world)
        assert not (pair.destination / "large").exists()
        net.proxy.throttle(0)
        job = await ended(pair.ssh, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert "the next one goes on with it" in job["note"]
        assert "begun anew, and what is counted is of that last run" in job["note"]
        assert "the next one begins it anew" in job["stderr"]
        same(pair, but=("left.log",))
        assert len((await pair.ssh.told("ssh_job_list"))["jobs"]) == 1
    await asyncio.to_thread(audited, net.world, job_id)


@BOTH
@KINDS
async def test_what_is_told_holds_over_restarts(
    net: Net, tmp_path: Path, way: str
) -> None:
    """FI-02, NF-17: the same call is the same job, whose counts are of the last run."""
    async with tools(net.world, "--no-autostart") as ssh:
        pair = Pair(ssh, tmp_path, way)
        filled(pair)
        net.proxy.throttle(RATE)
        asked = pair.filled({"request_id": "once"})
        asking = asyncio.create_task(ssh.call("ssh_sync", **asked))
        await soon(partial(half, pair), "the half of it is there", 60)
        net.proxy.throttle(SLOW)
        await asyncio.to_thread(crash, net.world)
        assert failure(await asking)["reason"] == "DAEMON_LOST"
        net.proxy.throttle(0)
        told = content(await ssh.call("ssh_sync", **asked))
        assert told["status"] == "exited", told
        names = len(tree(pair.source)) + 1
        assert told["files"] == names
        assert 1 <= told["created"] <= 4
        assert told["created"] + told.get("updated", 0) + told["skipped"] == names
        assert "of that last run alone" in told["note"]
        assert "created large" in told["changes"]
        assert not any(change.startswith("created a0") for change in told["changes"])
        await asyncio.to_thread(restart, net.world)
        again = content(await ssh.call("ssh_sync", **asked))
        assert again == told


@BOTH
@KINDS
async def test_no_part_of_a_file_is_left(net: Net, tmp_path: Path, way: str) -> None:
    """FI-02: also where nothing else is deleted, and such names are left out."""
    async with begun(net, tmp_path, way, exclude=[".*"]) as (job_id, pair):
        await asyncio.to_thread(crash, net.world)
        net.proxy.throttle(0)
        job = await ended(pair.ssh, job_id)
        assert (job["status"], job["exit_code"]) == ("exited", 0), job
        assert drafts(pair) == []
        (pair.destination / "old").unlink()
        same(pair)


@BOTH
@KINDS
@pytest.mark.parametrize("dry", [True, False], ids=["dry", "real"])
async def test_it_dies_before_it_has_begun(
    net: Net, tmp_path: Path, way: str, *, dry: bool
) -> None:
    """FI-02: it is begun by the next daemon; a dry run changes nothing there either."""
    net.world.stop()
    net.world.start(HOLDFAST_FAILPOINT="sync.recorded", HOLDFAST_TESTING="1")
    async with tools(net.world, "--no-autostart") as ssh:
        pair = Pair(ssh, tmp_path, way)
        filled(pair)
        before = tree(pair.destination)
        asked = pair.filled({"request_id": "once", "delete": True, "dry_run": dry})
        error = failure(await ssh.call("ssh_sync", **asked))
        assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
        await asyncio.to_thread(crash, net.world)  # it is dead already
        told = content(await ssh.call("ssh_sync", **asked))
        assert told["status"] == "exited", told
        assert (told["created"], told["deleted"]) == (SMALL + 4, 1)
        if dry:
            assert tree(pair.destination) == before
        else:
            same(pair)
