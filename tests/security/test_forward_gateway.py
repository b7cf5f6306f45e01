"""Where a host listens that decides for itself on which address."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.services import echo, exchange, serve
from fakes.sshd import Sshd
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("forward_gateway"),
    pytest.mark.needs_sshd,
]


def reached(address: str, port: int) -> bool:
    try:
        return exchange(f"{address}:{port}", b"ping") == b"ping"
    except OSError:
        return False


async def test_a_host_that_listens_on_every_address(tmp_path: Path) -> None:
    """FW-03: GatewayPorts yes made it listen for everybody, and we said 127.0.0.1."""
    options = {"GatewayPorts": "yes", "SetEnv": f"HOME={tmp_path}"}
    with serve(echo) as port, Sshd(tmp_path, options=options) as sshd:
        with served(sshd) as world:
            async with tools(world) as ssh:
                asked = {"target": "box", "direction": "remote", "local_port": port}
                error = await ssh.refused("ssh_forward_open", **asked, remote_port=0)
                assert error["reason"] == "FORWARD_REFUSED"
                assert "GatewayPorts" in error["message"] + error["hint"]
                assert (await ssh.told("ssh_forward_list"))["count"] == 0
        with served(sshd, more="forward_wildcard = true\n") as world:
            async with tools(world) as ssh:
                told = await ssh.told(
                    "ssh_forward_open", **asked, remote_port=0, bind_address="0.0.0.0"
                )
                address, _, number = told["listen"].rpartition(":")
                assert address == "0.0.0.0"
                assert reached("127.0.0.2", int(number))
