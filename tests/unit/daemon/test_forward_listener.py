"""Listening here: what can't be had is told, and what is left is cleared away."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from pathlib import Path

import pytest

from holdfast_daemon.connection.tunnel import Place
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.forward.listener import listen

_FIRST_FREE = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")
_NOBODY = 65534


def refusal(place: Place) -> StateError:
    with pytest.raises(StateError) as caught:
        asyncio.run(_listen(place))
    return caught.value


async def _listen(place: Place, *, again: bool = False) -> None:
    found = await listen(place, asyncio.Protocol, again=again)
    found.close()


def test_a_privileged_port_needs_root() -> None:
    """FW-06: told in words."""
    if not _FIRST_FREE.exists() or int(_FIRST_FREE.read_text()) <= 81:
        pytest.skip("no port is privileged here")
    before = os.geteuid()
    if not before:
        os.seteuid(_NOBODY)
    try:
        error = refusal(Place("127.0.0.1", 81))
    finally:
        os.seteuid(before)
    assert error.reason is Reason.FORWARD_REFUSED
    assert "needs root" in error.message


def test_a_socket_that_a_killed_daemon_left_is_replaced(tmp_path: Path) -> None:
    """FW-10: only where it was ours before, and nobody serves it."""
    place = Place(path=str(tmp_path / "s"))
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(place.path)
    assert refusal(place).reason is Reason.IN_USE
    asyncio.run(_listen(place, again=True))
    assert not Path(place.path).exists()


def test_what_is_not_ours_stays(tmp_path: Path) -> None:
    """FW-10: neither a file nor a socket that somebody serves is removed."""
    place = Place(path=str(tmp_path / "s"))
    Path(place.path).write_text("mine")
    with pytest.raises(StateError):
        asyncio.run(_listen(place, again=True))
    assert Path(place.path).read_text() == "mine"
    Path(place.path).unlink()
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(place.path)
        living.listen()
        with pytest.raises(StateError):
            asyncio.run(_listen(place, again=True))
        assert Path(place.path).exists()


def test_what_others_make_meanwhile_keeps_its_mode(tmp_path: Path) -> None:
    """FW-01: a copy's directory that was made just then could not be entered."""
    over, modes = threading.Event(), set[int]()

    def make() -> None:
        number = 0
        while not over.is_set():
            number += 1
            one = tmp_path / str(number)
            one.mkdir(0o700)
            modes.add(one.stat().st_mode & 0o777)
            one.rmdir()

    async def many() -> None:
        for number in range(1000):
            await _listen(Place(path=str(tmp_path / f"s{number}")))

    thread = threading.Thread(target=make)
    thread.start()
    try:
        asyncio.run(many())
    finally:
        over.set()
        thread.join()
    assert modes == {0o700}


def test_nobody_else_may_connect(tmp_path: Path) -> None:
    """FW-01: whatever the mask is."""

    async def look() -> int:
        place = Place(path=str(tmp_path / "s"))
        found = await listen(place, asyncio.Protocol)
        try:
            return (await asyncio.to_thread(os.stat, place.path)).st_mode & 0o777
        finally:
            found.close()

    before = os.umask(0)
    try:
        assert asyncio.run(look()) == 0o600
    finally:
        os.umask(before)
