"""A remote forward whose target answers late, and a link that is cut meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.services import dial
from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import Generator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_slow_target"),
    pytest.mark.needs_sshd,
]

_QUIET_SECONDS = 0.5


@contextlib.contextmanager
def full() -> Generator[tuple[socket.socket, list[socket.socket]]]:
    """Yield a server that lets nobody else in, and those who wait for it."""
    waiting: list[socket.socket] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        server.settimeout(20)
        try:
            while True:
                one = socket.socket()
                waiting.append(one)
                one.settimeout(_QUIET_SECONDS)
                try:
                    one.connect(server.getsockname())
                except TimeoutError:
                    break
            one.close()
            waiting.pop()
            yield server, waiting
        finally:
            for one in waiting:
                one.close()


def connecting(port: int) -> bool:
    """Whether somebody here waits to be let in at a port."""
    with Path("/proc/net/tcp").open(encoding="ascii") as file:
        rows = [line.split() for line in file]
    wanted = f"0100007F:{port:04X}"
    return any(row[2] == wanted and row[3] == "02" for row in rows)


async def row(ssh: Tools) -> dict[str, Any]:
    (found,) = (await ssh.told("ssh_forward_list"))["forwards"]
    return dict(found)


async def test_who_is_let_in_after_a_cut_is_let_go(tmp_path: Path) -> None:
    """FW-02, FW-10: the connection to the target stayed open, for nobody."""
    options = {"SetEnv": f"HOME={tmp_path}"}
    with (
        full() as (server, waiting),
        Sshd(tmp_path, options=options) as sshd,
        Proxy(sshd.port) as proxy,
        served(proxy.config(sshd, tmp_path / "config")) as world,
    ):
        port = server.getsockname()[1]
        async with tools(world) as ssh:
            told = await ssh.told(
                "ssh_forward_open",
                target="box",
                direction="remote",
                remote_port=0,
                local_port=port,
            )
            with dial(told["listen"]):
                await soon(lambda: connecting(port), "the target is asked")
                proxy.rst()
                await soon(lambda: sshd.logins > 1, "it is logged in to again")
                async with asyncio.timeout(40):
                    while (await row(ssh))["state"] != "up":
                        await moment()
            for one in waiting:
                server.accept()[0].close()
                one.close()
            late, _ = await asyncio.to_thread(server.accept)
            with late:
                late.settimeout(40)
                with contextlib.suppress(ConnectionResetError):
                    assert await asyncio.to_thread(late.recv, 1) == b""
            async with asyncio.timeout(40):
                while (await row(ssh))["connections"]:
                    await moment()
