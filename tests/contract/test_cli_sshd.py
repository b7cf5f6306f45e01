"""`holdfast` end to end: the real daemon and a real OpenSSH server."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.tools import served
from fakes.watch import until
from fakes.world import PATIENCE, program

if TYPE_CHECKING:
    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = pytest.mark.needs_sshd
MIB = 1024 * 1024


def begin(world: World, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [program("holdfast"), *words],
        env=world.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def gone(pid: int) -> bool:
    """Whether a process of the host, which is this machine, ends in time."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([process], [], [], PATIENCE)[0])
    finally:
        os.close(process)


def test_a_command_runs_as_ssh_would_run_it(world: World) -> None:
    """EX-01, EX-07, EX-08, EX-19: streams apart, bytes, environment, exit code."""
    told = world.cli(
        "exec", "--env", "A=x y", "--cwd", "/", "box",
        "--", 'echo "$A $PWD"; echo err >&2; cat; exit 7',
        stdin=b"\x00\xff\r\n", check=False,
    )  # fmt: skip
    assert told.returncode == 7
    assert told.stdout == b"x y /\n\x00\xff\r\n"
    assert told.stderr == b"err\n"


def test_the_document_is_that_of_ssh_exec(world: World) -> None:
    """EX-02, IN-08."""
    found = json.loads(world.cli("--json", "exec", "box", "echo", "hi").stdout)
    assert (found["ok"], found["stdout"], found["exit_code"]) == (True, "hi\n", 0)
    assert found["target"] == "box"
    jobs = world.cli_json("jobs")["jobs"]
    assert jobs[0]["job_id"] == found["job_id"]
    assert world.cli("job", found["job_id"]).stdout == b"hi\n"
    assert world.cli("job", found["job_id"], "--follow").stdout == b"hi\n"
    assert world.cli_json("job", found["job_id"])["stdout"] == "hi\n"
    assert world.cli("job", found["job_id"], "--grep", "h").stdout == b"1: hi\n"


def test_output_with_a_hole_in_it_passes_for_no_whole_one(
    sshd: Sshd, tmp_path: Path
) -> None:
    """EX-20, NF-10: what was discarded before it was read is told, and no success."""
    small = "spool_bytes = 1048576\nsegment_bytes = 65536\n"
    with served(sshd, limits=small) as world:
        gate = tmp_path / "gate"
        held = f"echo 1; until [ -e {gate} ]; do sleep 0.05; done; seq 3000000"
        words = ("exec", "-n", "--durable", "box", "--", held)
        with begin(world, *words) as process:
            assert process.stdout is not None
            # nobody reads on before all of it has come
            assert process.stdout.readline() == b"1\n"
            gate.touch()
            (job,) = world.cli_json("jobs")["jobs"]
            until(lambda: not world.cli_json("jobs", "--running")["jobs"], "it is over")
            out, err = process.communicate(timeout=PATIENCE)
        assert b"were discarded" in err
        assert out.endswith(b"\n3000000\n")
        assert process.returncode == 255
        found = world.cli_json("job", job["job_id"])
        assert (found["exit_code"], found["truncated"]) == (0, True)
        assert "were discarded" in found["note"]
        document = world.cli("--json", *words, check=False)
        assert json.loads(document.stdout)["truncated"] is True
        assert document.returncode == 255


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_remote_process(world: World, number: int) -> None:
    """EX-21: nothing is left on the host."""
    process = begin(world, "exec", "-n", "box", "--", "echo $$; exec sleep 1000")
    with process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(number)
        assert process.wait(PATIENCE) == 128 + number
    assert gone(pid)


def test_a_killed_caller_leaves_nothing_running(world: World) -> None:
    """The command is hung up on when the caller goes away, as with ssh."""
    with begin(world, "exec", "box", "--", "echo $$; exec sleep 1000") as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.kill()
    assert gone(pid)


@pytest.mark.usefixtures("terminals")
def test_a_terminal_is_given_when_asked_for(world: World) -> None:
    """EX-10."""
    told = world.cli("exec", "-tt", "box", "--", "test -t 0 && test -t 1 && echo yes")
    assert told.stdout == b"yes\r\n"


def test_a_large_output_arrives_whole_through_a_slow_reader(world: World) -> None:
    """EX-12: more than the spool keeps, as `ssh host cat big > file` would."""
    size = 200 * MIB
    with begin(
        world, "exec", "-n", "box", "--", f"head -c {size} /dev/zero"
    ) as process:
        assert process.stdout is not None
        time.sleep(1)  # the reader is slow: that is what is tested
        found = 0
        while data := process.stdout.read(MIB):
            found += len(data)
    assert (found, process.returncode) == (size, 0)


def test_a_large_input_arrives_whole(world: World) -> None:
    """EX-12."""
    told = world.cli("exec", "box", "wc", "-c", stdin=b"x" * (20 * MIB))
    assert int(told.stdout) == 20 * MIB


def test_failures_are_typed_and_name_the_next_step(world: World) -> None:
    """EX-20: what never ran is 255 for exec and 1 elsewhere."""
    for words, code in (
        (["exec", "--cwd", "/nonexistent", "box", "--", "true"], 255),
        (["exec", "nowhere.invalid", "--", "true"], 255),
        (["exec", "-o", "ProxyCommand=x", "box", "--", "true"], 255),
        (["hosts", "test", "nowhere.invalid"], 1),
        (["job", "nonesuch"], 1),
    ):
        told = world.cli(*words, check=False)
        assert told.returncode == code, words
        assert b"holdfast: " in told.stderr
        assert b"hint: " in told.stderr
        told = world.cli("--json", *words, check=False)
        assert json.loads(told.stdout)["error"]["ran"] == "no"


def test_a_host_is_listed_and_tested(world: World) -> None:
    """IN-03, IN-05."""
    assert [h["name"] for h in world.cli_json("hosts", "list")["hosts"]] == ["box"]
    found = world.cli_json("hosts", "test", "box")
    assert found["connected"]
    assert found["server_version"].startswith("SSH-2.0-OpenSSH")
    assert b"SHA256:" in world.cli("hosts", "test", "box").stdout


def test_what_was_done_is_in_an_intact_audit_log(world: World) -> None:
    world.cli("exec", "box", "--", "echo evidence")
    assert b"echo evidence" in world.cli("audit").stdout
    assert world.cli_json("audit", "--verify")["intact"]


def test_a_daemon_is_started_when_none_answers(world: World) -> None:
    """Contract section 1, autostart."""
    world.stop()
    assert world.cli("--no-autostart", "status", check=False).returncode == 69
    assert world.cli_json("status")["version"]
    assert world.cli("exec", "box", "--", "echo up").stdout == b"up\n"


@pytest.mark.usefixtures("terminals")
def test_a_terminals_input_ends_with_ours(world: World) -> None:
    """EX-10: `-tt` with a pipe sends what a person types for the end of input."""
    for stdin, told in ((b"", b""), (b"x\n", b"x\r\nx\r\n"), (b"x", b"xx")):
        found = world.cli("exec", "-tt", "box", "--", "cat", stdin=stdin)
        assert found.stdout == told


def test_a_time_limit_ends_with_124_as_timeout_does(world: World) -> None:
    """EX-04."""
    # so that the time is the command's own, and none of it the login's
    world.cli("exec", "box", "true")
    told = world.cli("exec", "--timeout", "5", "box", "--", "sleep 1000", check=False)
    assert told.returncode == 124
    assert b"met its time limit" in told.stderr


def test_reload_without_a_file_changes_nothing_and_says_so(world: World) -> None:
    """IN-02."""
    assert world.cli("reload").stdout == b"no configuration file; nothing changed\n"
    world.configure("")
    told = world.cli("reload").stdout.decode()
    # The daemon may have seen the new file by itself, a moment before.
    assert told.startswith(f"the configuration in {world.config} ")
    assert told.endswith((" is in force\n", " was in force already\n"))
    last = world.cli("audit", "-n", "1").stdout.decode()
    assert "AdminService/Reload" in last


def test_stopping_what_has_ended_is_told_as_that(world: World) -> None:
    """EX-21."""
    job = json.loads(world.cli("--json", "exec", "box", "true").stdout)["job_id"]
    told = world.cli("job", job, "--stop")
    assert b"still runs" not in told.stdout
    assert b"ended" in told.stdout


def test_lines_of_a_tail_that_have_no_room_are_told(world: World) -> None:
    """EX-14: fewer lines than were asked for do not pass for all of them."""
    found = json.loads(
        world.cli("--json", "exec", "box", "seq -f %0400.0f 3000").stdout
    )
    asked = ("job", found["job_id"], "--tail")
    told = world.cli(*asked, "2000")
    shown = told.stdout.splitlines()
    assert shown[-1].endswith(b"3000")
    assert len(shown) < 2000
    assert f"only the last {len(shown)} lines" in told.stderr.decode()
    assert f"holdfast job {found['job_id']}" in told.stderr.decode()
    followed = world.cli(*asked, "2000", "--follow")
    assert (followed.stdout, followed.stderr) == (told.stdout, told.stderr)
    for few in ("700", "1"):
        told = world.cli(*asked, few)
        assert (len(told.stdout.splitlines()), told.stderr) == (int(few), b"")
    whole = world.cli("job", found["job_id"], "--tail", "5", "--stream", "stderr")
    assert (whole.stdout, whole.stderr) == (b"", b"")


def test_a_look_at_what_prints_faster_than_it_is_read_has_an_end(world: World) -> None:
    """EX-14: what has been printed by now, in one document."""
    words = [program("holdfast"), "--no-autostart", "exec", "-n", "box", "yes"]
    with subprocess.Popen(
        words, env=world.environment, stdout=subprocess.DEVNULL
    ) as running:
        (job,) = until(
            lambda: world.cli_json("jobs", "--running")["jobs"], "it is running"
        )
        try:
            look = ("job", job["job_id"])
            until(
                lambda: world.cli_json(*look, "--tail", "1")["stdout_bytes"] > MIB,
                "it prints",
            )
            told = world.cli_json(*look)
            assert (told["status"], told["truncated"]) == ("running", True)
            assert told["stdout"].count("y\n") > 100_000
        finally:
            world.cli("job", job["job_id"], "--stop", "KILL")
        assert running.wait(PATIENCE) != 0


def test_a_job_that_can_not_be_followed_is_told_from_one_that_failed(
    world: World,
) -> None:
    """IN-08: as the help has it, 255 where the code is not the job's own."""
    for words in (("job", "nope", "--follow"), ("job", "nope", "--follow", "--json")):
        told = world.cli(*words, check=False)
        assert told.returncode == 255
        assert b"there is no job" in told.stdout + told.stderr
    full = 'exec "$@" >/dev/full'
    script = "echo begun; sleep 100"
    with begin(world, "--no-autostart", "exec", "-n", "box", script) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == b"begun\n"
        (job,) = world.cli_json("jobs", "--running")["jobs"]
        line = (program("holdfast"), "--no-autostart", "job", job["job_id"], "-f")
        done = subprocess.run(
            ["sh", "-c", full, "sh", *line],
            env=world.environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 255
        assert b"No space left on device" in done.stderr
        with begin(world, *line[1:]) as following:
            assert following.stdout is not None
            assert following.stdout.readline() == b"begun\n"
            world.kill()
            _, said = following.communicate(timeout=PATIENCE)
        assert following.returncode == 255
        assert b"the connection to the holdfast daemon ended" in said
        assert running.wait(PATIENCE) == 255
    told = world.cli("--no-autostart", "job", job["job_id"], "--follow", check=False)
    assert told.returncode == 69


def test_a_copy_names_its_host_as_every_call_does(
    world: World, sshd: Sshd, tmp_path: Path
) -> None:
    """FI-01: ssh://HOST:PORT was taken for a host whose name is ssh."""
    (tmp_path / "a").write_text("content")
    for number, host in enumerate(("ssh://box", f"ssh://box:{sshd.port}")):
        there = f"{tmp_path}/there {number}"
        world.cli("copy", str(tmp_path / "a"), f"{host}{there}")
        assert Path(there).read_text() == "content"
        world.cli("copy", f"{host}{there}", f"{tmp_path}/here{number}")
        assert (tmp_path / f"here{number}").read_text() == "content"
    (tmp_path / "d").mkdir()
    world.cli("sync", f"ssh://box{tmp_path}/d", f"{tmp_path}/e")
    assert (tmp_path / "e").is_dir()
    told = world.cli("copy", "ssh://box/~/no-such", str(tmp_path / "f"), check=False)
    assert (told.returncode, told.stdout) == (1, b"")
    assert b"there is no " in told.stderr
    assert b"/~" not in told.stderr
