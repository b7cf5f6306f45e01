from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from holdfast_daemon import paths
from holdfast_daemon.errors import DaemonError
from holdfast_shim import places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HOME = Path("/home/u")
UID = 4321
Three = tuple[Path, Path, Path]

CONFIG = "/home/u/.config/holdfast/config.toml"
STATE = "/home/u/.local/state/holdfast"

TABLE: list[tuple[str, dict[str, str], dict[str, Path], tuple[str, str, str]]] = [
    ("nothing set", {}, {}, (f"{STATE}/run/holdfast.sock", CONFIG, STATE)),
    (
        "runtime directory",
        {"XDG_RUNTIME_DIR": "/run/x"},
        {},
        ("/run/x/holdfast/holdfast.sock", CONFIG, STATE),
    ),
    (
        "all of XDG",
        {"XDG_RUNTIME_DIR": "/r", "XDG_CONFIG_HOME": "/c", "XDG_STATE_HOME": "/s"},
        {},
        ("/r/holdfast/holdfast.sock", "/c/holdfast/config.toml", "/s/holdfast"),
    ),
    (
        "our own variables win",
        {
            "HOLDFAST_SOCKET": "/o/s.sock",
            "HOLDFAST_CONFIG": "/o/c.toml",
            "HOLDFAST_STATE_DIR": "/o/state",
            "XDG_RUNTIME_DIR": "/r",
            "XDG_CONFIG_HOME": "/c",
            "XDG_STATE_HOME": "/s",
        },
        {},
        ("/o/s.sock", "/o/c.toml", "/o/state"),
    ),
    (
        "arguments win over all",
        {"HOLDFAST_SOCKET": "/o/s.sock", "HOLDFAST_CONFIG": "/o/c.toml"},
        {"socket": Path("/a/s"), "config": Path("/a/c"), "state": Path("/a/t")},
        ("/a/s", "/a/c", "/a/t"),
    ),
    (
        "the socket follows the state",
        {"HOLDFAST_STATE_DIR": "/o/state"},
        {},
        ("/o/state/run/holdfast.sock", CONFIG, "/o/state"),
    ),
    (
        "empty ones count as unset",
        dict.fromkeys(
            ("HOLDFAST_SOCKET", "HOLDFAST_CONFIG", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"),
            "",
        ),
        {},
        (f"{STATE}/run/holdfast.sock", CONFIG, STATE),
    ),
    (
        "relative XDG ones are ignored",
        {"XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "c", "XDG_STATE_HOME": "s"},
        {},
        (f"{STATE}/run/holdfast.sock", CONFIG, STATE),
    ),
    (
        "a tilde is the home directory",
        {"HOLDFAST_SOCKET": "~/s.sock", "HOLDFAST_STATE_DIR": "~/st"},
        {},
        ("/home/u/s.sock", CONFIG, "/home/u/st"),
    ),
]


def of_daemon(env: dict[str, str], given: dict[str, Path]) -> Three:
    found = paths.places(env, HOME, UID, **given)
    return found.socket, found.config, found.state


def of_shim(env: dict[str, str], given: dict[str, Path]) -> Three:
    found = places.places(env, HOME, UID, **given)
    return found.socket, found.config, found.state


both = pytest.mark.parametrize("find", [of_daemon, of_shim])


@pytest.fixture(autouse=True)
def run_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in for /run/user, which this machine may or may not have."""
    monkeypatch.setattr(paths, "RUN_USER", tmp_path)
    monkeypatch.setattr(places, "RUN_USER", tmp_path)
    return tmp_path


@both
@pytest.mark.parametrize(
    ("name", "env", "given", "wanted"), TABLE, ids=lambda x: str(x)[:30]
)
def test_each_place_is_the_first_that_applies(
    find: Callable[[dict[str, str], dict[str, Path]], Three],
    name: str,
    env: dict[str, str],
    given: dict[str, Path],
    wanted: tuple[str, str, str],
) -> None:
    """Contract section 2: daemon and shim find the same places."""
    assert tuple(str(path) for path in find(env, given)) == wanted


@both
def test_home_and_uid_are_enough_where_the_system_has_a_runtime_directory(
    find: Callable[[dict[str, str], dict[str, Path]], Three], run_user: Path
) -> None:
    """Contract section 2: clients such as Codex strip the environment."""
    (run_user / str(UID)).mkdir()
    assert find({}, {})[0] == run_user / str(UID) / "holdfast" / "holdfast.sock"
    assert find({"XDG_RUNTIME_DIR": "/r"}, {})[0] == Path("/r/holdfast/holdfast.sock")


@both
def test_a_relative_argument_stands_in_the_current_directory(
    find: Callable[[dict[str, str], dict[str, Path]], Three],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find({}, {"socket": Path("x.sock")})[0] == tmp_path / "x.sock"


@pytest.mark.parametrize(
    "name", ["HOLDFAST_SOCKET", "HOLDFAST_CONFIG", "HOLDFAST_STATE_DIR"]
)
def test_a_relative_variable_is_refused_by_both(name: str) -> None:
    with pytest.raises(DaemonError, match=f"{name} is not an absolute path"):
        of_daemon({name: "x"}, {})
    with pytest.raises(places.PlaceError, match=f"{name} is not an absolute path"):
        of_shim({name: "x"}, {})


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "run"
    directory.mkdir(mode=0o700)
    path = directory / "x.sock"
    with socket.socket(socket.AF_UNIX) as peer:
        peer.bind(str(path))
        path.chmod(0o600)
        yield path


def test_the_shim_takes_a_socket_of_its_own(served: Path) -> None:
    assert places.check(served)
    assert not places.check(served.with_name("other.sock"))
    assert not places.check(served.parent / "none" / "x.sock")
    assert not places.check(served / "below")


def test_the_shim_refuses_a_socket_that_is_open_to_others(served: Path) -> None:
    """SC-11, from the client's end."""
    served.chmod(0o666)
    with pytest.raises(places.PlaceError, match="open to others"):
        places.check(served)
    served.chmod(0o600)
    served.parent.chmod(0o770)
    with pytest.raises(places.PlaceError, match="open to others"):
        places.check(served)


def test_the_shim_refuses_what_is_no_socket(served: Path, tmp_path: Path) -> None:
    (served.parent / "file").write_text("")
    with pytest.raises(places.PlaceError, match="not a socket"):
        places.check(served.parent / "file")
    (tmp_path / "link").symlink_to(served.parent)
    with pytest.raises(places.PlaceError, match="symbolic link"):
        places.check(tmp_path / "link" / "x.sock")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give files away")
def test_the_shim_refuses_a_socket_of_another_user(served: Path) -> None:
    """SC-11: somebody may have put it there to read what we send."""
    os.chown(served, 65534, -1)
    with pytest.raises(places.PlaceError, match="belongs to user 65534"):
        places.check(served)
    os.chown(served, os.geteuid(), -1)
    os.chown(served.parent, 65534, -1)
    with pytest.raises(places.PlaceError, match="belongs to user 65534"):
        places.check(served)


def test_without_a_home_the_next_step_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Section 2: a container's user may be in no password database."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    assert places.home_of({"HOME": "/home/u"}) == HOME
    assert places.home_of({}) == Path(pwd.getpwuid(os.getuid()).pw_dir)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert places.home_of({"HOME": "/home/u"}) == HOME
    with pytest.raises(places.PlaceError, match="no home directory is known") as caught:
        places.home_of({"HOME": ""})
    assert "HOME" in caught.value.hint
