"""Records on disk that are not as this release writes them: each costs only itself."""

from __future__ import annotations

import copy
import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from fakes.sshd import Sshd
from fakes.tools import served, tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd]

# What may stand where something else is meant.
VALUES: list[Any] = [None, True, -1, 2.5, "odd", "\udcff", [], ["odd"], {}, {"odd": 1}]


def damaged(row: Any) -> Iterator[Any]:
    """Return copies of it, each with one value lost or another one."""
    if isinstance(row, dict):
        for key in row:
            less = copy.deepcopy(row)
            del less[key]
            yield less
            for one in damaged(row[key]):
                yield {**copy.deepcopy(row), key: one}
    elif isinstance(row, list):
        for at, inner in enumerate(row):
            for one in damaged(inner):
                yield [*row[:at], one, *row[at + 1 :]]
    yield from (value for value in VALUES if value != row)


def spread(directory: Path, prefix: str) -> int:
    """Put copies beside each record there, each with another damage."""
    count = 0
    for place in list(directory.iterdir()):
        for file in place.glob("*.json"):
            for one in damaged(json.loads(file.read_text())):
                count += 1
                other = directory / f"{prefix}{count:05}"
                shutil.copytree(place, other)
                if isinstance(one, dict) and one.get("id") == place.name:
                    one["id"] = other.name
                (other / file.name).write_text(json.dumps(one))
    return count


@pytest.mark.timeout(180)
async def test_a_record_that_is_odd_is_alone_in_that(tmp_path: Path) -> None:
    """NF-20, NF-01: another release's, or a disk's: all else is there, and answers."""
    with Sshd(tmp_path) as sshd, served(sshd) as world:
        async with tools(world) as ssh:
            job = (await ssh.run("echo job"))["job_id"]
            kept = (await ssh.run("echo kept; exit 3", durable=True))["job_id"]
            about = {"target": "box", "direction": "local", "remote_host": "localhost"}
            forward = (
                await ssh.told(
                    "ssh_forward_open", remote_port=sshd.port, durable=True, **about
                )
            )["forward_id"]
            session = (
                await ssh.told("ssh_session_open", target="box", durability="held")
            )["session_id"]
            await ssh.told("ssh_session_write", session=session, input="echo held\n")
        world.stop()
        assert spread(world.state / "jobs", "j") > 300
        assert spread(world.state / "sessions", "s") > 150
        saved = next(world.state.rglob("forwards.json"))
        rows = json.loads(saved.read_text())
        odd = [one for one in damaged(rows[0]) if one not in rows]
        saved.write_text(json.dumps([*odd, *rows]))
        world.start()
        async with tools(world) as ssh:
            jobs = (await ssh.told("ssh_job_list"))["jobs"]
            assert {job, kept} <= {one["job_id"] for one in jobs}
            assert (await ssh.read(kept, offset=0))["stdout"] == "kept\n"
            rows = (await ssh.told("ssh_session_list", include_exited=True))["sessions"]
            assert session in {one["session_id"] for one in rows}
            rows = (await ssh.told("ssh_forward_list"))["forwards"]
            assert forward in {one["forward_id"] for one in rows}
            for one in rows:
                await ssh.told("ssh_forward_close", forward=one["forward_id"])
            # those that can be had answer, each
            for one in jobs:
                reply = await ssh.call("ssh_job_read", job_id=one["job_id"])
                assert "INTERNAL" not in json.dumps(reply), one
        assert "Traceback" not in world.log.read_text()
