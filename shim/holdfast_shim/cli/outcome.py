"""What a command's end means: for the exit code, for people, and as JSON."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

from holdfast.v1 import common_pb2
from holdfast_shim.cli import output
from holdfast_shim.cli.options import PIPE_CLOSED, TRANSPORT, UNAVAILABLE
from holdfast_shim.errors import CallError
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast.v1 import exec_pb2

_SIGNALLED = 128
# As timeout(1) has it, whatever the command said when it was ended.
TIMED_OUT = 124


def exit_code(end: exec_pb2.JobEnd) -> int:
    """Return what a shell would see; an unknown outcome is never 0."""
    kind = end.WhichOneof("outcome")
    if end.status == common_pb2.EXEC_STATUS_TIMED_OUT:
        return TIMED_OUT
    if kind == "exit_code":
        # What does not fit into an exit code must not become 0 either.
        return end.exit_code if 0 <= end.exit_code <= TRANSPORT else TRANSPORT
    if kind == "signal":
        number = getattr(signal, f"SIG{end.signal.removeprefix('SIG')}", None)
        return _SIGNALLED + number if isinstance(number, int) else TRANSPORT
    return TRANSPORT


def apart(
    work: Callable[[], int],
    *,
    as_json: bool,
    plainly: Callable[[CallError], CallError] = lambda error: error,
) -> int:
    """Return what `work` returns, as a command's exit code.

    What goes wrong in it is told as `plainly` has it, and apart from that by the code.
    """
    try:
        return work()
    except CallError as error:
        output.fail(plainly(error), as_json=as_json)
        gone = error.reason == "DAEMON_UNAVAILABLE"
        return UNAVAILABLE if gone else TRANSPORT
    except BrokenPipeError:
        return PIPE_CLOSED
    except OSError as error:
        output.note(f"the output can't be written: {error.strerror or error}")
        return TRANSPORT


def remarks(end: exec_pb2.JobEnd, job_id: str) -> list[str]:
    """Return what a person must be told beside the output; empty after a plain end."""
    told: list[str] = []
    if end.status == common_pb2.EXEC_STATUS_TIMED_OUT:
        text = f"the command met its time limit after {_time(end)} and was ended"
        told.append(text + _by(end))
    elif end.status == common_pb2.EXEC_STATUS_CANCELLED:
        told.append("the command was stopped" + _by(end))
    if end.WhichOneof("outcome") in ("lost", None):
        why = end.lost or "no exit status was reported"
        told.append(f"how the command ended is not known (job {job_id}): {why}")
    if end.note and end.note not in " ".join(told):
        told.append(end.note)
    return told


def state(job: dict[str, Any]) -> str:
    """Return how a job stands, in a word or two."""
    status = str(job.get("status", ""))
    if "exit_code" in job:
        told = f"exit {job['exit_code']}"
        return told if status == "exited" else f"{status.replace('_', ' ')}, {told}"
    if job.get("signal"):
        return f"signal {job['signal']}"
    return status.replace("_", " ")


def document(end: exec_pb2.JobEnd) -> dict[str, Any]:
    """Return an end as the fields of a result."""
    told = to_json(end)
    # An absent note is left out, as everywhere.
    if not told.get("note"):
        told.pop("note", None)
    told["ok"] = (
        end.status == common_pb2.EXEC_STATUS_EXITED
        and end.WhichOneof("outcome") == "exit_code"
        and end.exit_code == 0
    )
    told["timed_out"] = end.status == common_pb2.EXEC_STATUS_TIMED_OUT
    return told


def _by(end: exec_pb2.JobEnd) -> str:
    return f" by signal {end.signal}" if end.WhichOneof("outcome") == "signal" else ""


def _time(end: exec_pb2.JobEnd) -> str:
    return output.span(end.duration_ms / 1000)
