"""Framed commands in every shell, held by the daemon or kept on the host: as one table.

The ways are told of in `fakes.framed`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.framed import (
    SHELLS,
    Hosts,
    Place,
    Sessions,
    both_hosts,
    every_shell,
    every_way,
    held_ways,
    place,
    posix_shell,
    roomy_ways,
)
from fakes.sshd import Sshd
from fakes.tools import Result, served, tools
from fakes.watch import moment, soon
from holdfast_daemon.limits import Limits
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("terminals"),
]

# of the long output that has to arrive exactly; `make soak` asks for 10 MB
BYTES = int(os.environ.get("HOLDFAST_HELD_BYTES", "1000000"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosts(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hosts]:
    async with both_hosts(tmp_path_factory.mktemp("hosts")) as one:
        yield one


@pytest_asyncio.fixture(loop_scope="module")
async def sessions(
    request: pytest.FixtureRequest, hosts: Hosts
) -> AsyncIterator[Sessions]:
    async with hosts.reached(request.param) as one:
        yield one


@every_way
@every_shell
async def test_just_its_output_and_its_code(sessions: Sessions, shell: str) -> None:
    """SE-02: no echo, prompt or escape; the streams apart, or that is said."""
    one = await sessions.open(shell)
    told = await one.run("true")
    assert (told["stdout"], told["exit_code"], told["ok"]) == ("", 0, True)
    told = await one.run("echo out; echo err >&2; printf 'no newline'")
    assert told["exit_code"] == 0
    if one.way == "inband":
        assert one.said(told) == ("out\nerr\nno newline", "")
        assert "stderr came with stdout" in told["note"]
    else:
        assert one.said(told) == ("out\nno newline", "err\n")
        assert "note" not in told
    assert (await one.run("sh -c 'exit 77'"))["exit_code"] == 77
    assert (await one.run("false"))["exit_code"] == 1
    assert (await one.run("no_such_command_here"))["exit_code"] == 127
    # it has no input, and its terminal none of it
    assert await one.out("cat") == ""
    quoted = "printf '%s\\n' 'a\tb' \"c'd\" '!x' 'back\\slash' 'é'\necho e\n"
    assert await one.out(quoted) == "a\tb\nc'd\n!x\nback\\slash\né\ne\n"
    long = "# " + "x" * 9000 + "\necho after"
    assert await one.out(long) == "after\n"


# what a busy host does between telling of a shell and becoming it
_SLOW = r"""
trap 'case $BASH_COMMAND in "exec "*" -l") sleep 1.5 ;; esac' DEBUG
"""


@pytest.mark.parametrize("shell", [one for one in SHELLS if one != "bash"])
async def test_one_that_is_not_the_shell_yet(tmp_path: Path, shell: str) -> None:
    """SE-02: it is told what its shell reads, not what that one's starter would."""
    (tmp_path / ".bashrc").write_text(_SLOW)
    with place(tmp_path) as at:
        async with tools(at.world) as ssh:
            one = await Sessions(ssh, at, "beside").open(shell)
            assert await one.out("echo out") == "out\n"


@every_way
@posix_shell
async def test_state_carries_over(sessions: Sessions, shell: str) -> None:
    """SE-01, SE-02: directory, variables, functions, umask, aliases, jobs."""
    one = await sessions.open(shell)
    told = await one.run(
        'cd /usr/bin; export E=1; v=2; f() { echo "f$1"; }\n'
        "umask 027; alias al='echo aliased'; set -- p q"
    )
    assert (told["exit_code"], told["cwd"]) == (0, "/usr/bin")
    said = (await one.out("pwd; sh -c 'echo $E'; echo $v; f 3; umask; al")).split()
    assert said == ["/usr/bin", "1", "2", "f3", said[4], "aliased"]
    assert int(said[4], 8) == 0o027
    told = await one.run("sh -c 'sleep 60; echo late' & echo begun")
    assert "begun" in told["stdout"]
    assert await one.out("kill %1; echo on") == "on\n"


@every_way
async def test_state_carries_over_in_fish(sessions: Sessions) -> None:
    """SE-01, SE-02: the same in its own words."""
    one = await sessions.open("fish")
    told = await one.run(
        "cd /usr/bin; set -gx E 1; set -g v 2; function f; echo f$argv; end\numask 027"
    )
    assert (told["exit_code"], told["cwd"]) == (0, "/usr/bin")
    said = await one.out("pwd; sh -c 'echo $E'; echo $v; f 3; umask")
    assert said.split() == ["/usr/bin", "1", "2", "f3", "0027"]


@roomy_ways
@every_shell
async def test_the_last_code_is_there_for_the_next(
    sessions: Sessions, shell: str
) -> None:
    """SE-01: `$?` is that of the command before, as in any terminal."""
    one = await sessions.open(shell)
    asked = "echo $status" if shell == "fish" else "echo $?"
    assert (await one.run("sh -c 'exit 7'"))["exit_code"] == 7
    assert await one.out(asked) == "7\n"
    assert await one.out(asked) == "0\n"
    assert (await one.run("no_such_command_here"))["exit_code"] == 127
    assert await one.out(asked) == "127\n"


@every_way
@every_shell
async def test_what_is_wrong_is_told(sessions: Sessions, shell: str) -> None:
    """SE-02: unfinished quotes, syntax errors, aborts: told, not hung; it goes on."""
    broken = ['echo "unfinished', "echo 'it", "x=$(", "if true"]
    if shell != "fish":
        broken += [
            "${x:?msg}",
            "echo ${x:?msg}; echo never",
            ")",
            "cat <<X\nunended $(",
        ]
        broken += ["set -u; echo $nope"]
    one = await sessions.open(shell)
    for command in broken:
        told = await one.run(command, timeout_seconds=40)
        assert (told["status"], told["timed_out"]) == ("exited", False), command
        assert told["exit_code"] != 0, command
        assert told["stdout"] + told["stderr"], command
        assert await one.out("echo on") == "on\n"


@every_way
@posix_shell
async def test_its_end_is_told_wherever_its_output_goes(
    sessions: Sessions, shell: str
) -> None:
    """SE-02: it was waited for until its time was up, and its shell was ended."""
    one = await sessions.open(shell)
    for command in ("exec >/dev/null", "exec 2>/dev/null"):
        told = await one.run(command, timeout_seconds=40)
        assert (told["status"], told.get("exit_code")) == ("exited", 0), told
    told = await one.run("sh -c 'exit 5'", timeout_seconds=40)
    assert (told["status"], told.get("exit_code")) == ("exited", 5), told


@every_way
@every_shell
async def test_what_users_redefine_is_evaded(sessions: Sessions, shell: str) -> None:
    """SE-02: functions and aliases by the names of what tells the end."""
    words = ["alias printf=false", "alias eval=false", "printf() { false; }"]
    if shell == "fish":
        words = ["alias printf false", "function eval; false; end"]
    if shell == "zsh":
        words.append("emulate sh")
    for word in words:
        one = await sessions.open(shell)
        await one.run(word, timeout_seconds=40)
        assert await one.out("echo on") == "on\n", word
        # some hosts have room for one
        await one.ssh.told("ssh_session_close", session=one.id, force=True)
        sessions.opened.remove(one.id)


@every_way
@posix_shell
async def test_a_heredoc_is_taken_as_it_is(sessions: Sessions, shell: str) -> None:
    """SE-02: many lines, quoted and not."""
    one = await sessions.open(shell)
    command = "v=1\ncat <<A; cat <<'B'\n$v 'x'\n\ttab\nA\n$v \"y\"\nB\n"
    assert await one.out(command) == "1 'x'\n\ttab\n$v \"y\"\n"


@every_way
@posix_shell
@pytest.mark.parametrize(
    ("command", "code"),
    [("echo bye; exit 3", 3), ("set -e\necho bye\nfalse\necho never", 1),
     ("exec sh -c 'echo bye; exit 4'", 4)],
)  # fmt: skip
async def test_the_shell_may_end_in_it(
    sessions: Sessions, shell: str, command: str, code: int
) -> None:
    """SE-02, SE-11: exit, set -e and exec: all it printed, and the shell's own code."""
    one = await sessions.open(shell)
    told = await one.run(command)
    assert (told["status"], told.get("exit_code")) == ("exited", code), told
    assert told["stdout"].startswith("bye\n")
    assert "never" not in told["stdout"]
    assert "the session's shell ended" in told["note"]
    error = await one.ssh.refused(
        "ssh_session_run", session=one.id, command="echo never"
    )
    assert (error["reason"], error["ran"]) == ("SESSION_ENDED", "no")


async def printed(at: Place, job: str) -> dict[Stream, bytes]:
    """Return what a job printed, from where the daemon keeps it."""
    limits = Limits()
    (directory,) = at.world.state.glob(f"**/{job}")
    with tempfile.TemporaryDirectory() as copy:
        # the daemon may just be renaming its record
        passing = shutil.ignore_patterns("*.new")
        shutil.copytree(directory, copy, dirs_exist_ok=True, ignore=passing)
        spool = Spool.recover(
            Path(copy),
            limit_bytes=limits.spool_bytes,
            segment_bytes=limits.segment_bytes,
            backlog_bytes=limits.backlog_bytes,
        )
        said = {Stream.OUT: b"", Stream.ERR: b""}
        for piece in (await spool.read(0, spool.end)).pieces:
            said[piece.stream] += piece.data
    return said


async def on_disk(at: Place, told: Result) -> dict[Stream, bytes]:
    """Return it once all of it is there."""
    wanted = told["stdout_bytes"] + told["stderr_bytes"]
    async with asyncio.timeout(40):
        while True:
            said = await printed(at, told["job_id"])
            if sum(map(len, said.values())) == wanted:
                return said
            await moment()


@every_way
@pytest.mark.parametrize("shell", ["bash", "dash", "fish"])
async def test_long_and_odd_output_is_exact(sessions: Sessions, shell: str) -> None:
    """SE-02: every byte of it, also those that are no text."""
    one = await sessions.open(shell)
    path = sessions.at.home / "bytes"
    data = random.Random(7).randbytes(BYTES) + b"\r\n\r\r\n\n\x1e\x1b[0m\r"
    path.write_bytes(data)
    told = await one.run(f"cat {path}", timeout_seconds=120)
    assert (told["exit_code"], told["stdout_bytes"]) == (0, len(data))
    said = await on_disk(sessions.at, told)
    assert sha256(said[Stream.OUT]).digest() == sha256(data).digest()
    if one.way != "inband":
        told = await one.run(f"cat {path} >&2", timeout_seconds=120)
        assert (told["stdout_bytes"], told["stderr_bytes"]) == (0, len(data))
        said = await on_disk(sessions.at, told)
        assert sha256(said[Stream.ERR]).digest() == sha256(data).digest()
    assert await one.out("echo on") == "on\n"


@every_way
@every_shell
async def test_what_it_runs_can_t_tell_its_end(sessions: Sessions, shell: str) -> None:
    """SE-02: all that was ever seen of marks, printed again, ends nothing."""
    one = await sessions.open(shell)
    await one.out("echo first")
    seen = await one.ssh.told(
        "ssh_session_read", session=one.id, offset=0, view="raw", max_output_chars=9000
    )
    path = sessions.at.home / "seen"
    fake = "\x1e" + "0" * 32 + ":run 0:/:" + "0" * 32 + "\x1e\n"
    path.write_text(seen["output"] + fake)
    inner = sessions.at.home / "inner"
    inner.write_text(f"cat {path}\nenv | grep -i _hf_\nexit 5\n")
    told = await one.run(f"sh {inner}; sh -c 'exit 6'")
    assert told["exit_code"] == 6
    assert "000:run 0:/:000" in told["stdout"]
    # nothing of ours is in the environment of what it runs
    assert "_hf_" not in told["stdout"].rpartition("run 0")[2]


@held_ways
@every_shell
async def test_what_it_left_behind_writes_into_nobody_s_output(
    sessions: Sessions, shell: str
) -> None:
    """SE-02: and is not ended by that, where its output is not the terminal."""
    one = await sessions.open(shell)
    mark = sessions.at.home / "went-on"
    mark.unlink(missing_ok=True)
    later = f"sleep 0.3; echo late; echo late >&2; echo late; touch {mark}"
    told = await one.run(f"sh -c '{later}' & echo begun")
    assert "begun" in told["stdout"]
    if one.way == "beside":
        told = await one.run("sleep 1; echo mine")
        # shells tell of their jobs where they like
        assert told["stdout"] == "mine\n"
        assert "late" not in told["stderr"].splitlines()
    await soon(mark.exists, "it went on")


@pytest.mark.timed
@pytest.mark.parametrize("name", ["it's", "back\\slash"])
async def test_a_home_whose_name_can_t_be_typed(tmp_path: Path, name: str) -> None:
    """SE-06: no shell is kept below it, and that is told at once."""
    home = tmp_path / name
    home.mkdir()
    given = str(home).replace("\\", "\\\\")
    with (
        Sshd(tmp_path, options={"SetEnv": f'HOME="{given}"'}) as sshd,
        served(sshd) as world,
    ):
        async with tools(world) as ssh, asyncio.timeout(40):
            opened = await ssh.told("ssh_session_open", target="box")
            assert opened["durability"] == "held"
            told = await ssh.told(
                "ssh_session_run", session=opened["session_id"], command="echo on"
            )
            assert told["stdout"] == "on\n"
            error = await ssh.refused(
                "ssh_session_open", target="box", durability="remote"
            )
            assert (error["reason"], error["ran"]) == ("NOT_KEPT", "no")
            assert "quotes" in error["message"]
    assert not list(home.glob(".cache/*"))


async def test_nothing_of_it_stays_on_the_host(tmp_path: Path) -> None:
    """SE-02: neither files nor processes, however commands, shells, daemons ended."""
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    # of one that was killed there, and of one that is at work
    stale, other = (
        runtime / ("holdfast-" + "0" * 16),
        runtime / ("holdfast-" + "1" * 16),
    )
    for path, owner in ((stale, 2**22 + 1), (other, os.getpid())):
        path.mkdir()
        (path / "owner").write_text(f"{owner}\n")
    given = {"SetEnv": f"HOME={tmp_path} XDG_RUNTIME_DIR={runtime}"}

    def gone() -> bool:
        return list(runtime.iterdir()) == [other] and not at_work_in(runtime)

    with Sshd(tmp_path, options=given) as sshd, served(sshd) as world:
        async with tools(world) as ssh:
            at = Place(world, tmp_path)
            first = await Sessions(ssh, at, "beside").open("bash")
            await first.out("echo one")
            await soon(gone, "after a command")
            assert (await first.run("sleep 50", timeout_seconds=6))["timed_out"]
            await first.run("exit 3")
            await soon(gone, "after a shell")
            second = await Sessions(ssh, at, "beside").open("dash")
            told = await second.run("sleep 60", wait_seconds=0)
            await ssh.told("ssh_session_close", session=second.id, force=True)
            assert (await ssh.ended(told["job_id"]))["status"] != "running"
            await soon(gone, "after a close")
            third = await Sessions(ssh, at, "beside").open("bash")
            told = await third.run("echo begun; sleep 60", wait_seconds=0)
            await ssh.until(told["job_id"], "begun")
            assert at_work_in(runtime)
            world.kill()
            await soon(gone, "after a killed daemon")
            world.start()


def at_work_in(directory: Path) -> list[int]:
    """Return the processes whose directory is there, or was."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                where = str((entry / "cwd").readlink())
                found += [int(entry.name)] if where.startswith(str(directory)) else []
    return found


async def test_a_channel_that_waits_makes_room_for_a_terminal(hosts: Hosts) -> None:
    """SE-01: on a server that opens one channel; commands before and after it run."""
    ssh, at = hosts.alone
    for number in range(3):
        told = await ssh.run(f"echo {number}")
        assert told["stdout"] == f"{number}\n"
        one = await Sessions(ssh, at, "inband").open("bash")
        assert await one.out(f"echo in {number}") == f"in {number}\n"
        await one.ssh.told("ssh_session_close", session=one.id, force=True)


@held_ways
async def test_it_keeps_to_its_turn(sessions: Sessions) -> None:
    """SE-14: many at once; each has its own output and code."""
    one = await sessions.open("bash")
    calls = [
        (
            "ssh_session_run",
            {"session": one.id, "command": f"echo {n}; echo e{n} >&2; (exit {n})"},
        )
        for n in range(12)
    ]
    results = await one.ssh.together(*calls)
    for number, result in enumerate(results):
        told = result["structuredContent"]
        both = told["stdout"] + told["stderr"]
        assert (both, told["exit_code"]) == (f"{number}\ne{number}\n", number)
