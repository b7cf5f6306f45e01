"""Commands told to a shell that waits: one round trip, and nothing else is different.

`ssh` itself is the judge of what a command should print and how it should end.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import Sshd, descendants
from fakes.tools import Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_warm"),
]

TRIES = 5

# Debian's: what a new account gets
GUARD = (
    "# for bash\n\ncase $- in\n    *i*) ;;\n      *) return;;\nesac\nexport LATER=1\n"
)


@pytest.fixture(scope="module")
def shared(sshd: Sshd) -> Iterator[World]:
    with served(
        sshd, limits="channels_waiting = 1\nchannels_waiting_seconds = 60\n"
    ) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(shared: World) -> AsyncIterator[Tools]:
    async with tools(shared) as one:
        await one.run("true")
        yield one


def standing(sshd: Sshd) -> set[int]:
    """Return the shells on the host that have not been told a command."""
    found: set[int] = set()
    for pid in descendants(sshd.pid):
        with contextlib.suppress(OSError):
            told = Path(f"/proc/{pid}/cmdline").read_bytes()
            if told.startswith(b"/bin/sh\0-c\0holdfast_shell="):
                found.add(pid)
    return found


def waiting(sshd: Sshd) -> list[int]:
    """Return the shells that wait on the host; one has said so once it reads."""
    found: list[int] = []
    for pid in standing(sshd):
        with contextlib.suppress(OSError):
            # the kernel's word for a process that waits for a pipe to say something
            if "pipe" in Path(f"/proc/{pid}/wchan").read_text():
                found.append(pid)
    return found


async def warm(sshd: Sshd, ssh: Tools, command: str, **more: Any) -> dict[str, Any]:
    """Run a command where a shell waits, and see that it was that shell's.

    A shell that still gets ready reads from pipes too, so that one look may err.
    """
    for _ in range(TRIES):
        before = set(await soon(lambda: waiting(sshd), "a shell waits"))
        result = await ssh.run(command, max_output_chars=1_000_000, **more)
        if before - standing(sshd):
            return result
    pytest.fail("no shell that waited was used")


def judged(sshd: Sshd, command: str, stdin: bytes = b"") -> tuple[int, str, str]:
    """Return what ssh makes of a command."""
    args = ["ssh", "-F", str(sshd.config), "-T", "box", command]
    run = subprocess.run(args, check=False, capture_output=True, input=stdin)
    return (run.returncode, run.stdout.decode(), run.stderr.decode())


SAME = {
    "arguments": 'echo "$0 $# $*"; tr "\\0" "|" < /proc/$$/cmdline',
    "flags": 'echo "$-"; set -o; shopt 2>/dev/null',
    "environment": "env | grep -v '^SSH_\\|^_=' | sort; env | cut -d= -f1 | sort",
    "variables": "compgen -v 2>/dev/null | grep -v '^PIPE\\|^BASH_ARG' | sort",
    "underscore": 'echo "$_"',
    "level": 'echo "$SHLVL"; bash -c \'echo "$SHLVL"\'',
    "directory": 'pwd; echo "$PWD ${OLDPWD-unset}"; cd /tmp; pwd',
    "umask": "umask; ulimit -a",
    "traps": "trap; trap -p; grep '^Sig[BIC]' /proc/$$/status",
    "files": "ls /proc/$$/fd",
    "program": "readlink /proc/$$/exe; cat /proc/$$/comm",
    "group": '[ "$(ps -o pgid= -p $$ | tr -d " ")" = $$ ] && echo leader',
    "session": '[ "$(ps -o sid= -p $$ | tr -d " ")" = $$ ] && echo leader',
    "functions": "declare -F; alias; hash; jobs; history 2>&1 | tail -1",
    "whole": 'echo "$BASH_EXECUTION_STRING"',
    "lines": "echo a\necho $LINENO\nnosuchcommand\n",
    "heredoc": "cat <<'X'\none 'two' \"three\" $HOME `x` \\\nend\nX\necho after",
    "quotes": """printf '%s\\n' "it's" 'a "b"' $'c\\n\\t' \\\\ "\\$x" '!' """,
    "comment": "echo before # not after",
    "letters": "printf '%s' 'äöü€\u3042\U0001f600 \x01\x7f\x1b[31m' | od -An -tx1",
    "syntax": "echo 'never closed",
    "syntax too": "if true; then",
    "unknown": "nosuchcommand --flag",
    "refused": "/etc/passwd",
    "code": "exit 97",
    "last": "false",
    "options": "set -eu; false; echo not here",
    "own exec": "exec -a other bash -c 'echo $0'",
    "input": "cat; echo then",
    "first line": 'read -r a; echo "[$a]"; cat | wc -c',
    "error only": "echo only >&2",
    "both": "echo out; echo err >&2; echo out; exit 5",
    "long line": "echo " + "x" * 3000,
    "too long for it": "echo " + "y" * 9000 + " | wc -c",
}
LONG = {"too long for it"}


@pytest.mark.parametrize("name", SAME)
async def test_a_waiting_shell_does_what_ssh_would(
    sshd: Sshd, ssh: Tools, name: str
) -> None:
    """EX-19, issue 3 point 5: byte for byte, as sshd runs it under the login shell."""
    command = SAME[name]
    stdin = "first\nsecond\nlast" if name in {"input", "first line"} else ""
    more = {"stdin": stdin} if stdin else {}
    if name in LONG:
        result = await ssh.run(command, **more)
    else:
        result = await warm(sshd, ssh, command, **more)
    code, out, err = judged(sshd, command, stdin.encode())
    assert result["exit_code"] == code
    assert (result["stdout"], result["stderr"]) == (_clean(out), _clean(err))


def _clean(text: str) -> str:
    """Leave out what no answer shows."""
    return text.replace("\x00", "")


@pytest.mark.parametrize("name", ["TERM", "KILL", "HUP", "ABRT"])
async def test_a_signal_that_ends_it_is_told(sshd: Sshd, ssh: Tools, name: str) -> None:
    """EX-03: the command has the process id that sshd knows."""
    result = await warm(sshd, ssh, f"kill -s {name} $$; sleep 60")
    assert (result["status"], result["signal"]) == ("signalled", name)
    assert "exit_code" not in result


async def test_directory_environment_and_shell_are_set_there_too(
    sshd: Sshd, ssh: Tools
) -> None:
    """EX-07, EX-08, EX-09."""
    result = await warm(
        sshd,
        ssh,
        'pwd; echo "$PWD|$A|$B"; cat /proc/$$/comm',
        cwd="/usr/../usr/bin",
        env={"A": "one 'two'\nthree", "B": ""},
        shell="dash",
    )
    lines = "/usr/bin\n/usr/bin|one 'two'\nthree|\ndash\n"
    assert result["stdout"] == lines.replace("/usr/bin", "/usr/bin")
    error = await ssh.refused("ssh_exec", command="true", cwd="/nonexistent")
    assert (error["reason"], error["ran"]) == ("CWD_FAILED", "no")


async def test_it_can_be_stopped_and_leaves_nothing(sshd: Sshd, ssh: Tools) -> None:
    """EX-05: its process group is known."""
    await soon(lambda: waiting(sshd), "a shell waits")
    job = await ssh.start("echo $$; sleep 300 & sleep 300")
    pid = int((await ssh.until(job, "\n"))["stdout"])
    assert (await ssh.stop(job))["status"] == "cancelled"
    await soon(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")


async def test_a_waiting_shell_that_was_killed_is_no_outcome(
    sshd: Sshd, ssh: Tools
) -> None:
    """EX-20: nothing of ours is taken for the command's end, and it runs elsewhere."""
    (pid, *_) = await soon(lambda: waiting(sshd), "a shell waits")
    os.kill(pid, signal.SIGKILL)
    await soon(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
    result = await ssh.run("echo here; exit 4")
    if result["status"] == "lost":  # told before the server had said that it is gone
        assert "exit_code" not in result
    else:
        assert (result["stdout"], result["exit_code"]) == ("here\n", 4)


async def test_thirty_at_once_all_run(ssh: Tools) -> None:
    """Issue 3 point 5: those that wait count in what a connection carries."""
    calls = [("ssh_exec", {"command": f"echo {n}; sleep 0.2"}) for n in range(30)]
    results = await ssh.together(*calls)
    told = [one["structuredContent"]["stdout"] for one in results]
    assert told == [f"{n}\n" for n in range(30)]


@contextlib.asynccontextmanager
async def account(
    directory: Path, rc: str | None, limits: str = "", most: int = 1, **options: str
) -> AsyncGenerator[tuple[Sshd, Tools]]:
    """Serve an account with a ~/.bashrc and have used it once."""
    home = directory / "remote-home"
    home.mkdir()
    if rc is not None:
        (home / ".bashrc").write_text(rc)
    with (
        Sshd(directory, options={"SetEnv": f"HOME={home}", **options}) as sshd,
        served(sshd, limits=f"channels_waiting = {most}\n{limits}") as world,
    ):
        async with tools(world) as ssh:
            await ssh.run("true")
            yield sshd, ssh


reads_bashrc = pytest.mark.skipif(
    not pwd.getpwuid(os.getuid()).pw_shell.endswith("/bash"),
    reason="the login shell of this user is not bash, so nothing reads ~/.bashrc",
)


@reads_bashrc
async def test_start_up_files_that_stop_at_once_are_fine(tmp_path: Path) -> None:
    """Issue 3 point 5: the ~/.bashrc that new accounts get."""
    async with account(tmp_path, GUARD) as (sshd, ssh):
        result = await warm(sshd, ssh, 'echo "$0 [${LATER-}]"')
        assert result["stdout"] == "bash []\n"


@reads_bashrc
@pytest.mark.parametrize(
    ("rc", "said"),
    [
        ("export SEEN=$SEEN.; echo started >>~/starts", "."),
        ("seen() { echo function; }; SEEN=.", "."),
        ("[ -z x ] && return\nSEEN=.", "."),
    ],
)
async def test_start_up_files_that_do_something_run_once(
    tmp_path: Path, rc: str, said: str
) -> None:
    """Issue 3 point 5: no shell waits then, for each would start twice."""
    async with account(tmp_path, rc) as (sshd, ssh):
        for _ in range(4):
            assert (await ssh.run('echo "$SEEN"'))["stdout"] == f"{said}\n"
        assert not waiting(sshd)
        run = await ssh.run("declare -F; cat ~/starts 2>/dev/null | wc -l")
        assert run["stdout"] == judged(sshd, "declare -F")[1] + run["stdout"][-2:]


@reads_bashrc
@pytest.mark.parametrize("name", ["environment", "variables", "files"])
async def test_the_shell_that_was_asked_what_it_is_runs_the_first_command(
    tmp_path: Path, name: str
) -> None:
    """Issue 3 point 5: a connection's first command costs no channel of its own."""
    home = {"SetEnv": f"HOME={tmp_path}"}
    with Sshd(tmp_path / "sshd", options=home) as sshd, served(sshd) as world:
        async with tools(world) as ssh:
            result = await ssh.run(SAME[name])
            # sshd may be late with its line
            await soon(lambda: sshd.log.count("Starting session: "), "it is written")
            assert sshd.log.count("Starting session: ") == 1, sshd.log.text
            told = (result["exit_code"], result["stdout"], result["stderr"])
            assert told == judged(sshd, SAME[name])


async def test_a_forced_command_is_run_and_nothing_waits(tmp_path: Path) -> None:
    """Issue 3 point 5: recognised, and no error is shown."""
    forced = 'printf "forced: %s\\n" "$SSH_ORIGINAL_COMMAND"'
    async with account(tmp_path, None, ForceCommand=forced) as (sshd, ssh):
        for _ in range(3):
            result = await ssh.run("uptime")
            assert (result["stdout"], result["exit_code"]) == ("forced: uptime\n", 0)
            assert result["stderr"] == ""
        assert not waiting(sshd)


async def test_they_can_be_turned_off(tmp_path: Path) -> None:
    """Issue 3 point 5: by configuration."""
    async with account(tmp_path, None, most=0) as (sshd, ssh):
        assert [(await ssh.run("echo x"))["stdout"] for _ in range(4)] == ["x\n"] * 4
        assert not waiting(sshd)


async def test_a_host_nobody_uses_keeps_none(tmp_path: Path) -> None:
    """Issue 3 point 5: hosts in use keep a few, idle ones none."""
    limits = "channels_waiting_seconds = 8\n"
    async with account(tmp_path, None, limits) as (sshd, ssh):
        await soon(lambda: waiting(sshd), "a shell waits")
        await soon(lambda: not waiting(sshd), "it was given back")
        result = await ssh.run("echo again")
        assert result["stdout"] == "again\n"


async def test_one_channel_per_connection_is_enough(tmp_path: Path) -> None:
    """SE-21, issue 3: MaxSessions 1, where nothing more can wait than runs."""
    async with account(tmp_path, None, MaxSessions="1") as (_, ssh):
        for n in range(6):
            assert (await ssh.run(f"echo {n}"))["stdout"] == f"{n}\n"
