"""Sockets that forwards listen on at a host: sshd leaves them behind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.services import echo, serve
from fakes.sshd import Sshd
from fakes.tools import served, served_at_home, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_sockets"),
    pytest.mark.needs_sshd,
]


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as one:
        one.settimeout(10)
        try:
            one.connect(str(path))
            one.sendall(b"ping")
            return one.recv(4) == b"ping"
        except OSError:
            return False


async def opened(world: World, path: Path, port: int) -> str:
    """Forward a socket of the host to a port of this machine; return which it is."""
    spec = f"{path}:127.0.0.1:{port}"
    told = await asyncio.to_thread(world.cli_json, "forward", "box", "-R", spec)
    assert answers(path)
    return str(told["forward_id"])


@contextlib.asynccontextmanager
async def forwarding(directory: Path, path: Path) -> AsyncGenerator[tuple[World, str]]:
    """Yield a daemon with such a forward, to what echoes, and which it is."""
    with serve(echo) as port, served_at_home(directory) as world:
        yield world, await opened(world, path, port)


@pytest.mark.parametrize("how", ["cut", "restart"])
async def test_a_socket_on_the_host_returns_and_goes(
    tmp_path: Path, short_path: Path, how: str
) -> None:
    """FW-10: after a cut its own socket was in its way; at its end it stayed."""
    path = short_path / "s"
    options = {"SetEnv": f"HOME={tmp_path}"}
    with (
        serve(echo) as port,
        Sshd(tmp_path, options=options) as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "config")) as world,
    ):
        ident = await opened(world, path, port)
        before = sshd.logins
        if how == "cut":
            proxy.rst()
        else:
            await asyncio.to_thread(sshd.stop)
            await asyncio.to_thread(sshd.start)
        await soon(lambda: sshd.logins > before, "it is logged in to again", 30)
        await soon(lambda: answers(path), "it answers again", 30)
        async with tools(world) as ssh:
            await ssh.told("ssh_forward_close", forward=ident)
        assert not path.exists()


async def test_a_stop_leaves_no_socket_on_the_host(
    tmp_path: Path, short_path: Path
) -> None:
    """FW-10, PK-05: nor does the daemon's own end leave one."""
    path = short_path / "s"
    async with forwarding(tmp_path, path) as (world, _):
        assert await asyncio.to_thread(world.stop) == 0
        assert not path.exists()


async def test_what_somebody_else_put_there_stays(
    tmp_path: Path, short_path: Path
) -> None:
    """FW-10: a socket that others serve by now is not deleted."""
    path = short_path / "s"
    async with forwarding(tmp_path, path) as (world, ident):
        path.unlink()
        with serve(echo, str(path)):
            async with tools(world) as ssh:
                await ssh.told("ssh_forward_close", forward=ident)
            assert answers(path)
