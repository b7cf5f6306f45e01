"""Results of calls as MCP tool results: terminal output as text, the rest as JSON."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from holdfast.v1 import common_pb2, exec_pb2, session_pb2
from holdfast_shim import audience, document, snapshot
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from google.protobuf.message import Message

    Output = exec_pb2.ExecResult | exec_pb2.JobOutput | session_pb2.SessionRunResult

_OUTPUTS = (exec_pb2.ExecResult, exec_pb2.JobOutput, session_pb2.SessionRunResult)
_SECONDS = 120
_MINUTES = 120 * 60


# What the daemon writes where it left something out of the middle.
_GAP = re.compile(
    r"^… \[.* left out: ssh_job_read job_id=(\S+) stream=\w+ offset=(\d{1,19})\] …$",
    re.MULTILINE,
)
_BINARY = re.compile(r"\[binary data, \d+ bytes\]\n?")


def result(
    message: Message,
    *,
    form: str,
    results: str,
    client: str,
    request: Message | None = None,
) -> dict[str, Any]:
    """Return the tool result that tells `message`.

    Args:
        message: What the daemon answered.
        form: The tool's own form, "text" or "structured".
        results: What the command line asks for: "auto", "text" or "structured".
        client: Name of the MCP client.
        request: What was asked.
    """
    if form == "text" and isinstance(message, _OUTPUTS):
        grep = request.grep if isinstance(request, exec_pb2.ReadJobRequest) else ""
        told: dict[str, Any] = {"content": [_text(output(message, grep=grep))]}
        if results == "structured" or (
            results == "auto" and not audience.hides_text(client)
        ):
            told["structuredContent"] = _structured(message, grep)
        return told
    words = ""
    if form == "text" and isinstance(message, document.DOCUMENTS):
        words = document.text(message)
    elif form == "text" and isinstance(message, snapshot.SNAPSHOTS):
        words = snapshot.text(message)
    if words:
        told = {"content": [_text(words)]}
        if results == "structured" or (
            results == "auto" and not audience.hides_text(client)
        ):
            told["structuredContent"] = to_json(message)
        return told
    content = to_json(message)
    return {
        "content": [_text(json.dumps(content, ensure_ascii=False))],
        "structuredContent": content,
    }


def _text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def _structured(message: Output, grep: str) -> dict[str, Any]:
    """Return a command's result as JSON, with the next step where there is one."""
    told = to_json(message)
    running = message.status == common_pb2.EXEC_STATUS_RUNNING
    if isinstance(message, exec_pb2.ExecResult):
        del told["next_offset"]
        if running or message.truncated:
            told["next_offset"] = _onward(message)
    notes = (message.note, _next(message, grep), _no_match(message, grep))
    if note := "; ".join(filter(None, notes)):
        told["note"] = note
    return told


def _no_match(message: Output, grep: str) -> str:
    found = message.stdout or message.stderr
    return "" if found or not grep else f"no line matches {grep!r}"


def output(message: Output, *, grep: str = "") -> str:
    """Return a command's output under one line that says how it stands.

    Args:
        message: The output.
        grep: The pattern that was searched for, if one was.
    """
    parts = [" · ".join(filter(None, _header(message, grep)))]
    if message.HasField("note") and message.note:
        parts.append(f"note: {message.note}")
    if message.stdout:
        parts.append(message.stdout.removesuffix("\n"))
    if message.stderr:
        parts += ["--- stderr ---", message.stderr.removesuffix("\n")]
    if missing := _no_match(message, grep):
        parts.append(missing)
    return "\n".join(parts)


def _header(message: Output, grep: str) -> list[str]:
    running = message.status == common_pb2.EXEC_STATUS_RUNNING
    header = [
        _state(message),
        message.target,
        span(message.duration_ms),
        _lines(message, running),
    ]
    if message.job_id:
        header.append(f"job {message.job_id}")
    if isinstance(message, session_pb2.SessionRunResult) and message.cwd:
        header.append(f"in {message.cwd}")
    if step := _next(message, grep):
        header.append(step)
    if not running and isinstance(message, exec_pb2.JobOutput):
        header.append(f"next offset {message.next_offset}")
    return header


def _next(message: Output, grep: str) -> str:
    """Return the call that tells more; empty when all is told or told in the text."""
    read = f"ssh_job_read job_id={message.job_id} offset="
    steps: list[str] = []
    if message.status == common_pb2.EXEC_STATUS_RUNNING:
        steps.append(f"read on with {read}{_onward(message)}")
    elif message.truncated and not grep and not (message.stdout or message.stderr):
        steps.append(f"read it with {read}{_onward(message)}")
    if any(_BINARY.fullmatch(text) for text in (message.stdout, message.stderr)):
        steps.append("binary data: pipe it through base64 or into a file to use it")
    return "; ".join(steps)


def _onward(message: Output) -> int:
    """Return where that begins which is not shown: later output, or else a gap."""
    shown = message.stdout or message.stderr or not message.truncated
    running = message.status == common_pb2.EXEC_STATUS_RUNNING
    if isinstance(message, exec_pb2.JobOutput) or (running and shown):
        return message.next_offset
    gaps = [
        int(offset)
        for text in (message.stdout, message.stderr)
        for job_id, offset in _GAP.findall(text)
        if job_id == message.job_id
    ]
    return min(gaps, default=0)


_STATES = {
    common_pb2.EXEC_STATUS_RUNNING: "running",
    common_pb2.EXEC_STATUS_EXITED: "exited, exit code unknown",
    common_pb2.EXEC_STATUS_LOST: "lost (how it ended is not known)",
}


_ENDED = {
    common_pb2.EXEC_STATUS_TIMED_OUT: "timed out (timeout_seconds reached",
    common_pb2.EXEC_STATUS_CANCELLED: "cancelled (stopped on request",
}


def _state(message: Output) -> str:
    if message.status in _ENDED:
        return f"{_ENDED[message.status]}; {_how(message)})"
    if message.status == common_pb2.EXEC_STATUS_EXITED and message.HasField(
        "exit_code"
    ):
        return f"exit {message.exit_code}"
    if message.status == common_pb2.EXEC_STATUS_SIGNALLED:
        return f"ended by signal {message.signal or 'unknown'}"
    return _STATES.get(message.status, "state unknown")


def _how(message: Output) -> str:
    if message.signal:
        return f"the process was ended by signal {message.signal}"
    if message.HasField("exit_code"):
        return f"the process was ended, exit {message.exit_code}"
    return "how the process ended is not known"


def _lines(message: Output, running: bool) -> str:
    if not message.stdout_bytes and not message.stderr_bytes:
        return "no output yet" if running else "no output"
    so_far = " so far" if running else ""
    noun = "line" if message.lines == 1 else "lines"
    counted = f"{message.lines:,} {noun}{so_far}"
    if message.lines_shown != message.lines:
        counted += f", {message.lines_shown:,} shown"
    return counted


def span(milliseconds: int) -> str:
    """Return a duration for people: 45 ms, 1.2 s, 3 min 20 s, 2 h 5 min."""
    if milliseconds < 1000:  # noqa: PLR2004 - one second
        return f"{milliseconds} ms"
    seconds = milliseconds / 1000
    if seconds < _SECONDS:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < _MINUTES:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
