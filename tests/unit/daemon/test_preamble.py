"""The preamble, under every POSIX shell that is here, run as sshd runs a command."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast_daemon.errors import InputError
from holdfast_daemon.exec.preamble import MarkerReader, compose
from holdfast_daemon.exec.request import ExecRequest, check
from holdfast_daemon.limits import Limits
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = ["bash", "dash", "zsh", "busybox"]


def run(shell: str, request: ExecRequest) -> tuple[int, str, str, MarkerReader]:
    """Run a request under a shell; return code, stdout, stderr and the reader."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"no {shell} here")
    arguments = [program, "sh"] if shell == "busybox" else [program]
    preamble = compose(request)
    done = subprocess.run(
        [*arguments, "-c", preamble.script(request.command).line],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=20,
    )
    reader = MarkerReader(preamble)
    parts = reader.feed(Stream.ERR, done.stderr)
    parts += [] if reader.done else reader.finish()
    err = b"".join(data for _, data in parts)
    return done.returncode, done.stdout.decode(), err.decode(), reader


@pytest.mark.parametrize("shell", SHELLS)
def test_command_runs_unchanged_and_the_group_is_told(shell: str) -> None:
    """EX-19: newlines, quotes and here-documents arrive as they are."""
    command = "cat <<'END'\n$HOME `x` \"q\" 'q' \\\\ \t.\nEND\necho err >&2; exit 7"
    code, out, err, reader = run(shell, ExecRequest(command=command))
    assert (code, out, err) == (7, "$HOME `x` \"q\" 'q' \\\\ \t.\n", "err\n")
    assert reader.group is not None
    assert reader.group > 1


@pytest.mark.parametrize("shell", SHELLS)
def test_directory_and_variables_apply(shell: str, tmp_path: Path) -> None:
    """EX-07, EX-08: odd directory names and values reach the command whole."""
    odd = tmp_path / "a 'b' $c\n d"
    odd.mkdir()
    value = 'it\'s "$HOME" `id`\nand more\\'
    request = ExecRequest(
        command='pwd; printf %s "$VALUE"', cwd=str(odd), env={"VALUE": value}
    )
    code, out, err, _ = run(shell, request)
    assert (code, out, err) == (0, f"{odd}\n{value}", "")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("cwd", ["~", "~/", "-"])
def test_home_is_expanded_and_dash_is_a_name(shell: str, cwd: str) -> None:
    _, out, _, reader = run(shell, ExecRequest(command="pwd", cwd=cwd))
    if cwd == "-":
        assert reader.failure == "cwd"
    else:
        assert out.startswith("/")


@pytest.mark.parametrize("shell", SHELLS)
def test_missing_directory_stops_before_the_command(shell: str) -> None:
    request = ExecRequest(command="echo ran", cwd="/nonexistent/dir")
    code, out, _, reader = run(shell, request)
    assert (code, out, reader.failure) == (1, "", "cwd")


@pytest.mark.parametrize("shell", SHELLS)
def test_missing_shell_stops_before_the_command(shell: str) -> None:
    """EX-09: a shell that is not there is told, and nothing runs."""
    request = ExecRequest(command="echo ran", shell="/bin/nonesuch")
    code, out, _, reader = run(shell, request)
    assert (code, out, reader.failure) == (127, "", "shell")


def test_chosen_shell_runs_the_command() -> None:
    """EX-09: shell chooses what interprets the command, options included."""
    request = ExecRequest(
        command="echo $0 $-; [[ a == a ]] && echo bash", shell="bash -f"
    )
    _, out, _, _ = run("dash", request)
    assert "bash" in out.splitlines()[-1]
    assert "f" in out.splitlines()[0]


@pytest.mark.parametrize("shell", ["bash", "dash"])
def test_syntax_error_does_not_show_the_preamble(shell: str) -> None:
    """The shell quotes the line it can't parse; our words must not be in it."""
    code, _, err, reader = run(shell, ExecRequest(command="for do done"))
    assert code != 0
    assert reader.group is None
    assert "holdfast" not in err
    assert "yntax error" in err


@given(
    st.sampled_from(Stream),
    st.binary(max_size=300),
    st.binary(max_size=300),
    st.lists(st.integers(1, 40)),
)
def test_marker_is_taken_out_however_it_is_cut(
    stream: Stream, before: bytes, after: bytes, cuts: list[int]
) -> None:
    """On BUGGY code: with `exec 2>&1` in .bashrc the marker was part of the output."""
    preamble = compose(ExecRequest(command="true"))
    data = before + preamble.marker.encode() + b"4711\n" + after
    reader, start = MarkerReader(preamble), 0
    parts: list[tuple[Stream, bytes]] = []
    for cut in [*cuts, len(data)]:
        parts += reader.feed(stream, data[start : start + cut])
        start += cut
    assert reader.done
    assert b"".join(part for _, part in parts) == before + after
    assert reader.group == 4711


def test_noise_without_a_marker_is_passed_on_before_it_grows() -> None:
    reader = MarkerReader(compose(ExecRequest(command="true")))
    noise = b"x" * 70_000
    assert reader.feed(Stream.ERR, noise) == [(Stream.ERR, noise)]
    assert reader.done


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ExecRequest(command="  \n\t"), "command"),
        (ExecRequest(command="x" * 200_000), "command"),
        (ExecRequest(command="true", env={"A B": "1"}), "env"),
        (ExecRequest(command="true", env={"1A": "1"}), "env"),
        (ExecRequest(command="true", env={"": "1"}), "env"),
        (ExecRequest(command="true", env={"A": "x" * 200_000}), "env"),
        (ExecRequest(command="true", stdin=b"x" * 4_000_000), "stdin"),
        (ExecRequest(command="true", shell="'unclosed"), "shell"),
        (ExecRequest(command="true", shell="-c"), "shell"),
    ],
)
def test_what_can_not_run_is_refused_by_name(request_: ExecRequest, field: str) -> None:
    """EX-08, EX-19: blank commands and bad names are refused before anything opens."""
    with pytest.raises(InputError) as caught:
        check(request_, Limits())
    assert caught.value.metadata["field"] == field


def test_a_marker_that_comes_late_is_still_taken_out() -> None:
    """On BUGGY code: a start-up file slower than the patience let it be seen."""
    preamble = compose(ExecRequest(command="true"))
    reader = MarkerReader(preamble)
    assert reader.feed(Stream.ERR, b"motd\n") == []
    assert reader.finish() == [(Stream.ERR, b"motd\n")]
    late = b"more\n" + preamble.marker.encode() + b"4711\nout\n"
    assert reader.feed(Stream.ERR, late) == [(Stream.ERR, b"more\nout\n")]
    assert reader.group == 4711


@pytest.mark.parametrize("cut", [0, 1, 4])
def test_a_late_marker_comes_in_two_pieces(cut: int) -> None:
    """A terminal may tell the end of a line apart; it was shown, and never heard."""
    preamble = compose(ExecRequest(command="true"))
    reader = MarkerReader(preamble)
    reader.finish()
    line = preamble.marker.encode() + b"4711"
    first, second = b"more\n" + line[: len(line) - cut], line[len(line) - cut :]
    assert reader.feed(Stream.ERR, first) == [(Stream.ERR, b"more\n")]
    assert reader.feed(Stream.ERR, second + b"\r\nout") == [(Stream.ERR, b"out")]
    assert (reader.group, reader.late) == (4711, False)


def test_what_only_looks_like_a_late_marker_is_passed_on() -> None:
    """A shell quotes a line that it can't read, perhaps in two pieces."""
    preamble = compose(ExecRequest(command="true"))
    reader = MarkerReader(preamble)
    reader.finish()
    said = b"syntax error: " + preamble.marker.encode() + b"$$ >&2; exec"
    first = reader.feed(Stream.ERR, said)
    second = reader.feed(Stream.ERR, b" x\n")
    assert b"".join(data for _, data in first + second) == said + b" x\n"
    assert reader.late
