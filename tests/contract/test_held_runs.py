"""Framed commands in every shell, held by the daemon or kept on the host: as one table.

`beside`: a held session whose commands have a channel beside its terminal, the usual
way. `inband`: one on a server that opens no second channel, so that they are framed
within the terminal's stream. `remote`: one that is kept on the host, to compare.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.kept import spare_fish
from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, failure, served, tools
from fakes.watch import moment, soon
from holdfast_daemon.limits import Limits
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("terminals"),
]

SHELLS = ("bash", "dash", "zsh", "fish", "ash")
POSIX = ("bash", "dash", "zsh", "ash")
WAYS = ("beside", "inband", "remote")
# of the long output that has to arrive exactly; `make soak` asks for 10 MB
BYTES = int(os.environ.get("HOLDFAST_HELD_BYTES", "1000000"))
ALONE = QUICK + "connections_per_host = 1\n"


@dataclass(frozen=True, slots=True)
class Place:
    """A host, a daemon that knows it, and the home directory there."""

    world: World
    home: Path


@contextlib.contextmanager
def place(root: Path, limits: str = QUICK, **options: str) -> Generator[Place]:
    options["SetEnv"] = f"HOME={root}"
    spare_fish(root)
    busybox = shutil.which("busybox")
    if busybox is not None:
        (root / "ash").symlink_to(busybox)
    with Sshd(root, options=options) as sshd, served(sshd, limits=limits) as world:
        yield Place(world, root)


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with place(tmp_path_factory.mktemp("roomy")) as one:
        yield one


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A server that opens one channel, and a daemon that may log in to it once."""
    with place(tmp_path_factory.mktemp("alone"), ALONE, MaxSessions="1") as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def roomy_tools(roomy: Place) -> AsyncIterator[Tools]:
    async with tools(roomy.world) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone_tools(alone: Place) -> AsyncIterator[Tools]:
    async with tools(alone.world) as one:
        yield one


class Session:
    """A session of one shell, reached one way."""

    def __init__(self, ssh: Tools, at: Place, ident: str, way: str) -> None:
        self.ssh = ssh
        self.at = at
        self.id = ident
        self.way = way

    async def run(self, command: str, **more: Any) -> Result:
        """Run a command to its end."""
        more = {"timeout_seconds": 20, **more}
        return await self.ssh.told(
            "ssh_session_run", session=self.id, command=command, **more
        )

    async def out(self, command: str) -> str:
        """Return what one that must succeed prints."""
        told = await self.run(command)
        assert (told["status"], told.get("exit_code")) == ("exited", 0), told
        return str(told["stdout"])

    def said(self, told: Result) -> tuple[str, str]:
        """Return its streams; where they come together, as one and nothing."""
        return told["stdout"], told["stderr"]


class Sessions:
    """Opens sessions of any shell."""

    def __init__(self, ssh: Tools, at: Place, way: str) -> None:
        self.ssh = ssh
        self.at = at
        self.way = way
        self.opened: list[str] = []

    async def open(self, shell: str, **more: Any) -> Session:
        """Open one."""
        program = str(self.at.home / "ash") if shell == "ash" else shutil.which(shell)
        if program is None or (shell == "ash" and not shutil.which("busybox")):
            pytest.skip(f"{shell} is not installed")
        told = await self.ssh.told(
            "ssh_session_open",
            target="box",
            shell=program,
            durability="remote" if self.way == "remote" else "held",
            **more,
        )
        self.opened.append(told["session_id"])
        return Session(self.ssh, self.at, told["session_id"], self.way)


@pytest_asyncio.fixture(loop_scope="module")
async def sessions(
    request: pytest.FixtureRequest,
    roomy: Place,
    alone: Place,
    roomy_tools: Tools,
    alone_tools: Tools,
) -> AsyncIterator[Sessions]:
    way: str = request.param
    ssh, at = (alone_tools, alone) if way == "inband" else (roomy_tools, roomy)
    one = Sessions(ssh, at, way)
    yield one
    for ident in one.opened:
        await ssh.told("ssh_session_close", session=ident, force=True)


every_way = pytest.mark.parametrize("sessions", WAYS, indirect=True)
held_ways = pytest.mark.parametrize("sessions", WAYS[:2], indirect=True)
every_shell = pytest.mark.parametrize("shell", SHELLS)
posix_shell = pytest.mark.parametrize("shell", POSIX)


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
        told = await one.run(command, timeout_seconds=10)
        assert (told["status"], told["timed_out"]) == ("exited", False), command
        assert told["exit_code"] != 0, command
        assert told["stdout"] + told["stderr"], command
        assert await one.out("echo on") == "on\n"


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


@every_way
@every_shell
async def test_one_that_is_late_is_broken_off(sessions: Sessions, shell: str) -> None:
    """SE-14: interrupted at its limit, and the next one is its own."""
    one = await sessions.open(shell)
    loop = "while true; do :; done"
    if shell == "fish":
        loop = "while true; sleep 1; end"
    elif shell == "ash":
        # one that is interrupted while it allocates locks itself up now and then
        loop = "while true; do sleep 1; done"
    for command in ("sleep 100; echo never", loop):
        seconds = 1.5 if shell == "fish" and one.way == "inband" else 0.5
        told = await one.run(f"echo begun\n{command}", timeout_seconds=seconds)
        assert (told["status"], told["timed_out"]) == ("timed_out", True)
        assert told["stdout"] == "begun\n", command
        assert await one.out("echo on") == "on\n"


@pytest.mark.parametrize(
    ("sessions", "shell"),
    [*(("beside", shell) for shell in POSIX), ("remote", "bash")],
    indirect=["sessions"],
)
async def test_one_that_minds_no_interrupt_is_ended(
    sessions: Sessions, shell: str
) -> None:
    """SE-14: TERM and KILL follow; the shell lives."""
    one = await sessions.open(shell)
    stubborn = "sh -c 'trap \"\" INT TERM; echo begun; while :; do sleep 1; done'"
    told = await one.run(stubborn, timeout_seconds=0.5)
    assert (told["status"], told["stdout"]) == ("timed_out", "begun\n")
    assert await one.out("echo on") == "on\n"


PROMPTS = {
    "bash": (
        ".bashrc",
        r"""
PS1='\[\e[31m\]\u\[\e[0m\] \w\n$ '
PROMPT_COMMAND='sleep 0.2; last=$?'
HISTCONTROL=
alias echo='echo aliased'
set -o noclobber
set -o vi
""",
    ),
    "zsh": (
        ".zshrc",
        r"""
PS1=$'%{\e[31m%}%n%{\e[0m%} %~\n%# '
precmd() { sleep 0.2 }
preexec() { print -n '\e]0;title\a' }
setopt noclobber
""",
    ),
    "fish": (
        ".config/fish/config.fish",
        "function fish_prompt; sleep 0.2; set_color red; echo -n 'f> '; end\n",
    ),
}


@held_ways
@pytest.mark.parametrize("shell", PROMPTS)
async def test_whatever_its_prompt_is(sessions: Sessions, shell: str) -> None:
    """SE-02: slow, coloured, of two lines; PROMPT_COMMAND, aliases and options stay."""
    name, text = PROMPTS[shell]
    path = sessions.at.home / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    profile = sessions.at.home / ".bash_profile"
    profile.write_text(". ~/.bashrc\n")
    try:
        one = await sessions.open(shell)
        for word in ("one", "two"):
            told = await one.run(f"printf '%s\\n' {word}")
            assert (told["stdout"], told["stderr"]) == (f"{word}\n", "")
        if shell == "bash":
            said = await one.out('printf "%s\\n" "$PROMPT_COMMAND" "$HISTCONTROL"')
            assert said.splitlines()[0].endswith(";sleep 0.2; last=$?")
    finally:
        path.unlink()
        profile.unlink()


@every_way
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
async def test_its_history_stays_as_it_was(sessions: Sessions, shell: str) -> None:
    """SE-02: neither commands nor what starts them, in memory or on disk."""
    one = await sessions.open(shell)
    await one.out("echo secret-word")
    await one.out("echo secret-word")
    listing = {
        "bash": "history",
        "zsh": "fc -l -100 2>/dev/null; true",
        "fish": "history",
    }[shell]
    said = await one.out(listing)
    # zsh keeps the line before until the next one was typed, and no longer
    assert len(said.splitlines()) <= (shell == "zsh"), said
    await one.ssh.told("ssh_session_close", session=one.id)
    assert written_with("secret-word", "history", one.at.home) == []


def written_with(word: str, name: str, directory: Path) -> list[Path]:
    """Return the files called so that have it in them; others may go meanwhile."""
    found: list[Path] = []
    for top, _, names in os.walk(directory):
        for path in (Path(top) / one for one in names if name in one):
            with contextlib.suppress(FileNotFoundError):
                if path.is_file() and word in path.read_text(errors="replace"):
                    found.append(path)
    return found


async def printed(at: Place, job: str) -> dict[Stream, bytes]:
    """Return what a job printed, from where the daemon keeps it."""
    limits = Limits()
    (directory,) = at.world.state.glob(f"**/{job}")
    with tempfile.TemporaryDirectory() as copy:
        shutil.copytree(directory, copy, dirs_exist_ok=True)
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
    async with asyncio.timeout(10):
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


@pytest.mark.parametrize("sessions", ["beside", "remote"], indirect=True)
async def test_nothing_is_typed_into_something_else(sessions: Sessions) -> None:
    """SE-14: a program in the foreground is told of, and left alone."""
    one = await sessions.open("bash")
    await one.out("true")
    await one.ssh.told("ssh_session_write", session=one.id, input="cat\n")
    # the terminal shows it once, and cat, which has it by then, once more
    await one.ssh.told(
        "ssh_session_write", session=one.id, input="there\n", until=r"there\s+there"
    )
    error = await one.ssh.refused(
        "ssh_session_run", session=one.id, command="echo no", timeout_seconds=5
    )
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    await one.ssh.told("ssh_session_write", session=one.id, input="\x04")
    assert await one.out("echo on") == "on\n"


@held_ways
@every_shell
async def test_half_a_line_is_taken_away(sessions: Sessions, shell: str) -> None:
    """SE-02: what somebody typed and did not send becomes no part of a command."""
    one = await sessions.open(shell)
    for half in ("echo half-ty", "if true; then echo 'un"):
        await one.ssh.told(
            "ssh_session_write", session=one.id, input=half, wait_seconds=0
        )
        assert await one.out("echo whole") == "whole\n"
    await one.ssh.told(
        "ssh_session_write", session=one.id, input="echo my''own", wait_seconds=0
    )
    told = await one.ssh.told(
        "ssh_session_write", session=one.id, input="-line\n", until="myown-line"
    )
    assert told["running"] is True


@pytest.mark.parametrize("sessions", ["beside", "remote"], indirect=True)
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


# What administrators and scripts do to what bash does before its prompt.
PROMPTED = (
    "readonly PROMPT_COMMAND",
    "declare -rx PROMPT_COMMAND=true",
    "unset PROMPT_COMMAND; set -u",
    "readonly HISTFILE HISTCONTROL",
    "set -eu",
)


@every_way
@pytest.mark.parametrize("before", PROMPTED)
async def test_a_prompt_that_can_t_be_changed(sessions: Sessions, before: str) -> None:
    """SE-02: its end is told at once, also where it was broken off."""
    one = await sessions.open("bash")
    told = await one.run(before)
    assert (told["status"], told["exit_code"]) == ("exited", 0), told
    assert await one.out("echo on") == "on\n"
    if one.way != "inband" and "-e" not in before:
        late = await one.run("sleep 300", timeout_seconds=0.4)
        assert late["status"] == "timed_out"
        assert await one.out("echo still") == "still\n"


@pytest.mark.parametrize("at_start", PROMPTED[:2])
@every_way
async def test_a_prompt_that_could_never_be_changed(
    sessions: Sessions, at_start: str
) -> None:
    """SE-02: as on hosts whose start-up files say so."""
    profile = sessions.at.home / ".bash_profile"
    profile.write_text(f"{at_start}\n")
    try:
        one = await sessions.open("bash", env={"HOME": str(sessions.at.home)})
        assert await one.out("echo on; cd /") == "on\n"
        assert await one.out("pwd") == "/\n"
    finally:
        profile.unlink()


@every_way
@posix_shell
async def test_a_history_that_can_t_be_moved(sessions: Sessions, shell: str) -> None:
    """SE-02, SE-18: where start-up files see to that, commands run all the same."""
    home = sessions.at.home
    files = [home / name for name in (".bash_profile", ".profile", ".zshrc")]
    for file in files:
        file.write_text(f"readonly HISTFILE={home}/history\n")
    try:
        one = await sessions.open(shell, env={"HOME": str(home)})
        assert await one.out("echo on") == "on\n"
        assert await one.out("echo still") == "still\n"
        await sessions.ssh.told("ssh_session_close", session=one.id)
    finally:
        for file in files:
            file.unlink()
    history = home / "history"
    assert not history.exists() or "/r'/" not in history.read_text("utf-8", "replace")


@pytest.mark.parametrize("sessions", ["beside", "remote"], indirect=True)
@every_shell
async def test_one_behind_an_open_quote_has_no_code(
    sessions: Sessions, shell: str
) -> None:
    """SE-02, SE-11: it never ran, and is told so; where it is kept before its limit."""
    one = await sessions.open(shell)
    await one.out("true")
    mark = one.at.home / f"ran-{one.id}"
    write = {"session": one.id, "wait_seconds": 0}
    await one.ssh.told("ssh_session_write", input="echo 'ab\n", **write)
    seconds = 60 if one.way == "remote" else 1
    reply = await one.ssh.call(
        "ssh_session_run",
        session=one.id,
        command=f"touch {mark}",
        timeout_seconds=seconds,
        wait_seconds=30,
    )
    error = failure(reply)
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    assert "open quote" in error["message"]
    assert not mark.exists()
    await one.ssh.told("ssh_session_write", input="\x03", **write)
    assert await one.out("echo on") == "on\n"
    assert not mark.exists()


async def test_a_prompt_that_takes_its_time_is_no_open_quote(tmp_path: Path) -> None:
    """SE-02: a command waits for it, however often it is looked for meanwhile."""
    (tmp_path / ".bash_profile").write_text("PS1='$(sleep 4)$ '\n")
    with place(tmp_path) as at:
        async with tools(at.world) as ssh:
            one = await Sessions(ssh, at, "remote").open("bash")
            assert await one.out("echo one") == "one\n"
            assert await one.out("echo two") == "two\n"


@pytest.mark.parametrize("way", ["beside", "remote"])
async def test_what_a_prompt_runs_is_waited_for(tmp_path: Path, way: str) -> None:
    """SE-02: it has the terminal for a moment, and is nobody else's program."""
    (tmp_path / ".bash_profile").write_text("PROMPT_COMMAND='sleep 1.5'\n")
    with place(tmp_path) as at:
        async with tools(at.world) as ssh:
            one = await Sessions(ssh, at, way).open("bash")
            assert await one.out("echo one") == "one\n"
            assert await one.out("echo two") == "two\n"


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
        async with tools(world) as ssh, asyncio.timeout(8):
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
            assert (await first.run("sleep 50", timeout_seconds=0.3))["timed_out"]
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


@pytest.mark.parametrize("sessions", ["beside", "remote"], indirect=True)
@every_shell
@pytest.mark.parametrize("cols", [25, 80])
async def test_what_starts_it_is_not_shown(
    sessions: Sessions, shell: str, cols: int
) -> None:
    """SE-02, SE-22: on the screen and in text: prompts, and what others typed."""
    one = await sessions.open(shell, cols=cols, rows=40)
    await one.out("true")
    await one.out("true")
    typed = "echo some$((1+1))thing" if shell != "fish" else "echo some(math 1+1)thing"
    await one.ssh.told(
        "ssh_session_write", session=one.id, input=f"{typed}\n", until="some2thing"
    )
    for view in ("screen", "text"):
        told = await one.ssh.told(
            "ssh_session_read", session=one.id, offset=0, view=view
        )
        shown = told["output"].replace("\n", "")
        assert "some2thing" in shown
        assert typed in shown
        assert "/c" not in shown, told["output"]
        assert "holdfast" not in shown.replace(str(sessions.at.home), "")


async def test_a_channel_that_waits_makes_room_for_a_terminal(
    alone: Place, alone_tools: Tools
) -> None:
    """SE-01: on a server that opens one channel; commands before and after it run."""
    for number in range(3):
        told = await alone_tools.run(f"echo {number}")
        assert told["stdout"] == f"{number}\n"
        one = await Sessions(alone_tools, alone, "inband").open("bash")
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
