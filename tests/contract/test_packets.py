"""What goes over a connection beside what was asked for, as the server logs it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.tools import tools
from fakes.world import World

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.asyncio, pytest.mark.needs_sshd]

# A request on a channel (RFC 4254 9).
NOTHING, REQUEST = "Received SSH2_MSG_IGNORE", "receive packet: type 98 "


async def received(directory: Path, cipher: str) -> str:
    """Return the server's log of a command with input."""
    options = {"LogLevel": "DEBUG3", "Ciphers": cipher, "SetEnv": f"HOME={directory}"}
    with Sshd(directory / "sshd", options=options) as sshd:
        config = directory / "config"
        config.write_text(sshd.client_config("box", f"  Ciphers {cipher}\n"))
        with World(directory, ssh_config=config) as world:
            async with tools(world, "--results", "structured") as ssh:
                told = await ssh.told(
                    "ssh_exec", target="box", command="cat", stdin="as it was sent\n"
                )
        assert told["stdout"] == "as it was sent\n", told
        sshd.log.catch_up()
        return "".join(f"{line.rstrip()} \n" for line in sshd.log.text.splitlines())


@pytest.mark.parametrize(
    "cipher", ["aes128-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr"]
)
async def test_no_packet_says_nothing(tmp_path: Path, cipher: str) -> None:
    """Each packet came with an empty one ahead of it."""
    text = await received(tmp_path, cipher)
    assert REQUEST in text
    assert NOTHING not in text


async def test_vectors_that_can_be_foreseen_are_hidden(tmp_path: Path) -> None:
    """A cipher in CBC mode has an empty packet ahead (RFC 4251 9.3.1)."""
    text = await received(tmp_path, "aes256-cbc")
    assert REQUEST in text
    assert text.count(NOTHING) >= text.count(REQUEST)
