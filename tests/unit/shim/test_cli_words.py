"""The command line's pure parts: words, times, outcomes, escapes, completions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from holdfast.v1 import common_pb2, exec_pb2
from holdfast_shim.cli import app, output
from holdfast_shim.cli.completion import SHELLS, source
from holdfast_shim.cli.exec import arrange
from holdfast_shim.cli.outcome import TIMED_OUT, exit_code, remarks, state
from holdfast_shim.cli.terminal import Escape
from holdfast_shim.errors import CallError

VALUED = frozenset({"-p", "--port", "--cwd"})
COMPLETIONS = Path(__file__).parents[3] / "packaging" / "completions"
EXITED = common_pb2.EXEC_STATUS_EXITED


@pytest.mark.parametrize(
    ("line", "target", "rest"),
    [
        ("web1 -- ls -l", "web1", "ls -l"),
        ("web1 ls -l -- x", "web1", "ls -l -- x"),
        ("-t web1 ls", "web1", "ls"),
        ("web1 -t ls -t", "web1", "ls -t"),
        ("-p 22 web1 --cwd /x -- ls", "web1", "ls"),
        ("-tp22 web1 ls", "web1", "ls"),
        ("-tp 22 web1 ls", "web1", "ls"),
        ("--port=22 web1 ls", "web1", "ls"),
        ("-- uptime", "", "uptime"),
        ("web1 -- -- x", "web1", "-- x"),
        ("web1", "web1", ""),
        ("-p", "", ""),
    ],
)
def test_options_end_where_the_command_begins(
    line: str, target: str, rest: str
) -> None:
    """EX-18, EX-19: words of the command are never taken for our options."""
    arranged, found = arrange(line.split(), VALUED)
    assert found == target
    command = arranged[arranged.index("--") + 2 :]
    assert " ".join(command) == rest


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (10, "10 s"), (60, "1 m"), (200, "3 m 20 s"),
     (3600, "1 h"), (5, "5 s"), (7505, "2 h 5 m"), (90_000, "1 d 1 h")],
)  # fmt: skip
def test_spans_are_told_in_two_units(seconds: float, told: str) -> None:
    assert output.span(seconds) == told


def test_moments_are_told_by_their_distance() -> None:
    now = datetime(2026, 11, 20, 12, 0, tzinfo=UTC)
    assert output.ago("2026-11-20T11:57:00.123Z", now) == "2 m ago"
    assert output.ago("2026-11-20T12:00:03Z", now) == "0 s ago"
    assert output.ago("2026-11-17T12:00:00Z", now) == "3 d ago"
    assert output.ago("whenever", now) == "whenever"
    # A host tells when it made what it keeps, in whatever words.
    assert output.ago("2026-11-17T12:00:00", now) == "2026-11-17T12:00:00"


def test_sizes_are_told_in_binary_units() -> None:
    assert [output.size(n) for n in (0, 1023, 1024, 1 << 20, 5 << 40, 9 << 50)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "5.0 TiB", "9216.0 TiB",
    ]  # fmt: skip


def test_text_from_elsewhere_can_not_drive_a_terminal() -> None:
    evil = "a\x1b[2J\x07\x9b1m\u202eb\r\nc\udcff"
    shown = output.plain(evil)
    assert shown.isprintable()
    assert shown == "a\\x1b[2J\\x07\\x9b1m\\u202eb\\r\\nc\\udcff"
    assert output.plain("a\n\tb", lines=True) == "a\n\tb"


def test_an_unknown_outcome_is_never_zero() -> None:
    """EX-01, EX-03: absence of an exit code is not 0."""
    end = exec_pb2.JobEnd
    assert exit_code(end(status=EXITED, exit_code=0)) == 0
    assert exit_code(end(status=EXITED, exit_code=3)) == 3
    assert exit_code(end(status=EXITED, exit_code=256)) == 255
    assert exit_code(end(status=EXITED, exit_code=-1)) == 255
    assert exit_code(end(status=EXITED)) == 255
    assert exit_code(end(lost="gone")) == 255
    assert exit_code(end(signal="TERM")) == 143
    assert exit_code(end(signal="SIGTERM")) == 143
    assert exit_code(end(signal="NONSENSE")) == 255
    timed_out = common_pb2.EXEC_STATUS_TIMED_OUT
    assert exit_code(end(status=timed_out, exit_code=0)) == TIMED_OUT
    assert exit_code(end(status=timed_out, signal="KILL")) == TIMED_OUT


def test_what_a_person_must_know_is_told_once() -> None:
    end = exec_pb2.JobEnd(status=EXITED, exit_code=0)
    assert remarks(end, "j1") == []
    lost = exec_pb2.JobEnd(
        status=common_pb2.EXEC_STATUS_LOST, lost="link cut", note="link cut"
    )
    assert len(remarks(lost, "j1")) == 1
    assert "j1" in remarks(lost, "j1")[0]
    late = exec_pb2.JobEnd(
        status=common_pb2.EXEC_STATUS_TIMED_OUT, signal="TERM", note="child left"
    )
    assert len(remarks(late, "j1")) == 2


def test_a_state_is_a_word_or_two() -> None:
    assert state({"status": "running"}) == "running"
    assert state({"status": "exited", "exit_code": 0}) == "exit 0"
    assert state({"status": "timed_out", "exit_code": 1}) == "timed out, exit 1"
    assert state({"status": "signalled", "signal": "HUP"}) == "signal HUP"
    assert state({"status": "lost"}) == "lost"


@pytest.mark.parametrize(
    ("typed", "passed", "left"),
    [
        (b"~.", b"", True),
        (b"x~.", b"x~.", False),
        (b"x\r~.y", b"x\r", True),
        (b"\n~~.", b"\n~.", False),
        (b"~x~.", b"~x~.", False),
        (b"~\r~.", b"~\r", True),
        (b"ls\r", b"ls\r", False),
    ],
)
def test_tilde_dot_counts_at_the_start_of_a_line_only(
    typed: bytes, passed: bytes, left: bool
) -> None:
    for size in (1, 2, 100):
        escape = Escape()
        found = b"".join(
            escape.feed(typed[at : at + size])
            for at in range(0, len(typed), size)
            if not escape.left
        )
        assert (found, escape.left) == (passed, left)


def test_hints_name_verbs_where_a_person_reads(
    capsys: pytest.CaptureFixture[str],
) -> None:
    error = CallError("JOB_NOT_FOUND", "gone\x1b", hint="see ssh_job_list", ran="no")
    output.fail(error, as_json=False)
    assert capsys.readouterr().err == (
        "holdfast: gone\\x1b\n  hint: see `holdfast jobs`\n"
    )
    output.fail(error, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told == {
        "ok": False,
        "error": {
            "reason": "JOB_NOT_FOUND",
            "message": "gone\x1b",
            "hint": "see `holdfast jobs`",
            "ran": "no",
        },
    }


def test_every_verb_loads_and_takes_json() -> None:
    """IN-08: --json everywhere."""
    context = click.Context(app.root)

    def leaves(command: click.Command) -> list[click.Command]:
        if isinstance(command, app.Verbs) or not isinstance(command, click.Group):
            return [command]
        return list(command.commands.values())

    for name in app.root.list_commands(context):
        verb = app.root.get_command(context, name)
        assert verb is not None
        for leaf in leaves(verb):
            options = [o for p in leaf.params for o in p.opts]
            assert "--json" in options, name
            assert leaf.help


def test_help_names_every_verb() -> None:
    told = CliRunner().invoke(app.root, ["--help"]).output
    for name in app.root.list_commands(click.Context(app.root)):
        assert f"\n  {name} " in told


@pytest.mark.parametrize("shell", SHELLS)
def test_the_packaged_completions_are_what_the_program_prints(shell: str) -> None:
    """Regenerate with `holdfast completion SHELL`."""
    name = {"bash": "holdfast.bash", "zsh": "_holdfast", "fish": "holdfast.fish"}
    packaged = (COMPLETIONS / name[shell]).read_text()
    assert packaged == source(app.root, shell).rstrip("\n") + "\n"
