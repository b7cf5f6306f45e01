"""Calls about sessions that are made again under one request_id are done once."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.audit import records
from fakes.tools import Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("session_once"),
    pytest.mark.needs_sshd,
]
OUT = r"(?m)^out$"


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module", params=["held", "remote"])
async def session(ssh: Tools, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    opened = await ssh.told("ssh_session_open", target="box", durability=request.param)
    yield str(opened["session_id"])
    await ssh.told("ssh_session_close", session=opened["session_id"], force=True)


async def test_a_session_is_opened_once(world: World, ssh: Tools) -> None:
    """NF-17, SE-01: the id was taken and not heeded, so each call opened another."""
    asked = {"target": "box", "durability": "held", "request_id": "open"}
    one, two = [await ssh.told("ssh_session_open", **asked) for _ in range(2)]
    # as after a crash of the first one, whose client starts another
    async with tools(world) as other:
        three = await other.told("ssh_session_open", **asked)
    assert [each["session_id"] for each in (two, three)] == [one["session_id"]] * 2
    assert (one["created"], two["created"], two["reused"]) == (True, True, False)
    error = await ssh.refused("ssh_session_open", **{**asked, "cwd": "/"})
    assert (error["reason"], error["ran"]) == ("REQUEST_ID_REUSED", "no")
    await ssh.told("ssh_session_close", session=one["session_id"], force=True)


async def test_keys_are_typed_once(
    world: World, ssh: Tools, session: str, tmp_path: Path
) -> None:
    """NF-17, SE-03: the same answer, and nothing is typed a second time."""
    runs = tmp_path / "runs"
    keys = f"echo run >> {runs}; echo ou''t\n"
    asked = {"session": session, "input": keys, "request_id": f"type-{session}"}
    asked |= {"until": OUT}
    for told in [await ssh.told("ssh_session_write", **asked) for _ in range(2)]:
        assert re.search(OUT, told["output"])
        assert told["bytes_written"] == len(keys)
    # it runs behind whatever was typed
    await ssh.told("ssh_session_run", session=session, command="true")
    assert runs.read_text() == "run\n"
    error = await ssh.refused("ssh_session_write", **{**asked, "input": "ls\n"})
    assert (error["reason"], error["ran"]) == ("REQUEST_ID_REUSED", "no")
    # and so says the evidence

    def ends() -> list[dict[str, Any]]:
        kept = [record["metadata"] for record in records(world.state / "audit")]
        told = [one for one in kept if one.get("request_id") == asked["request_id"]]
        return told if any("joined" in one for one in told) else []

    kept = await soon(ends, "both calls are recorded")
    assert [one["bytes_typed"] for one in kept if "bytes_typed" in one] == [len(keys)]
    assert [one["joined"] for one in kept if "joined" in one] == [True]


async def test_keys_that_were_refused_may_be_typed_again(
    ssh: Tools, world: World, session: str
) -> None:
    """NF-17: what was not done leaves the id free."""
    asked = {"session": session, "input": "\n", "request_id": f"busy-{session}"}
    async with tools(world, client="other") as other:
        job = await other.told(
            "ssh_session_run", session=session, command="exec 3<&0; sleep 300",
            wait_seconds=0,
        )  # fmt: skip
        error = await ssh.refused("ssh_session_write", **asked)
        assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
        await other.stop(job["job_id"])
    assert (await ssh.told("ssh_session_write", **asked))["bytes_written"] == 1


async def test_a_command_that_ends_its_session_is_told_again(
    ssh: Tools, session: str
) -> None:
    """NF-17, EX-20: the second call was told that nothing had been typed."""
    asked = {"session": session, "command": "exit 3", "request_id": f"end-{session}"}
    one, two = [await ssh.told("ssh_session_run", **asked) for _ in range(2)]
    assert (two["job_id"], two.get("exit_code")) == (
        one["job_id"],
        one.get("exit_code"),
    )
    error = await ssh.refused("ssh_session_run", session=session, command="true")
    assert (error["reason"], error["ran"]) == ("SESSION_ENDED", "no")


async def test_a_file_is_added_to_once_by_whichever_shim(
    world: World, ssh: Tools, tmp_path: Path
) -> None:
    """NF-17: a shim that was started anew had ids of its own, and added it again."""
    path = tmp_path / "file"
    asked = {"target": "box", "path": str(path), "content": "x", "mode": "append"}
    async with tools(world) as first:
        await first.told("ssh_file_write", **asked, request_id="add")
        first.wire.process.kill()
        await first.wire.ended(10)
    await ssh.told("ssh_file_write", **asked, request_id="add")
    assert path.read_text() == "x"
