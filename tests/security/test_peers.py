"""Who and what may speak to the socket, and that the rest disturbs nobody."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
from typing import TYPE_CHECKING

import pytest

from fakes.watch import connected, descriptors, run, soon

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fakes.world import World

NOBODY = 65534
PEERS = 300
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"


@contextlib.contextmanager
def _as_nobody() -> Generator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def _knock(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as peer:
        return peer.connect_ex(str(path))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to be somebody else")
@pytest.mark.parametrize("opened", [False, True])
def test_another_user_is_refused_a_hundred_times(world: World, opened: bool) -> None:
    """A5.21, SC-11: by the directory, and by the socket itself should it be open."""
    if opened:
        world.root.chmod(0o755)
        world.run.chmod(0o755)
    with _as_nobody():
        assert {_knock(world.socket) for _ in range(100)} == {errno.EACCES}
    world.run.chmod(0o700)
    assert _knock(world.socket) == 0


def test_the_socket_lies_in_the_file_system_with_owner_only_modes(
    world: World,
) -> None:
    """SC-11: 0700 and 0600, and nothing of ours in the abstract name space."""
    assert world.run.stat().st_mode & 0o777 == 0o700
    assert world.socket.stat().st_mode & 0o777 == 0o600
    with open("/proc/net/unix") as names:  # noqa: PTH123 - not a path of ours
        assert "@" + str(world.run) not in names.read()


def _garbage(chance: random.Random, number: int) -> bytes:
    noise = chance.randbytes(chance.randrange(1, 2000))
    oversized = b"\x7f\xff\xff\x00\x01\x00\x00\x00\x01"
    kinds = [
        noise,
        PREFACE[: chance.randrange(1, len(PREFACE))],
        PREFACE + noise,
        PREFACE + SETTINGS + oversized + noise,
        PREFACE + SETTINGS + SETTINGS[: chance.randrange(1, 9)],
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ]
    return kinds[number % len(kinds)]


async def test_garbage_and_idle_peers_stop_nothing_and_leave_nothing(
    world: World,
) -> None:
    """A5.22: 300 peers that send garbage and 300 that send nothing."""
    chance = random.Random(22)
    async with connected(world) as client:
        await run(client, "true")
        before = descriptors(world.pid)
        with contextlib.ExitStack() as stack:

            def peer() -> socket.socket:
                one = stack.enter_context(socket.socket(socket.AF_UNIX))
                one.settimeout(10)
                one.connect(str(world.socket))
                return one

            for number in range(PEERS):
                peer()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    peer().sendall(_garbage(chance, number))
            async with asyncio.timeout(40):
                for number in range(10):
                    answer = await run(client, f"echo {number}")
                    assert answer.stdout == f"{number}\n"
            # A client that comes only now is let in as well.
            done = await asyncio.to_thread(world.cli, "exec", "box", "--", "echo", "on")
            assert done.stdout == b"on\n"
        await soon(lambda: descriptors(world.pid) <= before + 2, "nothing is left")
    assert (await asyncio.to_thread(world.cli_json, "status"))["pid"] == world.pid
