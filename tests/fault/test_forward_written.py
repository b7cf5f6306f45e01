"""Durable forwards on disk that this release can't read, or can't read for once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes.services import echo, exchange, serve
from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Sshd(tmp_path) as host, served(host) as one:
        yield one


async def opened(ssh: Tools, **arguments: Any) -> dict[str, Any]:
    asked = {"target": "box", "direction": "local", "durable": True, **arguments}
    return await ssh.told("ssh_forward_open", **asked)


def answers(address: str) -> bool:
    try:
        return exchange(address, b"ping") == b"ping"
    except OSError:
        return False


async def test_one_of_a_newer_release_outlives_a_downgrade(world: World) -> None:
    """NF-20: the older daemon forgot it at the next change of any other."""
    file = world.state / "forwards.json"
    with serve(echo) as port:
        async with tools(world) as ssh:
            address = (await opened(ssh, remote_port=port, name="plain"))["listen"]
        await asyncio.to_thread(world.stop)
        (row,) = json.loads(file.read_text())
        newer = {**row, "id": "f-newer", "direction": "sideways", "listen": {"at": 1}}
        file.write_text(json.dumps([row, newer]))
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh:
            await soon(lambda: answers(address), "it is up")
            await opened(ssh, remote_port=port, remote_host="localhost", name="more")
            assert newer in json.loads(file.read_text())
            for name in ("plain", "more"):
                await ssh.told("ssh_forward_close", forward=name)
        await asyncio.to_thread(world.stop)
        assert json.loads(file.read_text()) == [newer]


async def test_a_file_that_cannot_be_read_is_not_written_over(world: World) -> None:
    """NF-20: torn, or restored for another user: all in it were lost for good."""
    file = world.state / "forwards.json"
    with serve(echo) as port:
        async with tools(world) as ssh:
            await opened(ssh, remote_port=port, name="plain")
        await asyncio.to_thread(world.stop)
        torn = file.read_text()[:-4]
        file.write_text(torn)
        await asyncio.to_thread(world.start)
        assert file.read_text() == torn
        async with tools(world) as ssh:
            more = await opened(ssh, remote_port=port, name="more")
            (row,) = json.loads(file.read_text())
            assert row["id"] == more["forward_id"]
            await ssh.told("ssh_forward_close", forward="more")
    (aside,) = world.state.glob("forwards.json.unread.*")
    assert aside.read_text() == torn


async def test_a_record_without_an_address_lets_nobody_in(world: World) -> None:
    """FW-03, NF-20: no address is every address; the file was believed."""
    file = world.state / "forwards.json"
    with serve(echo) as port:
        async with tools(world) as ssh:
            told = await opened(ssh, remote_port=port)
        await asyncio.to_thread(world.stop)
        (row,) = json.loads(file.read_text())
        file.write_text(json.dumps([{**row, "listen": ["", row["listen"][1], ""]}]))
        await asyncio.to_thread(world.start)
        async with tools(world) as ssh, asyncio.timeout(40):
            while True:
                rows = await ssh.told("ssh_forward_list", include_stopped=True)
                (found,) = rows["forwards"]
                if found["state"] == "stopped":
                    break
                await moment()
            assert not answers(told["listen"])
        assert [one["id"] for one in json.loads(file.read_text())] == [row["id"]]


async def test_one_of_an_older_release_comes_back(world: World) -> None:
    """NF-20: it wrote no default port of the client."""
    file = world.state / "forwards.json"
    with serve(echo) as port:
        async with tools(world) as ssh:
            told = await opened(ssh, remote_port=port)
        await asyncio.to_thread(world.stop)
        (row,) = json.loads(file.read_text())
        del row["default_port"]
        file.write_text(json.dumps([row]))
        await asyncio.to_thread(world.start)
        await soon(lambda: answers(told["listen"]), "it is up")
