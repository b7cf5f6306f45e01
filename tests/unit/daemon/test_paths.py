from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.paths import (
    SOCKET_PATH_BYTES,
    Places,
    check_socket_path,
    private_dir,
    private_file,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to give files away"
)


@pytest.fixture(params=[0o000, 0o022, 0o077, 0o277], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def refusal(path: Path) -> str:
    with pytest.raises(DaemonError) as caught:
        private_dir(path)
    assert caught.value.reason is Reason.BAD_CONFIGURATION
    assert caught.value.hint
    assert str(path) in caught.value.message
    return caught.value.message


def test_what_follows_from_the_three_places(tmp_path: Path) -> None:
    found = Places(tmp_path / "run" / "x.sock", tmp_path / "c.toml", tmp_path / "state")
    assert found.lock == tmp_path / "run" / "x.sock.lock"
    assert found.jobs == tmp_path / "state" / "jobs"
    assert found.audit == tmp_path / "state" / "audit"
    assert found.logs == tmp_path / "state" / "log"


@pytest.mark.usefixtures("tmp_path", "umask")  # in this order
def test_a_new_directory_and_its_parents_are_0700(tmp_path: Path) -> None:
    """SC-11: whatever the umask."""
    path = tmp_path / "a" / "b" / "c"
    private_dir(path)
    private_dir(path)
    for item in (path, path.parent, path.parent.parent):
        assert item.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o720, 0o750, 0o755, 0o777])
def test_a_directory_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """SC-11: refused, not repaired: somebody may have been in it."""
    path = tmp_path / "open"
    path.mkdir()
    path.chmod(mode)
    assert "open to others" in refusal(path)
    assert path.stat().st_mode & 0o777 == mode


def test_a_symlinked_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    assert "symbolic link" in refusal(tmp_path / "link")
    assert "symbolic link" in refusal(tmp_path / "dangling")


def test_a_file_where_a_directory_should_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "not a directory" in refusal(tmp_path / "file")
    assert "can't be used" in refusal(tmp_path / "file" / "below")


@needs_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "theirs"
    path.mkdir(mode=0o700)
    os.chown(path, 65534, -1)
    assert "belongs to user 65534" in refusal(path)


def test_a_directory_that_everybody_can_replace_is_refused(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o777)
    assert "everybody can replace" in refusal(tmp_path / "all" / "mine")
    (tmp_path / "all").chmod(0o1777)
    private_dir(tmp_path / "all" / "mine")


def test_a_private_file_is_ours_regular_and_0600(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("")
    for mode, words in ((0o644, "open to others"), (0o620, "open to others")):
        path.chmod(mode)
        with pytest.raises(DaemonError, match=words):
            private_file(path)
    path.chmod(0o600)
    private_file(path)
    (tmp_path / "link").symlink_to(path)
    os.mkfifo(tmp_path / "fifo")
    for name, words in (
        ("link", "symbolic link"),
        ("fifo", "not a regular"),
        ("none", "can't be used"),
    ):
        with pytest.raises(DaemonError, match=words):
            private_file(tmp_path / name)


def test_a_socket_path_that_is_too_long_is_refused_with_the_limit(
    tmp_path: Path,
) -> None:
    """Issue 2, bad input: a path over 107 bytes for the socket."""
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    check_socket_path(tmp_path / ("x" * room))
    with pytest.raises(DaemonError) as caught:
        check_socket_path(tmp_path / ("x" * (room + 1)))
    assert str(SOCKET_PATH_BYTES) in caught.value.message
    assert str(SOCKET_PATH_BYTES + 1) in caught.value.message
    assert "HOLDFAST_SOCKET" in caught.value.hint
    with pytest.raises(DaemonError):  # bytes count, not characters
        check_socket_path(tmp_path / ("ä" * (room // 2 + 1)))
