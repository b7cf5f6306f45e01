"""Names that nobody answers for hold up who asks for them, and nobody else."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from fakes.watch import moment
from holdfast_daemon.connection import dial
from holdfast_daemon.hosts.host import Host

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 10.0


class Names:
    """A name service that answers nobody until it is told to.

    Attributes:
        asked: The names it was asked for.
    """

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.back = threading.Event()
        self._real = socket.getaddrinfo

    def __call__(self, host: str, port: int, *more: Any, **named: Any) -> Any:
        if not host.endswith(".example"):
            return self._real(host, port, *more, **named)
        if named["flags"] & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "it is no address")
        self.asked.append(host)
        if not self.back.wait(SECONDS * 3):
            raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")
        return self._real("127.0.0.1", port, *more, **named)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    one = Names()
    monkeypatch.setattr(socket, "getaddrinfo", one)
    yield one
    one.back.set()


async def test_names_that_hang_hold_up_nobody_else(names: Names) -> None:
    """NF-09: a few hosts that were away took the threads that files are read in."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = Host(
            name="box", hostname="127.0.0.1", user="me", port=server.getsockname()[1]
        )
        away = [replace(there, hostname=f"host{n}.example") for n in range(100)]
        hanging = [asyncio.create_task(dial.dial(one, SECONDS)) for one in away * 2]
        try:
            async with asyncio.timeout(SECONDS):
                while not names.asked:
                    await moment()
                # as each call does, and each output that is written
                assert await asyncio.to_thread(lambda: "free") == "free"
                (await dial.dial(there, SECONDS)).close()
            assert not any(one.done() for one in hanging)
            # who gives up takes nothing from another who asks for the same
            for one in hanging[:100]:
                one.cancel()
        finally:
            names.back.set()
        found = await asyncio.gather(*hanging, return_exceptions=True)
        for made in found[100:]:
            assert isinstance(made, socket.socket), made
            made.close()
        assert sorted(names.asked) == sorted(one.hostname for one in away)
