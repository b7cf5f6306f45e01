"""Forwards are opened by their own tool only, and leave a trail."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.services import dial, echo, exchange, serve
from fakes.sshd import free_port
from fakes.tools import Tools, served, tools
from fakes.watch import records, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_only_way"),
    pytest.mark.needs_sshd,
]

OPTIONS = ["LocalForward", "RemoteForward", "DynamicForward", "localforward"]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd, more='allowed_hosts = ["box"]\n') as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, target="") as one:
        yield one


def listens(port: int) -> bool:
    try:
        dial(f"127.0.0.1:{port}").close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("tool", ["ssh_exec", "ssh_connect", "ssh_session_open"])
async def test_no_option_of_a_connection_opens_one(
    ssh: Tools, tool: str, option: str
) -> None:
    """FW-07: refused by name, in any spelling; nothing listens."""
    port = free_port()
    arguments: dict[str, Any] = {"command": "true"} if tool == "ssh_exec" else {}
    value = str(port) if option.lower().startswith("dyn") else f"{port} 127.0.0.1:22"
    error = await ssh.refused(
        tool, target="box", connect={"options": {option: value}}, **arguments
    )
    assert error["ran"] == "no"
    assert option.lower() in error["message"].lower()
    assert not listens(port)


@pytest.mark.parametrize("spelling", ["-L{p}:127.0.0.1:22", "box -D {p}", "-D{p} box"])
async def test_no_target_opens_one(ssh: Tools, spelling: str) -> None:
    """FW-07: a target is a host and nothing else."""
    port = free_port()
    error = await ssh.refused(
        "ssh_exec", target=spelling.format(p=port), command="true"
    )
    assert error["ran"] == "no"
    assert not listens(port)


async def test_forwards_of_the_ssh_configuration_are_not_opened(
    sshd: Sshd, tmp_path: Path
) -> None:
    """FW-07: as ssh itself would with the alias."""
    ports = [free_port(), free_port(), free_port()]
    config = tmp_path / "config"
    config.write_text(
        sshd.client_config(
            extra=f"  LocalForward {ports[0]} 127.0.0.1:22\n"
            f"  DynamicForward {ports[1]}\n"
            f"  RemoteForward {ports[2]} 127.0.0.1:22\n"
        )
    )
    with served(config) as one:
        async with tools(one) as ssh:
            assert (await ssh.run("echo on"))["stdout"] == "on\n"
            assert not any(listens(port) for port in ports)
            assert (await ssh.told("ssh_forward_list"))["count"] == 0


async def test_a_forward_leaves_a_trail(ssh: Tools, world: World) -> None:
    """SC-05, FW-01: who opened what to where, and who closed it."""
    with serve(echo) as port:
        told = await ssh.told(
            "ssh_forward_open", target="box", direction="local", remote_port=port
        )
        assert await asyncio.to_thread(exchange, told["listen"], b"a") == b"a"
        await ssh.told("ssh_forward_close", forward=told["forward_id"])

    def trail() -> list[dict[str, Any]]:
        found = [row for row in records(world) if row["event_type"] == "forward"]
        return found if len(found) >= 4 else []

    rows = await soon(trail, "four records")
    methods = [row["metadata"]["method"] for row in rows]
    assert methods.count("ForwardService/OpenForward") == 2
    assert methods.count("ForwardService/CloseForward") == 2
    ends = [row for row in rows if row.get("result") == "ok"]
    assert [row["metadata"]["forward_id"] for row in ends] == [told["forward_id"]] * 2
    assert ends[0]["metadata"]["connect"] == f"127.0.0.1:{port}"
    assert ends[0]["metadata"]["listen"] == told["listen"]
    assert ends[0]["server_name"] == "box"


async def test_a_host_that_is_not_allowed_gets_none(
    ssh: Tools, world: World, sshd: Sshd
) -> None:
    """SC-03: the allow-lists hold; another client's forwards there stay hidden."""
    error = await ssh.refused(
        "ssh_forward_open", target="elsewhere.invalid", direction="dynamic"
    )
    assert error["reason"] in {"HOST_NOT_ALLOWED", "HOST_NOT_FOUND"}
    told = await ssh.told("ssh_forward_open", target="box", direction="dynamic")
    only = {"SSH_ALLOWED_HOSTS": "other"}
    async with tools(world, target="", env=only) as narrow:
        assert (await narrow.told("ssh_forward_list"))["count"] == 0
        error = await narrow.refused("ssh_forward_close", forward=told["forward_id"])
        assert error["reason"] == "HOST_NOT_ALLOWED"
    await ssh.told("ssh_forward_close", forward=told["forward_id"])
