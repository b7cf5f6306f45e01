"""What every test with real clients has."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from clients.kit import Kit, NotHereError, kit
from clients.person import Person

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give real clients more time than our own programs."""
    for item in items:
        if "clients" in item.path.parts:
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", name="kit")
def _kit() -> Kit:
    """Return the installed clients; the first time takes minutes."""
    try:
        return kit()
    except NotHereError as error:
        pytest.skip(f"no real clients: {error}")


@pytest.fixture
def person(kit: Kit, world: World, tmp_path: Path) -> Person:
    """Return somebody with all clients, whose daemon knows the sshd as `box`."""
    return Person(kit, world, tmp_path)
