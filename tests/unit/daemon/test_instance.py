from __future__ import annotations

import os
import resource
import select
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import grpc.aio
import pytest

from fakes.named_server import serve, umask, who
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.instance import AlreadyRunning, Instance, raise_descriptors
from holdfast_daemon.paths import SOCKET_PATH_BYTES, Places

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

needs_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="needs root to give files away"
)


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "run" / "hf.sock", tmp_path / "c.toml", tmp_path / "state")


def names(places: Places) -> set[str]:
    return {path.name for path in places.socket.parent.iterdir()}


# what gRPC does by itself, and what we make of it


async def test_bare_grpc_steals_the_path_and_takes_it_away(tmp_path: Path) -> None:
    """The trap this module is for; if it ever closes, the module may shrink."""
    path = tmp_path / "bare.sock"
    async with serve(path, "old") as old, serve(path, "new"):
        assert await who(path) == "new", "stolen without an error"
        await old.stop(0)
        assert not path.exists(), "the loser removed the winner's socket"
        assert await who(path) == "UNAVAILABLE"


async def test_bare_grpc_makes_a_socket_that_others_can_open(tmp_path: Path) -> None:
    path = tmp_path / "bare.sock"
    server = grpc.aio.server()
    with umask(0o022):
        server.add_insecure_port(f"unix:{path}")
    assert path.stat().st_mode & 0o777 == 0o755
    await server.stop(0)


async def test_an_old_server_that_stops_leaves_the_new_one_reachable(
    places: Places,
) -> None:
    """A5.21, TR-07: published by rename, gRPC's own unlink hits nothing that lives."""
    first, second = Instance(places), Instance(places)
    first.lock()
    async with serve(first.bind_path(), "old") as old:
        first.publish()
        assert await who(places.socket) == "old"
        first.unlock()
        second.lock()
        async with serve(second.bind_path(), "new"):
            second.publish()
            assert await who(places.socket) == "new"
            await old.stop(0)
            first.withdraw()
            assert second.ours()
            assert await who(places.socket) == "new"
            second.withdraw()
    second.unlock()
    assert names(places) == {"hf.sock.lock"}


# modes and what stands in the way


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077], ids=oct)
async def test_whatever_the_umask_it_ends_with_0700_and_0600(
    places: Places, mask: int
) -> None:
    """A5.21, SC-11."""
    instance = Instance(places)
    with umask(mask):
        instance.lock()
        async with serve(instance.bind_path(), "x"):
            instance.publish()
            assert places.socket.parent.stat().st_mode & 0o777 == 0o700
            assert places.socket.stat().st_mode & 0o777 == 0o600
            assert places.lock.stat().st_mode & 0o777 == 0o600
            instance.withdraw()
    instance.unlock()


def test_a_socket_that_came_out_open_is_not_published(places: Places) -> None:
    """A5.21: the measure itself is checked, not trusted."""
    instance = Instance(places)
    instance.lock()
    with socket.socket(socket.AF_UNIX) as peer, umask(0o022):
        peer.bind(str(instance.bind_path()))
        with pytest.raises(DaemonError, match="mode 0755"):
            instance.publish()
    assert not places.socket.exists()
    instance.unlock()


def _socket_of_another(places: Places) -> None:
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(places.socket))
    os.chown(places.socket, 65534, -1)


def _lock(places: Places, mode: int, uid: int) -> None:
    places.lock.touch()
    places.lock.chmod(mode)
    os.chown(places.lock, uid, -1)


def _directory_by_link(places: Places) -> None:
    directory = places.socket.parent
    directory.rename(directory.with_name("real"))
    directory.symlink_to(directory.with_name("real"))


def _directory_as_file(places: Places) -> None:
    places.socket.parent.rmdir()
    places.socket.parent.write_text("")


WRONG: dict[str, tuple[Callable[[Places], object], str]] = {
    "symlinked directory": (_directory_by_link, "symbolic link"),
    "file as directory": (_directory_as_file, "not a directory"),
    "foreign directory": (
        lambda places: os.chown(places.socket.parent, 65534, -1),
        "belongs to user 65534",
    ),
    "group-writable directory": (
        lambda places: places.socket.parent.chmod(0o770),
        "open to others",
    ),
    "readable directory": (
        lambda places: places.socket.parent.chmod(0o755),
        "open to others",
    ),
    "plain file": (lambda places: places.socket.write_text("x"), "not a socket"),
    "directory as socket": (lambda places: places.socket.mkdir(), "not a socket"),
    "symlink as socket": (
        lambda places: places.socket.symlink_to("/nowhere"),
        "not a socket",
    ),
    "foreign socket": (_socket_of_another, "belongs to user 65534"),
    "symlinked lock": (
        lambda places: places.lock.symlink_to("/etc/passwd"),
        "can't be opened",
    ),
    "foreign lock": (
        lambda places: _lock(places, 0o600, 65534),
        "belongs to user 65534",
    ),
    "open lock": (
        lambda places: _lock(places, 0o666, os.geteuid()),
        "open to others",
    ),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(what, marks=[needs_root] if what.startswith("foreign") else [])
        for what in WRONG
    ],
)
def test_what_is_not_safe_is_refused_with_a_message(places: Places, what: str) -> None:
    """A5.21, SC-11: refuses to start."""
    places.socket.parent.mkdir(mode=0o700)
    make_wrong, words = WRONG[what]
    make_wrong(places)
    with pytest.raises(DaemonError) as caught:
        Instance(places).lock()
    assert caught.value.reason is Reason.BAD_CONFIGURATION
    assert words in caught.value.message
    assert caught.value.hint


def test_a_refusal_removes_nothing_and_leaves_the_lock_free(places: Places) -> None:
    places.socket.parent.mkdir(mode=0o700)
    places.socket.write_text("precious")
    with pytest.raises(DaemonError):
        Instance(places).lock()
    assert places.socket.read_text() == "precious"
    places.socket.unlink()
    instance = Instance(places)
    instance.lock()
    instance.unlock()


def test_a_path_of_one_byte_too_many_is_refused_with_the_limit(tmp_path: Path) -> None:
    """Issue 2, bad input: a path over 107 bytes for the socket."""
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 1
    places = Places(tmp_path / ("x" * (room + 1)), tmp_path, tmp_path)
    with pytest.raises(DaemonError, match=f"{SOCKET_PATH_BYTES + 1} bytes"):
        Instance(places).lock()


@pytest.mark.parametrize("name", ["x" * 20, "abc", "x"])
async def test_the_longest_allowed_path_can_be_bound(tmp_path: Path, name: str) -> None:
    """The bound name must fit even where the final one takes the last byte."""
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 2 - len(name)
    path = tmp_path / ("d" * room) / name
    assert len(os.fsencode(path)) == SOCKET_PATH_BYTES
    instance = Instance(Places(path, tmp_path, tmp_path))
    instance.lock()
    async with serve(instance.bind_path(), "long"):
        instance.publish()
        assert await who(path) == "long"
        instance.withdraw()
    instance.unlock()


@pytest.mark.parametrize("drawn", ["xab", "axb"], ids=["bound", "second"])
async def test_no_name_of_its_own_is_the_final_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: str
) -> None:
    """A5.21: one byte is left for each, and chance draws that of the socket."""
    room = SOCKET_PATH_BYTES - len(os.fsencode(tmp_path)) - 3
    path = tmp_path / ("d" * room) / "x"
    letters = iter("".join(6 * letter for letter in drawn))
    monkeypatch.setattr(
        "holdfast_daemon.instance.secrets.choice", lambda _alphabet: next(letters)
    )
    instance = Instance(Places(path, tmp_path, tmp_path))
    instance.lock()
    async with serve(instance.bind_path(), "long"):
        instance.publish()
        assert await who(path) == "long"
        assert len(list(path.parent.glob("?"))) == 2
        instance.withdraw()
    instance.unlock()


# the lock


HOLDER = """
import os, sys
from pathlib import Path
from holdfast_daemon.instance import AlreadyRunning, Instance
from holdfast_daemon.paths import Places
path = Path(sys.argv[1])
instance = Instance(Places(path, path, path))
sys.stdin.readline()
try:
    instance.lock()
except AlreadyRunning as error:
    print("running", flush=True)
    sys.exit(75)
print("locked", flush=True)
sys.stdin.readline()
"""


def holder(places: Places) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(places.socket)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    assert select.select([process.stdout], [], [], 30)[0], "it says nothing"
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> int:
    process.kill()
    process.communicate(timeout=30)
    return process.returncode


def test_of_ten_that_start_at_once_exactly_one_gets_the_lock(places: Places) -> None:
    """A5.21, contract section 1: the others know that one is running."""
    processes = [holder(places) for _ in range(10)]
    try:
        for process in processes:
            go(process)
        answers = [said(process) for process in processes]
        assert sorted(answers) == ["locked", *["running"] * 9]
        for process, answer in zip(processes, answers, strict=True):
            if answer == "running":
                assert process.wait(30) == 75
    finally:
        for process in processes:
            end(process)


def test_a_holder_that_is_killed_frees_the_lock(places: Places) -> None:
    """A5.21: the next one starts at once; the file stays."""
    process = holder(places)
    try:
        go(process)
        assert said(process) == "locked"
        with pytest.raises(AlreadyRunning) as caught:
            Instance(places).lock()
        assert str(process.pid) in caught.value.message
        assert caught.value.metadata["socket"] == str(places.socket)
        inode = places.lock.stat().st_ino
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
        instance = Instance(places)
        instance.lock()
        assert places.lock.stat().st_ino == inode
        assert places.lock.read_text() == f"{os.getpid()}\n"
        instance.unlock()
    finally:
        end(process)


def test_a_child_program_does_not_keep_the_lock(places: Places) -> None:
    """O_CLOEXEC: an ssh started by a dead daemon must not keep the next one out."""
    instance = Instance(places)
    instance.lock()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            instance.unlock()
            second = Instance(places)
            second.lock()
            second.unlock()
        finally:
            child.kill()


def test_what_a_killed_daemon_left_is_replaced_and_swept(places: Places) -> None:
    """A5.19: no old socket stays; a living neighbour's is left alone."""
    directory = places.socket.parent
    directory.mkdir(mode=0o700)
    for name in ("hf.sock", ".hf-000000", ".hf-111111", ".hf-other-name"):
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(directory / name))
    (directory / ".hf-111111").unlink()
    with socket.socket(socket.AF_UNIX) as living:
        living.bind(str(directory / ".hf-111111"))
        living.listen()
        instance = Instance(places)
        instance.lock()
        assert names(places) == {
            "hf.sock",
            "hf.sock.lock",
            ".hf-111111",
            ".hf-other-name",
        }
        instance.unlock()


# descriptors


def test_the_soft_limit_of_descriptors_is_raised_and_never_lowered() -> None:
    """Design section 5: clients, links and spools need them."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
        assert raise_descriptors(512) == 512
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (512, before[1])
        assert raise_descriptors(300) == 512
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_hard_limit_of_descriptors_is_respected() -> None:
    program = (
        "import resource as r; from holdfast_daemon.instance import raise_descriptors;"
        "r.setrlimit(r.RLIMIT_NOFILE, (200, 300)); print(raise_descriptors(65536))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert done.stdout.strip() == "300"
