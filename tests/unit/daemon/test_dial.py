from __future__ import annotations

import asyncio
import errno
import socket
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import pytest

from holdfast_daemon.connection import diagnosis, dial, lookup
from holdfast_daemon.hosts.host import Host, Wire

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5.0
LOOPBACK = "lo" if sys.platform == "linux" else "lo0"


class Listener:
    """A socket that listens on loopback."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]

    def __enter__(self) -> Self:
        self.socket.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener() as one:
        yield one


def host(port: int, **wire: int | str) -> Host:
    made = Host(name="box", hostname="127.0.0.1", user="me", port=port)
    return replace(made, wire=Wire(**wire))  # type: ignore[arg-type]  # by name


async def test_packets_get_the_type_of_service(listener: Listener) -> None:
    """AU-06: IPQoS."""
    for qos, wanted in ((None, 0), (0x20, 0x20), (0xB8, 0xB8)):
        wire = {} if qos is None else {"qos": qos}
        with await dial.dial(host(listener.port, **wire), SECONDS) as made:
            assert made.getsockopt(socket.IPPROTO_IP, socket.IP_TOS) == wanted


async def test_it_knocks_as_often_as_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """AU-06: ConnectionAttempts; nothing is sent before there is a connection."""
    monkeypatch.setattr(dial, "_PAUSE_SECONDS", 0.01)
    late = Listener()
    once = host(late.port)
    with pytest.raises(ConnectionRefusedError):
        await dial.dial(once, SECONDS)
    with pytest.raises(ConnectionRefusedError):
        await dial.dial(host(late.port, attempts=3), SECONDS)
    trying = asyncio.create_task(dial.dial(host(late.port, attempts=1000), SECONDS))
    with late:
        async with asyncio.timeout(SECONDS):
            (await trying).close()


async def test_each_address_that_failed_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """NF-19: not the last one only."""
    late = Listener()

    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        names = ("127.0.0.1", "127.0.0.2")
        return [(socket.AF_INET, 0, 0, "", (name, late.port)) for name in names]

    monkeypatch.setattr(lookup, "look_up", found)
    named = replace(host(late.port), hostname="box.example")
    with pytest.raises(OSError, match="Multiple") as told:
        await dial.dial(named, SECONDS)
    late.socket.close()
    assert diagnosis.addresses(named, told.value) == ("127.0.0.1", "127.0.0.2")
    assert diagnosis.number(told.value) == errno.ECONNREFUSED


async def test_it_comes_from_the_address_or_the_interface(listener: Listener) -> None:
    """AU-06: BindAddress, BindInterface, AddressFamily."""
    own = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
    bound = replace(host(listener.port), bind_address=own)
    with await dial.dial(bound, SECONDS) as made:
        assert made.getsockname()[0] == own
    interface = host(listener.port, bind_interface=LOOPBACK)
    with await dial.dial(interface, SECONDS) as made:
        assert made.getsockname()[0] == "127.0.0.1"
    with pytest.raises(OSError, match="hf-none0"):
        await dial.dial(host(listener.port, bind_interface="hf-none0"), SECONDS)
    with pytest.raises(OSError, match="::1"):
        await dial.dial(replace(host(listener.port), bind_address="::1"), SECONDS)
    with pytest.raises(socket.gaierror):
        await dial.dial(replace(host(listener.port), address_family="inet6"), SECONDS)


async def test_the_next_address_is_tried_when_one_refuses(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def found(*_: object, **__: object) -> list[tuple[object, ...]]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, listener.port))
            for address in ("127.0.0.9", "127.0.0.1")
        ]

    monkeypatch.setattr(lookup, "look_up", found)
    with await dial.dial(host(listener.port), SECONDS) as made:
        assert made.getpeername()[0] == "127.0.0.1"
