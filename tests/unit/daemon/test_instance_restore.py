from __future__ import annotations

import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from fakes.named_server import serve, who
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.instance import AlreadyRunning, Instance
from holdfast_daemon.paths import Places

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "run" / "hf.sock", tmp_path / "c.toml", tmp_path / "state")


def names(places: Places) -> set[str]:
    return {path.name for path in places.socket.parent.iterdir()}


@asynccontextmanager
async def published(places: Places) -> AsyncGenerator[Instance]:
    instance = Instance(places)
    instance.lock()
    async with serve(instance.bind_path(), "mine"):
        instance.publish()
        assert instance.ours()
        try:
            yield instance
        finally:
            instance.withdraw()
            instance.unlock()


async def test_a_deleted_socket_is_noticed_and_put_back(places: Places) -> None:
    """A5.21: noticed by `ours`, put back with the same server behind it."""
    async with published(places) as instance:
        assert instance.restore(), "nothing to do"
        places.socket.unlink()
        assert not instance.ours()
        assert instance.restore()
        assert await who(places.socket) == "mine"
        assert places.socket.stat().st_mode & 0o777 == 0o600


async def test_a_replaced_socket_is_noticed_and_put_back(places: Places) -> None:
    """A5.21: even when another server listens on it."""
    async with published(places) as instance, serve(places.socket, "thief"):
        assert not instance.ours()
        assert instance.restore()
        assert await who(places.socket) == "mine"


async def test_a_file_in_our_place_is_not_overwritten(places: Places) -> None:
    async with published(places) as instance:
        places.socket.unlink()
        places.socket.write_text("precious")
        assert not instance.ours()
        with pytest.raises(DaemonError, match="not a socket"):
            instance.restore()
        assert places.socket.read_text() == "precious"
        instance.withdraw()
        assert places.socket.read_text() == "precious", "not ours to remove"


async def test_without_its_own_name_a_new_server_is_asked_for(places: Places) -> None:
    async with published(places) as instance:
        for path in places.socket.parent.iterdir():
            path.unlink()
        assert not instance.restore()
        async with serve(instance.bind_path(), "again"):
            instance.publish()
            assert await who(places.socket) == "again"
            instance.withdraw()


async def test_a_deleted_directory_is_made_again(places: Places) -> None:
    async with published(places) as instance:
        for path in places.socket.parent.iterdir():
            path.unlink()
        places.socket.parent.rmdir()
        assert not instance.restore()
        assert places.lock.exists(), "locked again, so that no second one starts"
        with pytest.raises(AlreadyRunning):
            Instance(places).lock()


async def test_a_deleted_lock_that_another_took_ends_our_claim(places: Places) -> None:
    """Two daemons must not fight for one name: the one without the lock gives way."""
    async with published(places) as instance:
        places.lock.unlink()
        other = Instance(places)
        other.lock()
        async with serve(other.bind_path(), "other"):
            other.publish()
            assert not instance.ours()
            with pytest.raises(AlreadyRunning):
                instance.restore()
            instance.withdraw()
            assert await who(places.socket) == "other"
            other.withdraw()
        other.unlock()


async def test_publishing_where_links_are_not_to_be_had(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems have no links to sockets: then the name itself is moved."""

    def no_link(*_args: object, **_kwargs: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", no_link)
    async with published(places) as instance:
        assert names(places) == {"hf.sock", "hf.sock.lock"}
        assert await who(places.socket) == "mine"
        places.socket.unlink()
        assert not instance.restore()


def test_publish_needs_the_lock(places: Places) -> None:
    with pytest.raises(RuntimeError):
        Instance(places).publish()
