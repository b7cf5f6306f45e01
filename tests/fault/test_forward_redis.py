"""A real Redis behind a forward, asked on while the link is cut and comes back."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import threading
from functools import partial
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.services import dial
from fakes.sshd import Sshd, free_port
from fakes.tools import QUICK, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from pathlib import Path

pytestmark = [pytest.mark.asyncio, pytest.mark.needs_sshd]

CUTS = 4
VALUE = b"v" * 50_000


@contextlib.contextmanager
def redis(directory: Path) -> Generator[int]:
    """Run a server of our own until the block ends."""
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("no redis-server here: run packaging/test-packages.sh")
    port = free_port()
    words = [found, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with subprocess.Popen(
        words, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield port
        finally:
            process.kill()


def said(*words: bytes) -> bytes:
    """Return a request in Redis's own protocol."""
    parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in words]
    return b"*%d\r\n%s" % (len(parts), b"".join(parts))


def asked(one: socket.socket, *words: bytes) -> bytes:
    """Ask one thing, and return the whole answer without its frame."""
    one.sendall(said(*words))
    answer = b""
    while not answer.endswith(b"\r\n"):
        answer += heard(one)
    if not answer.startswith(b"$"):
        return answer[1:-2]
    length, _, body = answer[1:].partition(b"\r\n")
    while len(body) < int(length) + 2:
        body += heard(one)
    return body[:-2]


def heard(one: socket.socket) -> bytes:
    data = one.recv(65536)
    if not data:
        raise ConnectionResetError("it ended in the middle")
    return data


class Client(threading.Thread):
    """Counts up through a forward, and connects again whenever it is broken off.

    Attributes:
        counted: What the server answered, in its order.
        asked: How often it was asked.
        broken: How often a connection came to nothing.
    """

    def __init__(self, listen: str) -> None:
        super().__init__(daemon=True)
        self._listen = listen
        self._enough = threading.Event()
        self.counted: list[int] = []
        self.asked = 0
        self.broken = 0

    def run(self) -> None:
        """Ask on until it is enough."""
        while not self._enough.is_set():
            try:
                with dial(self._listen) as one:
                    one.settimeout(20)
                    while not self._enough.is_set():
                        self.asked += 1
                        self.counted.append(int(asked(one, b"INCR", b"n")))
            except OSError:
                self.broken += 1
                self._enough.wait(0.01)

    def has(self, least: int) -> bool:
        """Say whether more than so many were answered."""
        return len(self.counted) > least

    def heard_of(self, before: int) -> bool:
        """Say whether more than so many connections came to nothing."""
        return self.broken > before

    def end(self) -> None:
        """Have it stop, and wait for that."""
        self._enough.set()
        self.join(30)
        assert not self.is_alive()


async def test_queries_go_on_over_cuts(tmp_path: Path) -> None:
    """FW-01, FW-10, NF-09: after each cut the same port answers with the same data."""
    with (
        redis(tmp_path) as port,
        Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={tmp_path}"}) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        config = proxy.config(sshd, tmp_path / "config")
        with served(config, limits=f"{QUICK}login_pause_seconds = 0.1\n") as world:
            async with tools(world) as ssh:
                told = await ssh.told(
                    "ssh_forward_open",
                    target="box",
                    direction="local",
                    remote_port=port,
                )
                listen = told["listen"]

                def stored() -> bool:
                    try:
                        with dial(listen) as one:
                            return asked(one, b"SET", b"k", VALUE) == b"OK"
                    except OSError:
                        return False

                await soon(stored, "redis answers")
                client = Client(listen)
                client.start()
                try:
                    for _ in range(CUTS):
                        have = len(client.counted)
                        more = partial(client.has, have + 20)
                        await soon(more, "queries are answered", 30)
                        # of one cut it may hear more than once
                        told_of = partial(client.heard_of, client.broken)
                        proxy.rst()
                        await soon(told_of, "it is told", 30)
                    have = len(client.counted)
                    await soon(lambda: len(client.counted) > have, "it is back", 30)
                finally:
                    await asyncio.to_thread(client.end)
                assert client.counted == sorted(set(client.counted))
                with dial(listen) as one:
                    assert asked(one, b"GET", b"k") == VALUE
                    last = int(asked(one, b"GET", b"n"))
                # an answer may be lost on its way; no question is asked twice
                assert len(client.counted) <= last <= client.asked
                async with asyncio.timeout(40):
                    while True:
                        found = await ssh.told("ssh_forward_list")
                        (row,) = found["forwards"]
                        if row["state"] == "up" and not row["connections"]:
                            break
                        await moment()
                assert row["listen"] == listen
                assert row["served"] >= CUTS + 1
                ended = await ssh.told("ssh_forward_close", forward=told["forward_id"])
                assert ended["was_running"] is True
