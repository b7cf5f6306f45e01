"""What a person meets who does it wrong: what was wrong, and the way on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.terminal import sitting
from fakes.tools import tools
from fakes.watch import until
from fakes.world import PATIENCE, World, program

if TYPE_CHECKING:
    from fakes.sshd import Sshd

pytestmark = pytest.mark.needs_sshd


def by_shell(
    world: World, line: str, *words: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of sh whose `"$@"` is `holdfast` with `words`."""
    return subprocess.run(
        ["sh", "-c", line, "sh", program("holdfast"), *words],
        env=world.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )


def answering(environment: dict[str, str]) -> dict[str, Any]:
    """Return the status of a daemon, once it answers."""

    def ask() -> bytes:
        return subprocess.run(
            [program("holdfast"), "--no-autostart", "status", "--json"],
            env=environment,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        ).stdout

    def asked() -> dict[str, Any] | None:
        found = json.loads(ask())
        return found if "pid" in found else None

    return until(asked, "an answer") or {}


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptor_is_dev_null(world: World, closed: str) -> None:
    """IN-08: as in ssh; no socket of ours takes its number and the command's output."""
    told = by_shell(
        world, f'"$@" {closed}', "exec", "box", "cat; echo out; echo err >&2; exit 5"
    )
    assert told.returncode == 5
    parts = closed.split()
    assert told.stdout == (b"" if ">&-" in parts else b"out\n")
    assert told.stderr == (b"" if "2>&-" in parts else b"err\n")
    told = by_shell(world, f'"$@" {closed}', "exec", "box")
    assert (told.returncode, told.stdout) == (2, b"")
    assert bool(told.stderr) is ("2>&-" not in parts)


async def test_a_table_cuts_no_id_and_no_exit_code(world: World) -> None:
    """IN-08: in 40 columns, too, `holdfast job` can be given what `jobs` shows."""
    long = "exit 17 # " + "a long command " * 10
    found = json.loads(world.cli("--json", "exec", "box", long, check=False).stdout)
    for columns in (40, 80, 120):
        async with sitting() as person:
            person.resize(columns, 24)
            await person.run(program("holdfast"), "jobs", env=world.environment)
            await person.until(rf"{found['job_id']} .*exit 17 .*exit.*…")
            assert await person.ended() == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("stauts",), "did you mean 'status'"),
        (("hosts", "lits"), "did you mean 'list'"),
        (("hosts", "add", "web1"), "not available yet"),
        (("hosts", "import"), "~/.ssh/config are used as they are"),
        (("token", "list"), "not available yet"),
        (("status", "box", "--limits"), "goes without a target"),
        (("forward", "box", "-L", "0:a:1", "-L", "0:b:1"), "and once"),
        (("exec", "-o", "StrictHostKeyChecking=ask", "box", "true"), "hosts trust"),
        (("exec", "-o", "UserKnownHostsFile=a b", "box", "true"), "takes one file"),
    ],
)
def test_wrong_words_are_told_with_the_way(
    world: World, words: tuple[str, ...], said: str
) -> None:
    """IN-08: exit code 2; the same as JSON."""
    told = world.cli(*words, check=False)
    assert (told.returncode, told.stdout) == (2, b"")
    assert said.lower() in told.stderr.decode().lower()
    told = world.cli("--json", *words, check=False)
    error = json.loads(told.stdout)["error"]
    assert (told.returncode, error["ran"], told.stderr) == (2, "no", b"")
    assert said.lower() in f"{error['message']} {error['hint']}".lower()


def test_errors_name_verbs_and_no_tools(world: World, tmp_path: Path) -> None:
    """IN-08: what agents are told to call is a verb for a person."""
    (tmp_path / "d").mkdir()
    (tmp_path / "f").write_text("x")
    wrong = [
        ("sync", "box:/nope", str(tmp_path / "to")),
        ("sync", str(tmp_path / "f"), f"box:{tmp_path}/to"),
        ("copy", str(tmp_path / "d"), f"box:{tmp_path}/to"),
        ("copy", "box:/nope", str(tmp_path / "to")),
        ("copy", str(tmp_path / "f"), f"box:{tmp_path}/no/such"),
        ("copy", str(tmp_path / "f"), f"box:{tmp_path}/f"),
        ("forwards", "--close", "nope"),
        ("sessions", "--on", "box", "--wipe", "nope"),
        ("exec", "box", "x" * 100_000, "x" * 100_000),
        ("job", "nope"),
    ]
    for words in wrong:
        told = world.cli(*words, check=False)
        said = told.stderr.decode()
        assert told.returncode in (1, 255), said
        assert "hint: " in said
        assert not re.search(r"ssh_[a-z]+|Set \w+|ListKept|job_id", said), said
        told = world.cli("--json", *words, check=False)
        assert "ssh_" not in told.stdout.decode()
    told = world.cli("jobs", env={"SSH_DEFAULT_TIMEOUT_SEC": "-1"}, check=False)
    assert b"from 0 to 31536000" in told.stderr
    assert b"correct SSH_DEFAULT_TIMEOUT_SEC in your environment" in told.stderr
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "d", tmp_path / "f"]


def test_errors_name_options_and_no_arguments_of_tools(
    world: World, sshd: Sshd, tmp_path: Path
) -> None:
    """IN-08: what an agent is told to set is an option for a person."""
    (tmp_path / "f").write_text("x")
    config = tmp_path / "config"
    odd = "Host none\n  SessionType none\nHost far\n  RemoteCommand top\n"
    config.write_text(odd + sshd.config.read_text().replace("Host box", "Host *"))
    world.stop()
    world.environment["HOLDFAST_SSH_CONFIG"] = str(config)
    world.start()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slow = ("-p", str(silent.getsockname()[1]), "box", "true")
        for words, option in (
            (("copy", str(tmp_path / "f"), f"box:{tmp_path}/no/such"), "in a slash"),
            (("exec", "-o", "ConnectTimeout=1", *slow), "-o ConnectTimeout=SECONDS"),
            (("exec", "--timeout", "1", *slow), "raise --timeout"),
            (("exec", "none", "true"), "-o SessionType=default"),
            (("exec", "far", "true"), "-o RemoteCommand=none"),
        ):
            said = world.cli(*words, check=False).stderr.decode()
            assert option in said.lower() or option in said, said
            wrong = r"make_parents|_seconds|connect\.options"
            assert not re.search(wrong, said), said
    mended = (("none", "SessionType=default"), ("far", "RemoteCommand=none"))
    for host, option in mended:
        assert world.cli("exec", "-o", option, host, "echo on").stdout == b"on\n"


def test_a_recording_is_not_found_by_an_empty_name(
    world: World, tmp_path: Path
) -> None:
    """OB-04: an empty name fits no session, also none that has no name."""
    world.cli("shell", "box", "--detached")
    told = world.cli("replay", "", check=False)
    assert (told.returncode, told.stdout) == (1, b"")
    assert b"there is no session" in told.stderr
    told = world.cli("replay", f"{tmp_path}/", check=False)
    assert b"is a directory" in told.stderr
    odd = tmp_path / "odd"
    for content in (b"no header\n", b"\xff\x00"):
        odd.write_bytes(content)
        told = world.cli("--json", "replay", str(odd), check=False)
        error = json.loads(told.stdout)["error"]
        assert (told.returncode, error["reason"]) == (1, "INVALID_ARGUMENT")
        told = world.cli("replay", str(odd), check=False)
        assert (told.returncode, told.stdout) == (1, b"")
        assert b"can't be played" in told.stderr


def test_ssh_options_of_their_own_arguments_are_taken(
    world: World, sshd: Sshd, tmp_path: Path
) -> None:
    """AU-06: -o as ssh has it; what was said first counts."""
    known = tmp_path / "known"
    known.write_text("")
    strange = f"UserKnownHostsFile={known}"
    config = tmp_path / "config"
    own = tmp_path / "own"
    config.write_text(sshd.config.read_text().replace(str(sshd.known_hosts), str(own)))
    world.stop()
    world.environment["HOLDFAST_SSH_CONFIG"] = str(config)
    world.start()
    told = world.cli(
        "exec", "-o", strange, "-o", "stricthostkeychecking=yes",
        "-o", "StrictHostKeyChecking=no", "box", "true", check=False,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (255, b"")
    assert b"is not known" in told.stderr
    told = world.cli(
        "exec", "-o", "StrictHostKeyChecking off", "-o", "UserKnownHostsFile=none",
        "-o", "ProxyJump=none", "box", "echo", "in",
    )  # fmt: skip
    assert told.stdout == b"in\n"
    assert not own.exists()


def test_a_disconnect_tells_what_ended_with_it(world: World) -> None:
    """IN-08: nothing ends in silence."""
    world.cli("forward", "box", "-D", "0")
    told = world.cli("hosts", "disconnect", "box", check=False)
    assert told.returncode == 1
    told = world.cli("hosts", "disconnect", "box", "--force")
    assert told.stdout == b"closed, with 1 forwards\n"


def test_a_job_that_had_ended_is_told_once(world: World) -> None:
    """EX-21."""
    job = json.loads(world.cli("--json", "exec", "box", "true").stdout)["job_id"]
    told = world.cli("job", job, "--stop")
    assert told.stdout == f"job {job} had ended before: exit 0\n".encode()
    assert told.stderr == b""


def test_a_durable_command_is_found_again_after_a_crash(world: World) -> None:
    """NF-10: whoever looked on is told how to read on, and that it runs."""
    waiting = "echo begun; while [ ! -e go ]; do sleep 0.05; done; exit 3"
    words = ["--durable", "-n", "--cwd", str(world.root), "box", waiting]
    with subprocess.Popen(
        [program("holdfast"), "exec", *words],
        env=world.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as looker:
        assert looker.stdout is not None
        assert looker.stdout.readline() == b"begun\n"
        world.kill()
        _, said = looker.communicate(timeout=PATIENCE)
    assert looker.returncode == 255
    found = re.search(rb"hint: `holdfast job (\w+) --follow`", said)
    assert found is not None, said
    (world.root / "go").touch()
    world.start()
    told = world.cli("job", found[1].decode(), "--follow", check=False)
    assert (told.returncode, told.stdout) == (3, b"begun\n")


def test_a_name_of_two_forwards_is_refused(world: World, sshd: Sshd) -> None:
    """FW-05: forwards that came back under one name are both named, none is taken."""
    sshd.config.write_text(sshd.client_config() + sshd.client_config("crate"))
    world.cli("forward", "box", "-D", "0", "--name", "one", "--durable")
    world.cli("forward", "crate", "-L", "0:a:1", "--name", "two", "--durable")
    told = world.cli("forward", "box", "-L", "0:b:1", "--name", "two", check=False)
    assert b"through crate" in told.stderr
    world.stop()
    (saved,) = world.state.glob("forwards*.json")
    saved.write_text(saved.read_text().replace('"two"', '"one"'))
    world.start()

    def both() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = world.cli_json("forwards")["forwards"]
        return found if len(found) == 2 else []

    ids = [one["forward_id"] for one in until(both, "both forwards")]
    told = world.cli("forwards", "--close", "one", check=False)
    assert told.returncode == 1
    said = told.stderr.decode()
    assert all(part in said for part in (*ids, "on box", "on crate")), said
    for ident in ids:
        world.cli("forwards", "--close", ident)
    # of those that ended the newest is told of, as before
    assert b"had stopped before" in world.cli("forwards", "--close", "one").stdout


def test_the_daemon_begins_without_descriptors_and_refuses_empty_places(
    short_path: Path,
) -> None:
    """PK-06: its database gets the number of no closed stdout."""
    state, run = short_path / "state", short_path / "run"
    run.mkdir(mode=0o700)
    words = ["--socket", str(run / "s"), "--state-dir", str(state)]
    with subprocess.Popen(
        ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", program("holdfastd"), *words]
    ) as daemon:
        try:
            environment = World(short_path).environment
            environment["HOLDFAST_SOCKET"] = str(run / "s")
            status = answering(environment)
            own = Path(f"/proc/{daemon.pid}/fd")
            places = [str((own / str(n)).readlink()) for n in range(3)]
        finally:
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(PATIENCE) == 0
    assert status["pid"] == daemon.pid
    assert places == ["/dev/null"] * 3
    told = subprocess.run(
        [program("holdfastd"), "--socket", ""],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert told.returncode == 2
    assert b"argument --socket: it is empty" in told.stderr


def test_an_interrupted_demo_leaves_nothing(short_path: Path) -> None:
    """PK-05: Ctrl-C reaches all of a terminal's programs; ours end in order."""
    environment = {**World(short_path).environment, "TMPDIR": str(short_path)}
    with subprocess.Popen(
        [program("holdfast"), "demo"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as demo:
        assert demo.stdout is not None
        while not demo.stdout.readline().startswith(b"4."):
            assert demo.poll() is None
        os.killpg(demo.pid, signal.SIGINT)
        _, said = demo.communicate(timeout=2 * PATIENCE)
    assert (demo.returncode, said) == (130, b"")
    assert list(short_path.iterdir()) == []
    told = subprocess.run(["ps", "-axo", "args="], capture_output=True, check=True)
    assert str(short_path).encode() not in told.stdout


def test_a_restart_without_a_service_minds_its_places(world: World) -> None:
    """PK-04: the daemon of other places is not started in place of the one meant."""
    if shutil.which("systemctl") is None:
        pytest.skip("no systemctl here")
    home = {"HOME": str(world.root)}
    told = world.cli("service", "restart", env=home, check=False)
    assert told.returncode == 1
    assert b"HOLDFAST_" in told.stderr
    assert b"the service serves the standard places only" in told.stderr


@pytest.mark.usefixtures("terminals")
async def test_a_session_refuses_too_long_a_command_with_a_way_it_has(
    world: World,
) -> None:
    """SE-02: a command in a session has no stdin; a file or ssh_exec takes a script."""
    async with tools(world) as ssh:
        opened = await ssh.told("ssh_session_open", target="box", session_name="long")
        told = await ssh.refused(
            "ssh_session_run", session=opened["session_id"], command="#" * 400_000
        )
        assert (told["reason"], told["ran"]) == ("INVALID_ARGUMENT", "no")
        assert "400000 bytes" in told["message"]
        assert "ssh_file_write" in told["hint"]
        assert "stdin of ssh_exec" in told["hint"]
        again = await ssh.told("ssh_session_run", session="long", command="echo on")
        assert again["stdout"] == "on\n"
