"""One command through the real shim and daemon on a real sshd: what comes back."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import pytest

from fakes.tools import Tools, tools
from fakes.watch import connected, run
from holdfast.v1 import exec_pb2

if TYPE_CHECKING:
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_basic"),
]


async def test_both_streams_come_back_apart_with_the_exit_code(ssh: Tools) -> None:
    """EX-01, EX-02, EX-03: streams apart, an integer code, and what was asked for."""
    command = "echo out; echo err >&2; exit 3"
    result = await ssh.run(command)
    assert (result["stdout"], result["stderr"]) == ("out\n", "err\n")
    assert (result["status"], result["exit_code"]) == ("exited", 3)
    assert result["ok"] is False
    assert result["command"] == command
    assert result["target"] == "box"
    assert isinstance(result["duration_ms"], int)
    assert (result["timed_out"], result["truncated"]) == (False, False)
    assert (result["stdout_bytes"], result["stderr_bytes"]) == (4, 4)
    assert "signal" not in result
    assert result["job_id"]


@pytest.mark.parametrize("code", [0, 1, 4, 5, 44, 126, 127, 130, 255])
async def test_every_exit_code_comes_back_as_it_was(ssh: Tools, code: int) -> None:
    """EX-01: outcome truth table, codes. Only 0 is ok; 255 is no connection error."""
    result = await ssh.run(f"exit {code}")
    assert (result["status"], result["exit_code"]) == ("exited", code)
    assert result["ok"] is (code == 0)


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
async def test_a_command_that_a_signal_ended_is_no_exit(ssh: Tools, name: str) -> None:
    """EX-03: outcome truth table, signals: named, and without an exit code."""
    result = await ssh.run(f"kill -s {name} $$")
    assert (result["status"], result["signal"]) == ("signalled", name)
    assert result["ok"] is False
    assert "exit_code" not in result


async def test_what_is_not_there_exits_127_and_says_so(ssh: Tools) -> None:
    """EX-01: a shell's own error is a result of the command."""
    result = await ssh.run("no-such-program-here")
    assert result["exit_code"] == 127
    assert "no-such-program-here" in result["stderr"]
    assert "holdfast:" not in result["stderr"]


async def test_a_command_starts_in_its_directory(ssh: Tools) -> None:
    """EX-07: cwd, with a blank, a quote and the home directory in it."""
    awkward = "a b'c\"d$e\nf"
    await ssh.run(f"mkdir -p ~/{shlex.quote(awkward)}")
    home = (await ssh.run("pwd", cwd="~"))["stdout"].strip()
    assert home == (await ssh.run("echo $HOME"))["stdout"].strip()
    inside = await ssh.run("pwd", cwd=f"~/{awkward}")
    assert inside["stdout"] == f"{home}/{awkward}\n"


async def test_a_directory_that_is_not_there_runs_nothing(ssh: Tools) -> None:
    """EX-07: refused with the directory's name; nothing ran."""
    error = await ssh.refused("ssh_exec", command="touch ~/ran-here", cwd="/no/such")
    assert (error["reason"], error["ran"]) == ("CWD_FAILED", "no")
    assert "/no/such" in error["message"]
    assert (await ssh.run("test -e ~/ran-here"))["exit_code"] == 1


async def test_the_environment_arrives_byte_for_byte(ssh: Tools) -> None:
    """EX-08: values with everything a shell would stumble over."""
    value = "a'b\"c $HOME `id` \\ \n é 漢 !"
    result = await ssh.run('printf %s "$ODD"', env={"ODD": value, "_X1": "2"})
    assert result["stdout"] == value


@pytest.mark.parametrize("name", ["1X", "A-B", "A B", "X;id", "X=Y", ""])
async def test_a_name_that_is_none_is_refused(ssh: Tools, name: str) -> None:
    """EX-08: names are validated; nothing ran."""
    error = await ssh.refused("ssh_exec", command="true", env={name: "v"})
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert error["field"].startswith("env")


async def test_a_shell_can_be_chosen(ssh: Tools) -> None:
    """EX-09: the chosen shell runs the command, with its options; cwd and env hold."""
    result = await ssh.run("echo $0 $X; pwd", shell="sh -e", cwd="/", env={"X": "1"})
    assert result["stdout"] == "sh 1\n/\n"
    assert (await ssh.run("false; echo on", shell="sh -e"))["stdout"] == ""
    strict = await ssh.run("echo ${BASH_VERSION:+bash}", shell="bash")
    assert strict["stdout"] == "bash\n"


async def test_a_shell_that_is_not_there_runs_nothing(ssh: Tools) -> None:
    """EX-09: refused with the shell's name."""
    error = await ssh.refused("ssh_exec", command="true", shell="no-such-shell")
    assert (error["reason"], error["ran"]) == ("SHELL_FAILED", "no")
    assert "no-such-shell" in error["message"]


@pytest.mark.usefixtures("terminals")
async def test_a_terminal_is_given_on_demand_and_merges_the_streams(ssh: Tools) -> None:
    """EX-10: a terminal with stdout and stderr in one; without it there is none."""
    command = "test -t 0 && test -t 1 && echo tty; echo err >&2; echo $TERM"
    result = await ssh.run(command, tty=True)
    assert result["stdout"] == "tty\nerr\nxterm-256color\n"
    assert result["stderr"] == ""
    plain = await ssh.run("test -t 0 || test -t 1 || echo none")
    assert plain["stdout"] == "none\n"


@pytest.mark.usefixtures("terminals")
async def test_a_terminal_without_a_size_has_its_kind(shared: World) -> None:
    """EX-10: as those of expect and of serial lines; it was told to be another."""
    sizes = [
        exec_pb2.TerminalSize(term="vt220"),
        exec_pb2.TerminalSize(term="dumb", cols=70, rows=9),
    ]
    async with connected(shared) as client:
        said = [
            (await run(client, "echo $TERM; stty size", tty=True, terminal=size)).stdout
            for size in sizes
        ]
    assert said == ["vt220\n24 80\n", "dumb\n9 70\n"]


async def test_a_command_that_reads_its_input_ends(ssh: Tools, tty: bool) -> None:
    """EX-11: standard input is closed, with a terminal too."""
    result = await ssh.run("cat; read x || echo end", tty=tty, timeout_seconds=20)
    assert (result["status"], result["exit_code"]) == ("exited", 0)
    assert "end" in result["stdout"]


@pytest.mark.parametrize(
    "stdin", ["", "one\ntwo\n", "no newline", "é 漢 \u0001 \\ ' \""]
)
async def test_standard_input_arrives_and_ends(ssh: Tools, stdin: str) -> None:
    """EX-11: what is given is read, and then comes the end."""
    result = await ssh.run("wc -c; od -An -c | wc -l", stdin=stdin)
    assert result["stdout"].split()[0] == str(len(stdin.encode()))
    assert result["exit_code"] == 0


@pytest.mark.usefixtures("terminals")
async def test_input_ends_on_a_terminal_also_in_mid_line(ssh: Tools) -> None:
    """EX-10, EX-11: a terminal's reader gets the text and then the end."""
    result = await ssh.run("stty -echo; cat; echo .", tty=True, stdin="abc")
    assert result["stdout"].endswith("abc.\n")
    assert result["exit_code"] == 0


async def test_a_command_that_takes_no_input_ends_though_there_is_some(
    ssh: Tools,
) -> None:
    """EX-11: two megabytes nobody reads stop nobody."""
    result = await ssh.run("exec 0<&-; echo done", stdin="x" * 2_000_000)
    assert (result["stdout"], result["exit_code"]) == ("done\n", 0)


@pytest.mark.parametrize("limit", [{"timeout_seconds": 6}, {"timeout_ms": 6000}])
async def test_a_limit_in_seconds_or_milliseconds_ends_a_command(
    ssh: Tools, limit: dict[str, float]
) -> None:
    """EX-03, EX-04, EX-06: the limit holds, and what came before it is there."""
    result = await ssh.run("echo early; sleep 300; echo late", **limit)
    assert (result["status"], result["timed_out"]) == ("timed_out", True)
    assert result["stdout"] == "early\n"
    assert 6000 <= result["duration_ms"] < 40_000
    assert result["ok"] is False


async def test_a_limit_of_zero_is_none(ssh: Tools) -> None:
    """EX-04: 0 sets no limit; a call's own wins over the environment's."""
    assert (await ssh.run("sleep 0.5", timeout_seconds=0))["exit_code"] == 0


async def test_a_client_may_set_the_limit_for_all_its_calls(shared: World) -> None:
    """EX-04: SSH_DEFAULT_TIMEOUT_SEC, which the call's own argument overrides."""
    async with tools(shared, env={"SSH_DEFAULT_TIMEOUT_SEC": "5"}) as quick:
        assert (await quick.run("sleep 300"))["timed_out"] is True
        kept = await quick.run("sleep 6", timeout_seconds=40)
        assert (kept["status"], kept["exit_code"]) == ("exited", 0)


COMMANDS = {
    "heredoc": ("cat <<'END'\na $b `c` \\\nEND\n", "a $b `c` \\\n"),
    "quotes": ("printf '%s|' 'a \"b\"' \"c 'd'\" e\\ f", "a \"b\"|c 'd'|e f|"),
    "newlines": ("echo one\necho two\n\necho three", "one\ntwo\nthree\n"),
    "unicode": ("printf %s 'é 漢 \N{PILE OF POO} ñ'", "é 漢 \N{PILE OF POO} ñ"),
    "trailing backslash": ("printf '%s' a\\", "a\\"),
    "trailing comment": ("echo a # b", "a\n"),
    "leading blanks": ("   \n  echo a", "a\n"),
    "dollar": ("printf '%s' '$HOME' \"\\$x\"", "$HOME$x"),
    "percent": ("printf '%s' '%s %d \\n'", "%s %d \\n"),
    "tabs": ("printf '%s' 'a\tb'", "a\tb"),
    "case": ("case x in (x) echo y;; esac", "y\n"),
    "function": ("f() { echo $1; }\nf z", "z\n"),
}


@pytest.mark.parametrize("shell", ["", "sh"])
@pytest.mark.parametrize("name", COMMANDS)
async def test_a_command_reaches_the_shell_byte_for_byte(
    ssh: Tools, name: str, shell: str
) -> None:
    """EX-19: heredocs, quotes, newlines, unicode and a trailing backslash."""
    command, printed = COMMANDS[name]
    given = {"shell": shell} if shell else {}
    result = await ssh.run(command, **given)
    assert (result["stdout"], result["stderr"]) == (printed, "")
    assert result["command"] == command


async def test_a_command_of_100_kb_arrives_whole(ssh: Tools) -> None:
    """EX-19: counted on the host."""
    word = "abcdef'é" * 8_000
    command = f"printf %s {shlex.quote(word)} | wc -c"
    assert len(command.encode()) > 100_000
    size = len(word.encode())
    assert (await ssh.run(command))["stdout"].strip() == str(size)


async def test_a_command_too_long_for_a_host_is_refused_before_it_is_sent(
    ssh: Tools,
) -> None:
    """EX-19: with what goes before it; the error tells how to go on."""
    error = await ssh.refused("ssh_exec", command="echo " + "a" * 131_050)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert error["field"] == "command"
    assert "stdin" in error["hint"]
    script = "# " + "x" * 200_000 + "\necho long\n"
    assert (await ssh.run("sh -s", stdin=script))["stdout"] == "long\n"


async def test_line_numbers_in_a_shells_messages_are_the_commands_own(
    ssh: Tools,
) -> None:
    """EX-19: what goes before a command does not move its lines."""
    result = await ssh.run("true\n/no/such-one\n/no/such-two")
    lines = re.findall(r"(\d+): .*such-(\w+)", result["stderr"])
    assert lines == [("2", "one"), ("3", "two")]


async def test_a_syntax_error_shows_nothing_of_ours(ssh: Tools) -> None:
    """EX-01: the shell quotes the line it can't read, without our words."""
    result = await ssh.run("echo 'never closed")
    assert result["exit_code"] != 0
    assert result["stderr"]
    assert "holdfast:" not in result["stderr"]


@pytest.mark.parametrize("broken", ["true; )", "}", "&& true"])
async def test_a_syntax_error_is_the_commands_own(ssh: Tools, broken: str) -> None:
    """EX-01, EX-20: bash quotes the line, and that was taken for a missing shell."""
    # No shell that waits takes so long a line: words of ours go before it on the host.
    long = f": {'x' * 5000}; {broken}"
    for command in (broken, long):
        for more in ({}, {"cwd": "/", "env": {"A": "1"}}):
            result = await ssh.run(command, max_output_chars=50_000, **more)
            assert result["exit_code"] not in {None, 0}
            assert "syntax error" in result["stderr"]
            assert result["stderr"].endswith(f"`{command}'\n")
            assert "holdfast:" not in result["stderr"]
