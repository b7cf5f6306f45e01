"""What happens in a session, as frames of the contract. Pure conversion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.v1 import exec_pb2, session_pb2
from holdfast_daemon.rpc import convert
from holdfast_daemon.session.frame import (
    Away,
    Back,
    Ended,
    Printed,
    Resized,
    RunBegan,
    RunEnded,
    RunPrinted,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from holdfast_daemon.session.frame import Frame, KeyboardChanged

Answer = session_pb2.AttachSessionResponse
_PIECE = 64 * 1024
_CODES = range(-(2**31), 2**31)


def holder(found: KeyboardChanged) -> session_pb2.Holder | None:
    """Return who has the keyboard; None: nobody."""
    if not found.client:
        return None
    return session_pb2.Holder(client=found.client, since=found.since)


def keyboard(frame: KeyboardChanged, *, yours: bool) -> Answer:
    """Return who has the keyboard now, as the reader is told."""
    return Answer(keyboard=session_pb2.Keyboard(holder=holder(frame), yours=yours))


def answers(frame: Frame) -> Iterator[Answer]:
    """Return what a frame says; long output in pieces that a message can carry."""
    match frame:
        case Printed():
            yield from _printed(frame)
        case RunBegan():
            yield Answer(
                run_began=session_pb2.SessionRunBegan(
                    job_id=frame.job_id, client=frame.client, command=frame.command
                )
            )
        case RunPrinted():
            yield from _run_printed(frame)
        case RunEnded():
            yield Answer(
                run_ended=session_pb2.SessionRunEnded(
                    job_id=frame.job_id,
                    status=convert.status(frame.status),
                    exit_code=frame.exit_code,
                    signal=frame.signal,
                    note=frame.note,
                )
            )
        case Resized():
            yield Answer(size=exec_pb2.TerminalSize(cols=frame.cols, rows=frame.rows))
        case Away():
            yield Answer(away=frame.why)
        case Back():
            yield Answer(back=True)
        case Ended():
            yield Answer(end=_end(frame))
        case _:
            raise TypeError(frame)


def _pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _PIECE):
        yield data[start : start + _PIECE]


def _printed(frame: Printed) -> Iterator[Answer]:
    offset, skipped = frame.offset - len(frame.data), frame.skipped
    for piece in _pieces(frame.data):
        offset += len(piece)
        yield Answer(
            output=session_pb2.TerminalOutput(
                data=piece, next_offset=offset, skipped=skipped
            )
        )
        skipped = 0


def _run_printed(frame: RunPrinted) -> Iterator[Answer]:
    skipped = frame.skipped
    stream = (
        exec_pb2.OUTPUT_STREAM_STDERR if frame.error else exec_pb2.OUTPUT_STREAM_STDOUT
    )
    for piece in _pieces(frame.data):
        yield Answer(
            run_output=session_pb2.SessionRunOutput(
                job_id=frame.job_id, stream=stream, data=piece, skipped=skipped
            )
        )
        skipped = 0


def _end(frame: Ended) -> session_pb2.SessionEnd:
    end = session_pb2.SessionEnd(exit_reason=frame.reason)
    if frame.exit_code is not None and frame.exit_code in _CODES:
        end.exit_code = frame.exit_code
    elif frame.signal is not None:
        end.signal = frame.signal
    else:
        end.lost = frame.why or "no exit status was reported"
    return end
