"""A daemon that is just dying still takes connections; whoever calls finds the next."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from fakes.tools import tools

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd


@contextlib.contextmanager
def dying(path: Path) -> Generator[None]:
    """Be a socket that takes one connection, and then is gone."""
    path.unlink(missing_ok=True)
    server = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        server.bind(str(path))
    finally:
        os.umask(before)
    server.listen()

    def die() -> None:
        with contextlib.suppress(OSError):
            server.accept()[0].close()
        server.close()

    thread = threading.Thread(target=die, daemon=True)
    thread.start()
    try:
        yield
    finally:
        # in case nobody came
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as last:
            last.connect(str(path))
        thread.join(10)


async def test_a_call_finds_the_next_daemon(world: World) -> None:
    """PK-06, NF-01: not refused after 10 s, as one that was taken and not answered."""
    await asyncio.to_thread(world.kill)
    with dying(world.socket):
        async with tools(world) as ssh:
            assert (await ssh.run("echo there"))["stdout"] == "there\n"
