"""`holdfastd` as a program: what it refuses to start with, and how it says so."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import shutil
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes import forked
from fakes.forked import Forking
from fakes.nursery import DAEMON
from fakes.supervisor import Supervisor
from fakes.watch import until
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

NOBODY = 65534


def start(
    world: World, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the daemon, which is to end by itself."""
    env = {**world.environment, **environment}
    done = forked.run(DAEMON, *arguments, env=env, seconds=20)
    out, err = done.stdout.decode(), done.stderr.decode()
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@pytest.fixture
def place(short_path: Path) -> Iterator[World]:
    """Yield a user's machine on which no daemon runs yet."""
    one = World(short_path)
    yield one
    one.close()


def test_it_tells_its_version(place: World) -> None:
    """Contract section 1: --version."""
    done = start(place, "--version")
    said = f"holdfastd {version('holdfast')}\n"
    assert (done.returncode, done.stdout) == (0, said)


def test_check_validates_the_configuration_and_touches_nothing(place: World) -> None:
    """PK-07: --check."""
    place.configure('log_level = "debug"\n')
    done = start(place, "--check")
    assert (done.returncode, done.stderr) == (0, "")
    assert str(place.config) in done.stdout
    assert not place.state.exists()
    assert not place.run.exists()


@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_a_mistake_is_named_by_file_line_key_and_what_was_meant(
    place: World, arguments: tuple[str, ...]
) -> None:
    """PK-07, contract section 1: exit 78 names file, line and key."""
    place.configure('log_level = "info"\n\n[hosts.web]\nhostnam = "web.example"\n')
    done = start(place, *arguments)
    assert done.returncode == 78
    assert f"{place.config}:4" in done.stderr or (
        str(place.config) in done.stderr and "line 4" in done.stderr
    )
    assert "hostnam" in done.stderr
    assert "host" in done.stderr.replace("hostnam", "").replace("hosts.", "")
    assert "Traceback" not in done.stderr
    assert not place.socket.exists()


def test_a_configuration_that_was_named_must_be_there(place: World) -> None:
    """PK-07: --config FILE that is missing is a mistake; the default one may be."""
    missing = place.root / "nowhere.toml"
    done = start(place, "--config", str(missing))
    assert done.returncode == 78
    assert str(missing) in done.stderr
    assert start(place, "--check").returncode == 0


def test_a_configuration_that_others_can_write_is_refused(place: World) -> None:
    """PK-07: files too open are refused."""
    place.configure("")
    place.config.chmod(0o666)
    done = start(place)
    assert done.returncode == 78
    assert str(place.config) in done.stderr


def test_a_socket_path_no_socket_can_have_is_refused(place: World) -> None:
    """Issue 2, bad input: 108 bytes are one too many, 107 serve."""
    room = 107 - len(os.fsencode(place.root)) - 1
    done = start(place, "--socket", str(place.root / ("s" * (room + 1))))
    assert done.returncode == 78
    assert "108" in done.stderr
    assert "107" in done.stderr
    place.socket = place.root / ("s" * room)
    place.environment["HOLDFAST_SOCKET"] = str(place.socket)
    place.start()
    assert place.cli("status").returncode == 0


def _foreign(path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root to give a directory away")
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def _open_to_others(path: Path) -> None:
    path.mkdir()
    path.chmod(0o750)


def _linked(path: Path) -> None:
    real = path.with_name("real")
    real.mkdir(mode=0o700)
    path.symlink_to(real)


def _file(path: Path) -> None:
    path.touch()


@pytest.mark.parametrize("part", ["", "audit", "jobs", "log", "../run"])
@pytest.mark.parametrize(
    "spoil", [_foreign, _open_to_others, _linked, _file], ids=lambda made: made.__name__
)
def test_a_directory_that_is_not_private_is_refused(
    place: World,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
    spoil: Callable[[Path], None],
) -> None:
    """A5.21, SC-11: foreign, open, symlinked or no directory at all: exit 78."""
    # how a refusal ends the program is shown by the others
    monkeypatch.setattr(Forking, "allowed", True)
    place.state.mkdir(mode=0o700)
    path = Path(os.path.normpath(place.state / part))
    if path == place.state:
        path.rmdir()
    spoil(path)
    done = start(place)
    assert done.returncode == 78
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert not place.socket.is_socket()


def test_a_log_file_that_is_not_ours_alone_is_refused(place: World) -> None:
    """SC-11: files 0600, not symlinked."""
    place.log.parent.mkdir(parents=True, mode=0o700)
    place.state.chmod(0o700)
    place.log.symlink_to(place.root / "elsewhere")
    done = start(place)
    assert done.returncode == 78
    assert str(place.log) in done.stderr
    assert "Traceback" not in done.stderr


def test_a_socket_place_taken_by_a_file_is_refused(place: World) -> None:
    """A5.21: a plain file in the socket's place is not replaced."""
    place.run.mkdir(mode=0o700)
    place.socket.write_text("mine")
    done = start(place)
    assert done.returncode == 78
    assert str(place.socket) in done.stderr
    assert place.socket.read_text() == "mine"
    place.socket.unlink()


def test_a_state_directory_that_can_not_be_made_is_told(place: World) -> None:
    """Issue 2: an unwritable place is a typed refusal that names it."""
    state = "/proc/holdfast-state"
    done = start(place, "--state-dir", state)
    assert done.returncode == 78
    assert state in done.stderr
    assert "Traceback" not in done.stderr


def test_a_second_daemon_gives_way_and_the_first_goes_on(place: World) -> None:
    """A5.21: exit 75 while the first keeps serving."""
    place.start()
    for _ in range(3):
        done = start(place)
        assert done.returncode == 75
        assert str(place.pid) in done.stderr
        assert str(place.socket) in done.stderr
    assert place.cli_json("status")["pid"] == place.pid


def test_two_daemons_never_share_one_state_directory(place: World) -> None:
    """SC-11: two sockets, one audit log: the second is refused and told where to go."""
    place.start()
    before = (place.state / "audit" / "audit.jsonl").read_bytes()
    done = start(place, "--socket", str(place.root / "other" / "hf.sock"))
    assert done.returncode == 78
    assert str(place.socket) in done.stderr
    assert str(place.state) in done.stderr
    assert place.cli_json("status")["pid"] == place.pid
    assert (place.state / "audit" / "audit.jsonl").read_bytes() == before
    place.stop()
    place.start()


def test_after_a_crash_the_next_one_starts_at_once(place: World) -> None:
    """Design section 5: a stale socket and lock of a killed daemon are no obstacle."""
    place.start()
    place.kill()
    assert place.socket.exists()
    place.start()
    assert place.cli_json("status")["pid"] == place.pid
    left = {path.name for path in place.run.iterdir()}
    assert len([name for name in left if name.startswith(".hf-")]) <= 1, left


@pytest.mark.parametrize("held", ["run/holdfast.sock.lock", "state/lock"])
def test_one_that_is_just_ending_is_waited_for(place: World, held: str) -> None:
    """PK-06: a killed daemon's locks go a moment after its socket; no exit 75 then."""
    for directory in (place.run, place.state):
        directory.mkdir(mode=0o700)
    lock = place.root / held
    lock.touch(mode=0o600)
    with (
        lock.open("r+b") as ending,
        Supervisor(place.root) as supervisor,
    ):
        fcntl.flock(ending, fcntl.LOCK_EX)
        with subprocess.Popen(
            [program("holdfastd")],
            env={**place.environment, **supervisor.environment},
            stderr=subprocess.DEVNULL,
        ) as daemon:
            until(place.log.parent.is_dir, "the locks come next")
            with pytest.raises(subprocess.TimeoutExpired):
                daemon.wait(0.5)
            fcntl.flock(ending, fcntl.LOCK_UN)
            assert supervisor.receive()["READY"] == "1"
            daemon.terminate()
            assert daemon.wait(20) == 0


def test_it_raises_its_descriptor_limit_and_leaves_no_core(place: World) -> None:
    """A5.18, A5.23: RLIMIT_NOFILE 256 soft is raised; secrets never reach a core."""

    def scarce() -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    place.run.mkdir(mode=0o700)
    with (
        Supervisor(place.root) as supervisor,
        subprocess.Popen(
            [program("holdfastd")],
            env={**place.environment, **supervisor.environment},
            stderr=subprocess.DEVNULL,
            preexec_fn=scarce,  # noqa: PLW1509 - what it does is safe after a fork
        ) as daemon,
    ):
        try:
            assert supervisor.receive()["READY"] == "1"
            lines = Path(f"/proc/{daemon.pid}/limits").read_text().splitlines()
            soft = {line[:26].strip(): line[26:].split()[0] for line in lines}
            _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            assert int(soft["Max open files"]) == min(65_536, hard)
            assert soft["Max core file size"] == "0"
        finally:
            daemon.terminate()


def test_a_daemon_whose_stderr_is_its_log_file_says_all_once(place: World) -> None:
    """OB-02: that is how clients start it; no line twice, and rotation works."""
    place.log.parent.mkdir(parents=True, mode=0o700)
    place.state.chmod(0o700)
    place.log.touch(mode=0o600)
    with (
        place.log.open("ab") as log,
        subprocess.Popen(
            [program("holdfastd")], env=place.environment, stderr=log, stdout=log
        ) as daemon,
    ):
        try:
            until(lambda: b"serving on" in place.log.read_bytes(), "it serves")
        finally:
            daemon.terminate()
        assert daemon.wait(20) == 0
    lines = place.log.read_text().splitlines()
    assert len(lines) == len(set(lines))
    assert sum("serving on" in line for line in lines) == 1


def modes_below(top: Path) -> dict[Path, int]:
    """Return the modes of `top` and of what is in it; some may just go."""
    found: dict[Path, int] = {}
    for at, _, files in os.walk(top):
        for path in (Path(at), *(Path(at, name) for name in files)):
            with contextlib.suppress(FileNotFoundError):
                found[path] = path.lstat().st_mode
    return found


def test_files_are_private_whatever_the_umask(place: World, sshd_config: Path) -> None:
    """A5.21, SC-11: umask 000, 022 and 077 all give 0700 and 0600."""
    place.environment["HOLDFAST_SSH_CONFIG"] = str(sshd_config)
    for mask in (0o000, 0o022, 0o077):
        before = os.umask(mask)
        try:
            place.start()
            assert place.cli("exec", "box", "--", "echo", "hi").stdout == b"hi\n"
            place.cli("audit", "--verify")
            modes = {**modes_below(place.run), **modes_below(place.state)}
            kinds = {True: 0o700, False: 0o600}
            wanted = {p: kinds[stat.S_ISDIR(mode)] for p, mode in modes.items()}
            assert {p: stat.S_IMODE(mode) for p, mode in modes.items()} == wanted
            assert {place.socket, place.run, place.state} <= modes.keys()
            place.stop()
        finally:
            os.umask(before)
        shutil.rmtree(place.run)
        shutil.rmtree(place.state)


@pytest.fixture
def sshd_config(request: pytest.FixtureRequest) -> Path:
    """Return a configuration that knows a real server."""
    found = request.getfixturevalue("sshd").config
    assert isinstance(found, Path)
    return found


def test_check_answers_in_words_and_the_status_in_json(place: World) -> None:
    """IN-07: what the daemon says of its places is where they are."""
    place.configure('log_level = "warning"\n')
    place.start()
    told = json.loads(place.cli("status", "--json").stdout)
    assert told["socket"] == str(place.socket)
    assert told["config_file"] == str(place.config)
    assert told["state_dir"] == str(place.state)
