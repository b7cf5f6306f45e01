"""Remote forwards, when something comes between them and their host's answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.proxy import Proxy, Way
from fakes.services import echo, exchange, serve
from fakes.sshd import Sshd, free_port
from fakes.tools import Tools, content, failure, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_relisten"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sshd, Proxy]]:
    directory = tmp_path_factory.mktemp("sshd")
    options = {"SetEnv": f"HOME={directory}"}
    with Sshd(directory, options=options) as sshd, Proxy(sshd.port) as proxy:
        yield sshd, proxy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(net: tuple[Sshd, Proxy]) -> AsyncIterator[Tools]:
    sshd, proxy = net
    with served(proxy.config(sshd, sshd.directory / "through-the-proxy")) as world:
        async with tools(world) as one:
            yield one


@pytest.fixture
def network(net: tuple[Sshd, Proxy]) -> Iterator[Proxy]:
    yield net[1]
    net[1].heal()


def listens(port: int) -> bool:
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


async def bound(port: int) -> socket.socket:
    """Return a socket that holds a port, once nobody else does."""
    one = socket.socket()

    def held() -> bool:
        with contextlib.suppress(OSError):
            one.bind(("127.0.0.1", port))
            return True
        return False

    await soon(held, "the port is free")
    return one


async def comes(ssh: Tools, field: str, text: str) -> None:
    """Return when `text` is in a field of the newest forward, which must not end."""
    async with asyncio.timeout(40):
        while True:
            told = await ssh.told("ssh_forward_list", include_stopped=True)
            found = told["forwards"][0]
            if text in found.get(field, ""):
                return
            assert found["running"], found
            await moment()


async def test_a_cut_before_the_host_has_answered(network: Proxy, ssh: Tools) -> None:
    """FW-06: it is told as a lost connection, and another call opens it."""
    port = free_port()
    asked = {"direction": "remote", "remote_port": port, "local_port": 9}
    await ssh.told("ssh_exec", target="box", command="true")
    network.freeze(Way.DOWN)
    call = asyncio.create_task(ssh.call("ssh_forward_open", target="box", **asked))
    await soon(lambda: listens(port), "the host listens, and can't say so")
    network.rst()
    network.heal()
    assert failure(await call)["reason"] == "CONNECTION_LOST"
    await soon(lambda: not listens(port), "nobody listens any more")
    told = await ssh.told("ssh_forward_open", target="box", **asked)
    await ssh.told("ssh_forward_close", forward=told["forward_id"])


async def test_a_second_cut_while_it_returns(network: Proxy, ssh: Tools) -> None:
    """FW-10: it returns all the same, however often."""
    with serve(echo) as here:
        asked = {"direction": "remote", "remote_port": 0, "local_port": here}
        told = await ssh.told("ssh_forward_open", target="box", **asked)
        port = int(told["listen"].rpartition(":")[2])
        network.refuse()
        network.rst()
        with await bound(port):
            network.heal()
            # its link is there again, and it goes on asking for the port
            await comes(ssh, "last_error", "refuses to listen")
            network.freeze(Way.DOWN)
        await soon(lambda: listens(port), "the host listens, and can't say so")
        network.rst()
        network.heal()
        await comes(ssh, "state", "up")
        assert await asyncio.to_thread(exchange, told["listen"], b"x") == b"x"
        await ssh.told("ssh_forward_close", forward=told["forward_id"])


async def test_what_is_closed_while_the_daemon_stops_does_not_come_back(
    net: tuple[Sshd, Proxy], network: Proxy, tmp_path: Path
) -> None:
    """FW-10, NF-20: it is told as closed; the other durable one is there again."""
    sshd, _ = net
    config = network.config(sshd, tmp_path / "config")
    with serve(echo) as port, served(config) as world:
        asked = {"target": "box", "durable": True}
        async with tools(world, "--no-autostart") as ssh:
            goes = await ssh.told(
                "ssh_forward_open", **asked, direction="remote", remote_port=0,
                local_port=port,
            )  # fmt: skip
            stays = await ssh.told(
                "ssh_forward_open", **asked, direction="local", remote_port=port
            )
            network.freeze(Way.DOWN)
            before = network.up
            params = {"forward": goes["forward_id"]}
            call = await ssh.wire.start(
                "tools/call", {"name": "ssh_forward_close", "arguments": params}
            )
            await soon(lambda: network.up > before, "its host is asked to stop")
            stopping = asyncio.create_task(asyncio.to_thread(world.stop))
            await soon(lambda: "stopping" in world.log.read_text(), "it stops")
            network.heal()
            told = (await ssh.wire.reply(call))["result"]
            assert "isError" not in told, told
            await stopping
        saved = json.loads((world.state / "forwards.json").read_text())
        assert [row["id"] for row in saved] == [stays["forward_id"]]
        await asyncio.to_thread(world.start)
        async with tools(world, "--no-autostart") as ssh:
            async with asyncio.timeout(40):
                while not (listed := (await ssh.told("ssh_forward_list"))["forwards"]):
                    await moment()
            assert [one["forward_id"] for one in listed] == [stays["forward_id"]]
            await ssh.told("ssh_forward_close", forward=stays["forward_id"])


async def test_a_yes_that_comes_too_late(
    net: tuple[Sshd, Proxy], network: Proxy, tmp_path: Path
) -> None:
    """FW-06: the host listened on for nobody, and its port was in use by ourselves."""
    config = network.config(net[0], tmp_path / "through-the-proxy")
    limits = "channel_open_seconds = 10\n"
    port = free_port()
    asked = {"direction": "remote", "remote_port": port, "local_port": 9}
    with served(config, limits=limits) as world:
        async with tools(world) as ssh:
            await ssh.told("ssh_exec", target="box", command="true")
            network.freeze(Way.DOWN)
            call = ssh.call("ssh_forward_open", target="box", **asked)
            assert failure(await call)["reason"] == "CONNECT_TIMEOUT"
            await soon(lambda: listens(port), "the host listens, and can't say so")
            network.heal()
            await soon(lambda: not listens(port), "the host listens no more")
            told = await ssh.told("ssh_forward_open", target="box", **asked)
            await ssh.told("ssh_forward_close", forward=told["forward_id"])


async def test_one_agent_closes_what_another_asks_for(
    net: tuple[Sshd, Proxy], network: Proxy, tmp_path: Path
) -> None:
    """FW-10, NF-14: it was told to be open already, and was gone a moment later."""
    config = network.config(net[0], tmp_path / "through-the-proxy")
    port = free_port()
    asked = {"direction": "remote", "remote_port": port, "local_port": 9}
    with served(config) as world:
        async with tools(world) as ssh, tools(world, client="other") as other:
            first = await ssh.told("ssh_forward_open", target="box", **asked)
            network.freeze(Way.DOWN)
            call = ssh.call("ssh_forward_close", forward=first["forward_id"])
            closing = asyncio.create_task(call)
            await soon(
                lambda: not listens(port), "it listens no more, and can't say so"
            )
            call = other.call("ssh_forward_open", target="box", **asked)
            opening = asyncio.create_task(call)
            await asyncio.wait({opening}, timeout=1)
            network.heal()
            assert content(await closing)["was_running"]
            told = content(await opening)
            (one,) = (await ssh.told("ssh_forward_list"))["forwards"]
            assert (told["forward_id"], one["state"]) == (one["forward_id"], "up")
            assert listens(port)


async def test_who_asks_for_it_again_uses_it(
    net: tuple[Sshd, Proxy], tmp_path: Path
) -> None:
    """NF-14: what was told to be open already was closed for want of use at once."""
    config = net[1].config(net[0], tmp_path / "through-the-proxy")
    limits = "forward_idle_seconds = 8\nreap_seconds = 0.2\n"
    asked = {"direction": "local", "remote_port": net[0].port}
    with served(config, limits=limits) as world:
        async with tools(world) as ssh:
            first = await ssh.told("ssh_forward_open", target="box", **asked)
            uptime = 0
            while uptime < 10:
                told = await ssh.told("ssh_forward_open", target="box", **asked)
                assert told["forward_id"] == first["forward_id"]
                uptime = told["uptime_seconds"]
                await moment()
