"""Results as models and programs read them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from holdfast.v1 import common_pb2, exec_pb2, host_pb2, session_pb2
from holdfast_shim import audience, errors, render, snapshot


def ended(**changes: Any) -> exec_pb2.ExecResult:
    fields: dict[str, Any] = {
        "ok": True,
        "status": common_pb2.EXEC_STATUS_EXITED,
        "exit_code": 0,
        "stdout": "a\nb\n",
        "stdout_bytes": 4,
        "duration_ms": 1234,
        "target": "me@web1",
        "command": "true",
        "job_id": "j7k2",
        "lines": 214,
        "lines_shown": 180,
        "next_offset": 4,
    }
    return exec_pb2.ExecResult(**{**fields, **changes})


def test_the_header_says_how_it_stands_then_comes_the_output() -> None:
    """Contract section 4, result form."""
    assert render.output(ended()) == (
        "exit 0 · me@web1 · 1.2 s · 214 lines, 180 shown · job j7k2\na\nb"
    )


def test_stderr_has_a_mark_of_its_own_and_only_when_there_is_any() -> None:
    """Contract section 4, result form."""
    text = render.output(ended(stderr="oops\n", stderr_bytes=5))
    assert text.endswith("a\nb\n--- stderr ---\noops")
    alone = render.output(
        ended(stdout="", stdout_bytes=0, stderr="oops", stderr_bytes=4)
    )
    assert alone.endswith("job j7k2\n--- stderr ---\noops")


def test_a_note_has_a_line_of_its_own() -> None:
    text = render.output(ended(note="a process could not be stopped"))
    assert text.split("\n")[1] == "note: a process could not be stopped"


def test_nothing_printed_is_said() -> None:
    text = render.output(ended(stdout="", stdout_bytes=0, lines=0, lines_shown=0))
    assert text == "exit 0 · me@web1 · 1.2 s · no output · job j7k2"


def test_what_still_runs_says_how_to_read_on() -> None:
    """NF-02: a call that ends before its command leaves a handle."""
    running = ended(status=common_pb2.EXEC_STATUS_RUNNING, lines=1, lines_shown=1)
    running.ClearField("exit_code")
    assert render.output(running).split("\n")[0] == (
        "running · me@web1 · 1.2 s · 1 line so far · job j7k2 · "
        "read on with ssh_job_read job_id=j7k2 offset=4"
    )


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (common_pb2.EXEC_STATUS_SIGNALLED, "ended by signal KILL"),
        (common_pb2.EXEC_STATUS_TIMED_OUT, "timed out"),
        (common_pb2.EXEC_STATUS_CANCELLED, "cancelled"),
        (common_pb2.EXEC_STATUS_LOST, "lost"),
    ],
)
def test_no_other_end_looks_like_an_exit(
    status: common_pb2.ExecStatus, words: str
) -> None:
    """Issue 2, bad input: nothing turns into exit 0."""
    message = ended(ok=False, status=status, signal="KILL")
    message.ClearField("exit_code")
    text = render.output(message)
    assert text.startswith(words)
    assert "exit 0" not in text


def test_an_exit_without_a_code_is_not_exit_0() -> None:
    """EX: absence is never 0."""
    message = ended()
    message.ClearField("exit_code")
    assert render.output(message).startswith("exited, exit code unknown")


def test_a_read_job_tells_where_to_read_on() -> None:
    message = exec_pb2.JobOutput(
        status=common_pb2.EXEC_STATUS_EXITED, exit_code=3, job_id="j1", next_offset=9
    )
    assert render.output(message).endswith("job j1 · next offset 9")


@pytest.mark.parametrize(
    ("client", "results", "structured"),
    [
        ("claude-code", "auto", False),
        ("codex-mcp-client", "auto", False),
        ("gemini-cli-mcp-client", "auto", True),
        ("somebody", "auto", True),
        ("somebody", "text", False),
        ("claude-code", "structured", True),
    ],
)
def test_text_tools_send_json_only_where_it_does_not_hide_the_text(
    client: str, results: str, structured: bool
) -> None:
    """Contract section 4, result form."""
    told = render.result(ended(), form="text", results=results, client=client)
    assert told["content"][0]["text"].startswith("exit 0")
    assert ("structuredContent" in told) == structured
    if structured:
        assert told["structuredContent"]["exit_code"] == 0
        assert "lines_shown" not in told["structuredContent"]


@pytest.mark.parametrize("results", ["auto", "text", "structured"])
def test_listing_tools_always_send_json_and_the_same_as_text(results: str) -> None:
    """Contract section 4, result form."""
    message = host_pb2.ListHostsResponse(hosts=[host_pb2.Host(name="wéb")])
    told = render.result(
        message, form="structured", results=results, client="claude-code"
    )
    assert told["structuredContent"]["hosts"][0]["name"] == "wéb"
    assert json.loads(told["content"][0]["text"]) == told["structuredContent"]


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1.0 s"),
        (119_940, "119.9 s"),
        (200_000, "3 min 20 s"),
        (7_500_000, "2 h 5 min"),
    ],
)
def test_spans_read_like_a_person_says_them(milliseconds: int, text: str) -> None:
    assert render.span(milliseconds) == text


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("claude-code", 30_000),
        ("codex-mcp-client", 30_000),
        ("gemini-cli-mcp-client", 36_000),
        ("GitHub-Copilot-CLI", 9_000),
        ("", 30_000),
    ],
)
def test_each_client_has_the_budget_it_shows_whole(name: str, size: int) -> None:
    """NF-12: per-client budget."""
    assert audience.budget(name) == size


def test_a_failure_says_the_same_as_text_and_as_json() -> None:
    """TR-09: typed error results."""
    error = errors.CallError(
        "NO_TARGET", "no target", hint="name one", ran="no", metadata={"known": "a, b"}
    )
    told = errors.result(error)
    assert told["isError"]
    assert told["structuredContent"] == {
        "ok": False,
        "error": {
            "reason": "NO_TARGET",
            "message": "no target",
            "hint": "name one",
            "ran": "no",
            "known": "a, b",
        },
    }
    text = told["content"][0]["text"]
    assert text == "NO_TARGET: no target\nNothing ran.\nNext: name one"


@pytest.mark.parametrize(
    ("changes", "how"),
    [
        ({"signal": "KILL"}, "the process was ended by signal KILL"),
        ({"exit_code": 3}, "the process was ended, exit 3"),
        ({}, "how the process ended is not known"),
    ],
)
def test_what_was_ended_says_how(changes: dict[str, Any], how: str) -> None:
    """EX-04, EX-05: and nothing is claimed that is not known."""
    for status in (
        common_pb2.EXEC_STATUS_TIMED_OUT,
        common_pb2.EXEC_STATUS_CANCELLED,
    ):
        message = ended(status=status)
        message.ClearField("exit_code")
        message.MergeFrom(exec_pb2.ExecResult(**changes))
        assert f"; {how}) · " in render.output(message)


def structured(message: Any, request: Any = None) -> dict[str, Any]:
    told = render.result(
        message, form="text", results="structured", client="x", request=request
    )
    content = told["structuredContent"]
    assert isinstance(content, dict)
    return content


def test_the_json_of_what_still_runs_says_how_to_read_on() -> None:
    """NF-02: for clients that show no text."""
    found = structured(ended(status=common_pb2.EXEC_STATUS_RUNNING, note="slow"))
    assert found["next_offset"] == 4
    assert found["note"] == "slow; read on with ssh_job_read job_id=j7k2 offset=4"
    assert "next_offset" not in structured(ended())
    assert "note" not in structured(ended())


def test_the_json_of_a_cut_output_points_at_the_gap() -> None:
    """NF-12."""
    gap = "… [2 lines, 9 bytes left out: ssh_job_read job_id=j7k2 stream=stdout"
    message = ended(truncated=True, stdout=f"a\n{gap} offset=77] …\nz\n")
    message.next_offset = 99
    assert structured(message)["next_offset"] == 77
    message.status = common_pb2.EXEC_STATUS_RUNNING
    assert structured(message)["next_offset"] == 99


def test_an_answer_that_shows_nothing_says_how_to_read_it() -> None:
    """NF-12: max_output_chars 0."""
    hidden = ended(truncated=True, stdout="", lines_shown=0)
    step = "read it with ssh_job_read job_id=j7k2 offset=0"
    assert render.output(hidden).endswith(step)
    assert structured(hidden)["next_offset"] == 0
    assert structured(hidden)["note"] == step
    page = exec_pb2.JobOutput(truncated=True, job_id="j1", next_offset=5)
    assert "ssh_job_read job_id=j1 offset=5" in render.output(page)


def test_binary_output_says_how_to_use_it() -> None:
    message = ended(truncated=True, stdout="[binary data, 4 bytes]")
    assert "base64" in render.output(message).split("\n")[0]
    assert "base64" in structured(message)["note"]


def test_a_search_that_found_nothing_says_so() -> None:
    """EX-14."""
    message = exec_pb2.JobOutput(job_id="j1", next_offset=9)
    request = exec_pb2.ReadJobRequest(job_id="j1", grep="zzz")
    told = render.result(
        message, form="text", results="auto", client="codex", request=request
    )
    assert told["content"][0]["text"].endswith("\nno line matches 'zzz'")
    assert structured(message, request)["note"] == "no line matches 'zzz'"


def test_a_line_that_only_looks_like_ours_is_no_gap() -> None:
    """A command may print what it likes, its own job id and any digits too."""
    line = "… [9 left out: ssh_job_read job_id=j7k2 stream=stdout offset={}] …\n"
    for digits, offset in (("9" * 5000, 0), ("12", 12)):
        cut = ended(truncated=True, stdout=line.format(digits))
        told = render.result(cut, form="text", results="structured", client="x")
        assert told["structuredContent"]["next_offset"] == offset


def test_how_a_person_looks_on_is_told_where_that_was_asked_for() -> None:
    """SE-17: the buggy shim said "use the command instead", and told none."""
    observer = session_pb2.Observer(command="holdfast attach s1 --watch")
    opened = session_pb2.OpenSessionResponse(session_id="s1", observer=observer)
    assert "attach" not in snapshot.text(opened)
    opened.observer.warning = "no tmux window: why; use the command instead"
    assert snapshot.text(opened).endswith(
        "\nnote: no tmux window: why; use the command instead:"
        " holdfast attach s1 --watch"
    )
