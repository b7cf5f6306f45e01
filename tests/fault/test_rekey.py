"""A host that changes its keys all the time: nothing is lost, and nothing doubled."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Sshd
from fakes.syncing import ROOTS
from fakes.tools import QUICK, served, tools

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

BYTES = 4_000_000


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    place = tmp_path / "sshd"
    options = {
        "RekeyLimit": "256K 1s",
        "LogLevel": "DEBUG",
        "SetEnv": f"HOME={place}",
    }
    with Sshd(place, options=options) as one:
        yield one


async def _copied(world: World, direction: str, source: Path, to: Path) -> None:
    async with tools(world, client=direction) as ssh:
        await ssh.told(
            "ssh_copy",
            target="box",
            direction=direction,
            sources=[str(source)],
            destination=str(to),
        )


async def _run(world: World, number: int) -> None:
    async with tools(world, client=f"c{number}") as ssh:
        for turn in range(3):
            code = (number + turn) % 7
            told = await ssh.told(
                "ssh_exec",
                target="box",
                command=f"seq {turn} 30000; echo err >&2; exit {code}",
            )
            lines = "".join(f"{one}\n" for one in range(turn, 30001))
            assert (told["exit_code"], told["stdout_bytes"]) == (code, len(lines))
            # before it comes what such a server says of itself
            assert told["stderr"].endswith("err\n")


async def _typed(world: World) -> None:
    async with tools(world) as ssh:
        await ssh.told(
            "ssh_session_open", target="box", session_name="s", durability="remote"
        )
        for turn in range(5):
            told = await ssh.told(
                "ssh_session_run",
                session="s",
                command=f"n=$((n+1)); seq 20000 >&2; echo {turn} $n",
            )
            assert told["stdout"] == f"{turn} {turn + 1}\n"
            assert told["stderr_bytes"] == 108_894
        await ssh.told("ssh_session_close", session="s", force=True)


async def test_keys_change_under_all_that_goes_on(host: Sshd, tmp_path: Path) -> None:
    """NF-09: commands, a session, and copies both ways, over one connection."""
    before = host.log.position
    up, there, down = (tmp_path / name for name in ("up", "there", "down"))
    data = os.urandom(BYTES)
    up.write_bytes(data)
    there.write_bytes(data[::-1])
    with served(host, limits=QUICK, more=ROOTS) as world:
        await asyncio.gather(
            _copied(world, "upload", up, tmp_path / "came"),
            _copied(world, "download", there, down),
            _typed(world),
            *(_run(world, number) for number in range(4)),
        )
    assert (tmp_path / "came").read_bytes() == data
    assert down.read_bytes() == data[::-1]
    # two at a connection's start, each of them once
    assert host.log.count("SSH2_MSG_KEXINIT sent", after=before) > 20
