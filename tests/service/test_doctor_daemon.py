"""`holdfast doctor` about the daemon: its places, its kin, and when there is none."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.barred import barred, closed
from fakes.daemon import FakeDaemon
from fakes.examined import Examined, examine, examined
from fakes.forked import Forking
from fakes.terminal import Terminal
from fakes.watch import daemons_of, until
from fakes.world import World, program
from holdfast.contract import HASH
from holdfast.v1 import admin_pb2
from holdfast_daemon.doctor import leftovers

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from fakes.sshd import Sshd

pytestmark = pytest.mark.xdist_group("doctor_daemon")

# Other tests' daemons come and go on this machine.
OTHERS = "other daemons"
# What a client looks at where no daemon runs.
STARTS = ("program", "socket directory", "state directory", "service")


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    """Yield a world whose daemon the tests leave as they found it."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    one = World(root)
    one.configure("[limits]\nconfig_check_seconds = 0.1\n")
    with one:
        yield one
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def empty(short_path: Path) -> Iterator[World]:
    """Yield a world without a daemon; one that a test starts is stopped."""
    one = World(short_path)
    one.configure("")
    yield one
    for pid in daemons_of(one):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 15)
    until(lambda: not daemons_of(one), "its daemon ends")


def faults(found: Examined) -> set[str]:
    """Return what is to be seen to."""
    return set(found.of("warn", "fail")) - {OTHERS}


def test_all_well(served: World) -> None:
    """NF-19: sockets, modes, configuration, audit, orphans, lingering, versions."""
    found = examine(served)
    assert found.code == 0
    assert faults(found) == set()
    assert found["socket"]["details"] == {"path": str(served.socket), "mode": "0600"}
    assert str(served.state) in found["state directory"]["told"]
    assert str(served.config) in found["configuration"]["told"]
    assert "intact" in found["audit log"]["told"]
    assert found["daemon"]["details"]["pid"] == str(served.pid)
    versions = found["versions"]["details"]
    assert versions["client"] == versions["daemon"]
    assert (versions["client_contract"], versions["daemon_contract"]) == (HASH, HASH)
    assert int(found["descriptors"]["details"]["used"]) > 0
    assert int(found["disk"]["details"]["free_bytes"]) > 0
    assert found["service"]["verdict"] == "ok"
    assert "OpenSSH" in found["ssh"]["told"]
    assert {"leftovers", "clock", "linger", "~/.ssh", "ssh config"} <= {*found.checks}


def test_an_ssh_that_can_not_be_run(empty: World) -> None:
    """NF-19: it is named, and all the rest is told; it was the only thing told."""
    odd = empty.root / "ssh"
    odd.write_text("no program\n")
    odd.chmod(0o755)
    world = World(empty.root)
    world.environment["HOLDFAST_SSH_BIN"] = str(odd)
    with world:
        found = examine(world, "box")
    assert found["ssh"]["verdict"] == "fail"
    assert str(odd) in found["ssh"]["told"]
    assert {"socket", "disk", "clock"} <= {*found.checks}


@pytest.mark.parametrize("which", ["directory", "file", "link"])
def test_a_place_that_is_not_ours_alone(served: World, which: str) -> None:
    """NF-19: what others can read is named with the command that mends it."""
    odd = served.state / "odd"
    top = served.state
    if which == "directory":
        top.chmod(0o755)
    elif which == "file":
        odd.touch(mode=0o644)
        odd.chmod(0o644)
    else:
        odd.symlink_to("/etc/passwd")
    try:
        found = examine(served)["state directory"]
    finally:
        top.chmod(0o700)
        odd.unlink(missing_ok=True)
    assert found["verdict"] == "fail"
    wanted = {
        "directory": f"chmod 700 {top}",
        "file": f"chmod 600 {odd}",
        "link": f"look who put {odd} there",
    }
    assert wanted[which] in found["hint"]
    assert faults(examine(served)) == set()


def test_a_socket_open_to_others_is_used_by_nobody(served: World) -> None:
    """NF-19: the client itself refuses it, names the mode, and exits 1."""
    served.socket.chmod(0o666)
    try:
        found = examine(served)
    finally:
        served.socket.chmod(0o600)
    assert found.code == 1
    assert "mode 0666" in found["daemon's socket"]["told"]


def test_a_configuration_with_a_mistake(served: World) -> None:
    """NF-19, OB-06: the last good one stays in force, and the mistake is named."""
    good = served.config.read_text()
    served.configure(good + "colour = 1\n")
    try:

        def wrong() -> str:
            one = examine(served)["configuration"]
            return str(one["told"]) if one["verdict"] == "fail" else ""

        told = until(wrong, "the mistake is noticed")
        assert "colour" in told
        assert "last good one is in force" in told
        served.config.chmod(0o666)
        assert examine(served)["configuration file"]["verdict"] == "fail"
    finally:
        served.configure(good)
        served.cli("reload")
    assert faults(examine(served)) == set()


def test_an_audit_log_that_was_changed(empty: World) -> None:
    """NF-19, SE-16: somebody touched the record."""
    empty.configure("")
    with World(empty.root) as world:
        world.cli("reload")
        log = world.state / "audit" / "audit.jsonl"
        log.write_text(log.read_text().replace("configuration", "Configuration"))
        found = examine(world)["audit log"]
    assert found["verdict"] == "fail"
    assert "holdfast audit --verify" in found["hint"]


def test_what_killed_daemons_left_behind(served: World) -> None:
    """NF-19: stale sockets, unfinished files, results without a record."""
    stale = served.run / ".hf-abc123"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(stale))
    lost = served.state / "jobs" / "jlost"
    lost.mkdir(mode=0o700)
    fresh = served.state / "jobs" / "jfresh"
    fresh.mkdir(mode=0o700)
    os.utime(lost, (1, 1))
    try:
        found = examine(served)["leftovers"]
    finally:
        stale.unlink()
        lost.rmdir()
        fresh.rmdir()
    assert found["verdict"] == "warn"
    assert str(stale) in found["told"]
    assert str(lost) in found["told"]
    assert str(fresh) not in found["told"]


def test_other_daemons_of_the_same_user(
    served: World, short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-19: one on a socket of its own is a fact; one nobody reaches is an orphan."""
    # a fork has not the environment it would be known by
    monkeypatch.setattr(Forking, "allowed", False)
    other = World(short_path)
    other.configure("[limits]\nsocket_check_seconds = 3600\n")
    with other:
        found = examine(served)[OTHERS]
        assert found["details"].get(str(other.pid)) == str(other.socket), found
        kept = other.socket.with_name("kept")
        other.socket.rename(kept)

        def orphan() -> dict[str, Any]:
            one = examine(served)[OTHERS]
            told = f"{other.pid} ({other.socket})"
            return one if told in one["told"] else {}

        found = until(orphan, "it is old enough to be called that")
        assert found["verdict"] == "warn"
        assert str(other.pid) in found["hint"]
        kept.rename(other.socket)


@contextlib.contextmanager
def running(*words: str, at: Path, **environment: str) -> Generator[int]:
    """Run a program of this user from a directory; yield its process id."""
    kept = {key: os.environ[key] for key in ("HOME", "PATH")}
    with subprocess.Popen(
        words, cwd=at, env=kept | environment, stdin=subprocess.DEVNULL
    ) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


@pytest.mark.parametrize("how", ["by a rule", "relative", "relative state"])
def test_a_daemon_is_looked_for_where_it_listens(
    served: World, short_path: Path, how: str
) -> None:
    """NF-19: nobody is told to end one that clients reach by the usual rules."""
    socket_path = short_path / "state" / "run" / "holdfast.sock"
    words, variables = list[str](), {"HOLDFAST_STATE_DIR": str(short_path / "state")}
    if how == "by a rule":
        socket_path = short_path / "holdfast" / "holdfast.sock"
        variables["XDG_RUNTIME_DIR"] = str(short_path)
    elif how == "relative":
        socket_path = short_path / "own" / "x.sock"
        words = ["--socket", "own/x.sock"]
    elif Path(f"/run/user/{os.getuid()}").is_dir():
        pytest.skip("this machine has a place for sockets of its own")
    else:
        words, variables = ["--state-dir=state"], {}
    daemon = program("holdfastd")
    with running(daemon, *words, at=short_path, **variables) as pid:
        until(socket_path.is_socket, "it listens")
        found = examine(served)[OTHERS]
        assert found["details"].get(str(pid)) == str(socket_path), found
        (seen,) = (o for o in leftovers.processes(served.socket) if o.pid == pid)
        assert seen.answers


def test_who_reads_a_file_of_its_name_is_no_daemon(
    served: World, short_path: Path
) -> None:
    """NF-19: an editor, or a look into a log, is never named as something to end."""
    os.mkfifo(short_path / "holdfastd")
    with running("cat", "holdfastd", at=short_path) as pid:
        found = examine(served)[OTHERS]
        assert str(pid) not in found["details"], found


@pytest.mark.parametrize("which", ["jobs/jclosed", "audit", "."])
def test_a_place_nobody_may_look_into_hides_no_other(empty: World, which: str) -> None:
    """NF-19: what can't be looked at is one finding, and the others are all there."""
    words = [*barred(), program("holdfast"), "doctor", "--json"]

    def found() -> Examined:
        done = subprocess.run(
            words, env=empty.environment, capture_output=True, check=False, timeout=60
        )
        return Examined(done.returncode, json.loads(done.stdout)["findings"])

    found()  # the first one starts the daemon
    checks = set(found().checks)
    place = empty.state / which
    place.mkdir(mode=0o700, exist_ok=True)
    os.utime(place, (1, 1))
    with closed(place):
        now = found()
    assert checks <= set(now.checks), now
    assert str(place) not in now["leftovers"]["told"]
    if which != "jobs/jclosed":
        assert now["audit log"]["verdict"] == "fail"
        assert "Permission denied" in now["audit log"]["told"]
        assert str(empty.state / "audit") in now["audit log"]["hint"]


# No daemon, or not the right one


def test_without_a_daemon_the_client_looks_by_itself(empty: World) -> None:
    """NF-19: it says so, looks at what a start needs, and starts nothing."""
    found = examine(empty, "--no-autostart", "box")
    assert found.code == 1
    assert found["daemon's socket"]["told"].startswith("no daemon runs")
    for check in STARTS:
        assert found[f"start: {check}"]["verdict"] == "ok"
    assert found["daemon"]["details"]["reason"] == "DAEMON_UNAVAILABLE"
    assert "holdfastd" in found["daemon"]["hint"]
    assert not empty.run.exists()


def test_the_client_looks_without_the_daemon_s_code(empty: World) -> None:
    """NF-19: whatever is wrong with the daemon's packages, the client can tell."""
    code = (
        "import sys; from holdfast_shim.cli import main;"
        "main(['--no-autostart', 'doctor']);"
        "sys.exit(any(n.startswith(('holdfast_daemon', 'asyncssh'))"
        " for n in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=empty.environment,
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0, done


def test_a_daemon_is_started_and_that_is_told(empty: World) -> None:
    """NF-19: a start that works is proved by starting."""
    found = examine(empty)
    assert found.code == 0
    assert found["daemon's socket"]["verdict"] == "skip"
    assert found["start"]["told"].startswith("one was started in")
    assert examine(empty)["daemon's socket"]["verdict"] == "ok"


def test_a_daemon_that_can_t_start_says_why(empty: World) -> None:
    """NF-19: its own words, and the place that is wrong."""
    empty.configure("colour = 1\n")
    found = examine(empty)
    assert found.code == 1
    assert "colour" in found["daemon"]["told"]
    empty.configure("")
    empty.state.mkdir(mode=0o755, exist_ok=True)
    empty.state.chmod(0o755)
    place = examine(empty, "--no-autostart")["start: state directory"]
    assert (place["verdict"], "0755" in place["told"]) == ("fail", True)
    empty.state.chmod(0o700)


def test_a_stale_socket_is_told_and_replaced(empty: World) -> None:
    """NF-19: a killed daemon's socket is no daemon; the next start mends it."""
    empty.start()
    empty.kill()
    found = examine(empty, "--no-autostart")
    assert found["daemon's socket"]["verdict"] == "warn"
    assert "stale" in found["daemon's socket"]["told"]
    found = examine(empty)
    assert found.code == 0
    assert found["start"]["verdict"] == "ok"


def test_a_stuck_daemon_is_named_by_its_lock(empty: World) -> None:
    """NF-19: nothing answers, and a process holds the lock."""
    empty.run.mkdir(mode=0o700)
    lock = empty.socket.with_name(empty.socket.name + ".lock")
    with lock.open("w") as file:
        file.write(f"{os.getpid()}\n")
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        found = examine(empty, "--no-autostart")["daemon's socket"]
    assert found["verdict"] == "fail"
    assert f"process {os.getpid()} holds its lock" in found["told"]
    assert str(os.getpid()) in found["hint"]


def test_a_second_daemon_on_the_same_state(served: World) -> None:
    """NF-19: one that can't start beside another is told which one that is."""
    elsewhere = served.root / "else"
    found = examine(served, env={"HOLDFAST_SOCKET": str(elsewhere / "x.sock")})
    assert found.code == 1
    assert f"in use by the daemon on {served.socket}" in found["daemon"]["told"]


class Another(FakeDaemon):
    """A daemon of another release."""

    def __init__(self, path: Path, version: str, contract: str, oldest: int) -> None:
        super().__init__(path)
        self._told = (version, contract, oldest)

    async def _hello(
        self,
        request: admin_pb2.HelloRequest,  # noqa: ARG002  the fake's own
        _: Any,
    ) -> admin_pb2.HelloResponse:
        version, contract, oldest = self._told
        return admin_pb2.HelloResponse(
            version=version,
            instance="another",
            protocol_min=oldest,
            protocol_max=oldest,
            contract_hash=contract,
            pid=4711,
        )


@pytest.mark.parametrize(
    ("release", "check", "told"),
    [
        (("0.0.9", HASH, 1), "versions", "the running daemon is holdfast 0.0.9"),
        (("0.1.0", "0123abcd", 1), "versions", "of different contracts"),
        (("9.0.0", "0123abcd", 2), "daemon", "speaks protocol 2 to 2"),
    ],
)
async def test_a_daemon_of_another_release(
    empty: World, release: tuple[str, str, int], check: str, told: str
) -> None:
    """NF-19: version, contract and protocol skew are told apart, with what to do."""
    empty.run.mkdir(mode=0o700)
    async with Another(empty.socket, *release):
        found = await examined(empty)
    assert found[check]["verdict"] == ("warn" if check == "versions" else "fail")
    assert told in found[check]["told"]
    assert "`holdfast service upgrade`" in found[check]["hint"]
    # It does not know the doctor's calls, which is told and is no crash.
    assert found["daemon"]["verdict"] == "fail"


def test_a_wrong_variable_of_the_client_is_a_finding(served: World) -> None:
    """NF-19: what the client's own environment says is looked at first."""
    found = examine(served, env={"SSH_DEFAULT_PORT": "none"})
    assert "SSH_DEFAULT_PORT" in found["environment"]["told"]
    found = examine(served, env={"HOLDFAST_SOCKET": "not/absolute"})
    assert "HOLDFAST_SOCKET" in found["places"]["told"]


def test_nothing_secret_is_told(served: World, sshd: Sshd) -> None:
    """NF-19, SE-01: the client's password and key stay where they are."""
    key = sshd.key.read_text()
    secret = {"SSH_DEFAULT_PASSWORD": "hunter22-hunter", "SSH_PRIVATE_KEY": key}
    done = served.cli("doctor", "--json", "nobody.invalid", env=secret, check=False)
    assert json.loads(done.stdout)["findings"]
    for hidden in ("hunter22-hunter", key.splitlines()[1]):
        assert hidden not in done.stdout.decode()
        assert hidden not in served.log.read_text()


async def test_a_person_sees_all_of_it(served: World) -> None:
    """NF-19, IN-08: on a terminal lines are folded, not cut."""
    served.state.chmod(0o755)
    try:
        with Terminal() as terminal:
            await terminal.run(program("holdfast"), "doctor", env=served.environment)
            await terminal.until("1 failed.*\n")
            code = await terminal.ended()
    finally:
        served.state.chmod(0o700)
    shown = "".join(terminal.said.decode().split())
    assert code == 1
    assert f"chmod700{served.state}" in shown
    assert "1failed" in shown
    assert await asyncio.to_thread(lambda: faults(examine(served))) == set()
