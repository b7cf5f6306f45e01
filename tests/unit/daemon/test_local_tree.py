"""A tree of this machine: nothing it is asked to do leaves its root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakes.syncing import tree
from holdfast_daemon.transfer.here.local_tree import LocalTree

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

# As a hostile host may have them made: `link` leads out of the root.
PATHS = [
    b"link/victim",
    b"link/new",
    b"../outside/victim",
    b"../outside/new",
    b"sub/../../outside/new",
    b"..",
    b".",
    b"",
    b"/etc/hf-none-such",
    b"sub//../..",
]


async def content() -> AsyncIterator[bytes]:
    yield b"theirs"


@pytest.mark.parametrize("path", PATHS, ids=repr)
async def test_no_path_leads_out(tmp_path: Path, path: bytes) -> None:
    """FI-15: whatever is done with a path, also with links in its way."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    (outside / "victim").write_text("mine")
    (root / "link").symlink_to(outside)
    before = tree(tmp_path)
    local = LocalTree(str(root))
    with pytest.raises(OSError):  # noqa: PT011 - whichever the system gives
        await local.write(path, content(), 0o600, 1, b".f.part")
    with pytest.raises(OSError):  # noqa: PT011
        await local.set(path, 0o777, 1)
    with pytest.raises(OSError):  # noqa: PT011
        await local.make_directory(path, None)
    with pytest.raises(OSError):  # noqa: PT011
        await local.link(path, b"/etc/passwd")
    for directory in (False, True):
        with pytest.raises(OSError):  # noqa: PT011
            await local.remove(path, directory=directory)
    with pytest.raises(OSError):  # noqa: PT011
        async for _ in local.read(path):
            pass
    assert tree(tmp_path) == before


async def test_a_link_itself_is_not_followed(tmp_path: Path) -> None:
    """FI-15: neither its content, nor its mode and time."""
    (tmp_path / "victim").write_text("mine")
    root = tmp_path / "root"
    root.mkdir()
    (root / "f").symlink_to(tmp_path / "victim")
    before = tree(tmp_path)
    local = LocalTree(str(root))
    with pytest.raises(OSError):  # noqa: PT011
        await local.set(b"f", 0o777, 1)
    with pytest.raises(OSError):  # noqa: PT011
        async for _ in local.read(b"f"):
            pass
    assert tree(tmp_path) == before
    await local.write(b"f", content(), 0o600, 1, b".f.part")
    assert (tmp_path / "victim").read_text() == "mine"
    assert (root / "f").read_text() == "theirs"
    assert not (root / "f").is_symlink()
