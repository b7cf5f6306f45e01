"""Between the contract's messages and the daemon's types; only here are both known."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.v1 import common_pb2, exec_pb2
from holdfast_daemon.connection.channel import Terminal
from holdfast_daemon.exec.job import Status
from holdfast_daemon.exec.request import ExecRequest
from holdfast_daemon.hosts.host import HostKeyChecking, Overrides
from holdfast_daemon.secrets import Secret
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.answer import Answer
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.policy.caller import Caller

_CHECKING: dict[int, HostKeyChecking] = {
    common_pb2.HOST_KEY_CHECKING_YES: "yes",
    common_pb2.HOST_KEY_CHECKING_ACCEPT_NEW: "accept-new",
    common_pb2.HOST_KEY_CHECKING_NO: "no",
}
_STATUS = {
    Status.RUNNING: common_pb2.EXEC_STATUS_RUNNING,
    Status.EXITED: common_pb2.EXEC_STATUS_EXITED,
    Status.SIGNALLED: common_pb2.EXEC_STATUS_SIGNALLED,
    Status.TIMED_OUT: common_pb2.EXEC_STATUS_TIMED_OUT,
    Status.CANCELLED: common_pb2.EXEC_STATUS_CANCELLED,
    Status.LOST: common_pb2.EXEC_STATUS_LOST,
}
# As `max_output_chars` in the contract: four bytes each still fit one message.
_MOST_CHARS = 1_000_000
# So much of a command stands in a list: a script may have 128 KiB.
_LISTED_CHARS = 500
_SIGNALS = {
    common_pb2.SIGNAL_INT: "INT",
    common_pb2.SIGNAL_TERM: "TERM",
    common_pb2.SIGNAL_KILL: "KILL",
    common_pb2.SIGNAL_HUP: "HUP",
}
_STREAMS = {
    exec_pb2.OUTPUT_STREAM_STDOUT: Stream.OUT,
    exec_pb2.OUTPUT_STREAM_STDERR: Stream.ERR,
}


def overrides(
    connect: common_pb2.ConnectOptions | None, caller: Caller, config: Config
) -> Overrides:
    """Return how to reach a host: the call wins over the client's environment.

    A password turns keys off, and a key turns the client's default password off
    (AU-05).
    """
    given = connect if connect is not None else common_pb2.ConnectOptions()
    own = caller.defaults
    password = Secret(given.password) if given.password else None
    private_key = None
    if password is None and not given.identity_file:
        password = own.password
        private_key = own.private_key if password is None else None
    timeout = own.connect_timeout_seconds
    if given.HasField("connect_timeout_seconds"):
        timeout = given.connect_timeout_seconds
    return Overrides(
        user=given.user,
        port=given.port if given.HasField("port") else None,
        identity_file=given.identity_file,
        password=password,
        private_key=private_key,
        known_hosts_file=given.known_hosts_file,
        host_key_checking=_CHECKING.get(given.host_key_checking),
        jump=given.jump,
        connect_timeout=timeout,
        options=dict(given.options),
        default_user=own.user or config.defaults.user,
        default_port=own.port or config.defaults.port,
        auth_sock=own.auth_sock,
    )


def hard_limit(caller: Caller, config: Config) -> float:
    """Return how long a command may take, in seconds, that names no limit itself."""
    timeout = config.limits.command_timeout_seconds
    for value in (config.defaults.timeout_seconds, caller.defaults.timeout_seconds):
        timeout = timeout if value is None else value
    return timeout


def exec_request(
    message: exec_pb2.RunRequest, caller: Caller, config: Config, *, live: bool = False
) -> ExecRequest:
    """Return what to run, with the limits that apply to this caller."""
    timeout = hard_limit(caller, config)
    if message.HasField("timeout_ms"):
        timeout = message.timeout_ms / 1000
    if message.HasField("timeout_seconds"):
        timeout = message.timeout_seconds
    return ExecRequest(
        command=message.command,
        cwd=message.cwd,
        env=dict(message.env),
        stdin=message.stdin.encode() if message.HasField("stdin") else None,
        live=live,
        shell=message.shell,
        terminal=_terminal(message) if message.tty else None,
        timeout=timeout,
        sudo=message.sudo,
    )


def _terminal(message: exec_pb2.RunRequest) -> Terminal:
    size, usual = message.terminal, Terminal()
    # some terminals know their kind, and no size
    if not (size.cols and size.rows):
        return Terminal(term=size.term or usual.term)
    return Terminal(cols=size.cols, rows=size.rows, term=size.term or usual.term)


def budget(given: int | None, caller: Caller, config: Config) -> int:
    """Return the size of an answer in characters."""
    for value in (
        given,
        caller.defaults.max_output_chars,
        config.defaults.max_output_chars,
    ):
        if value is not None:
            return min(value, _MOST_CHARS)
    return config.limits.answer_chars


def signal_name(value: common_pb2.Signal.ValueType) -> str | None:
    """Return a signal's name, or None for «in turn»."""
    return _SIGNALS.get(value)


def stream(value: exec_pb2.OutputStream.ValueType) -> Stream | None:
    """Return which stream is meant, or None for both."""
    return _STREAMS.get(value)


def status(value: Status) -> common_pb2.ExecStatus.ValueType:
    """Return how a command stands, as the contract says it."""
    return _STATUS[value]


def exec_result(job: Job, answer: Answer) -> exec_pb2.ExecResult:
    """Return how a job stands, with the part of its output that `answer` shows."""
    return exec_pb2.ExecResult(
        ok=job.ok,
        status=_STATUS[job.status],
        exit_code=job.exit_code,
        signal=job.signal,
        stdout=answer.stdout,
        stderr=answer.stderr,
        truncated=answer.truncated,
        stdout_bytes=job.spool.bytes_of(Stream.OUT),
        stderr_bytes=job.spool.bytes_of(Stream.ERR),
        timed_out=job.status is Status.TIMED_OUT,
        duration_ms=round(job.duration * 1000),
        target=job.target,
        command=job.request.command,
        job_id=job.id,
        note=_note(job, answer) or None,
        lines=sum(job.spool.lines_of(s) for s in Stream),
        lines_shown=answer.shown,
        next_offset=answer.next_offset,
    )


def job_output(job: Job, answer: Answer) -> exec_pb2.JobOutput:
    """Return the same for a reader of a job."""
    result = exec_result(job, answer)
    return exec_pb2.JobOutput(
        ok=result.ok,
        status=result.status,
        exit_code=job.exit_code,
        signal=job.signal,
        stdout=result.stdout,
        stderr=result.stderr,
        truncated=result.truncated,
        stdout_bytes=result.stdout_bytes,
        stderr_bytes=result.stderr_bytes,
        timed_out=result.timed_out,
        duration_ms=result.duration_ms,
        target=result.target,
        command=result.command,
        job_id=result.job_id,
        note=result.note or None,
        lines=result.lines,
        lines_shown=result.lines_shown,
        next_offset=answer.next_offset,
        earliest_offset=job.spool.earliest,
    )


def _note(job: Job, answer: Answer | None = None) -> str:
    notes = [job.note, job.spool.fault]
    if answer is not None and answer.skipped:
        notes.append(
            f"{answer.skipped:,} bytes of output were discarded:"
            f" what is kept begins at offset {job.spool.earliest}"
        )
    return "; ".join(filter(None, notes))


def job_row(job: Job) -> exec_pb2.Job:
    """Return one line of a list of jobs."""
    record, command = job.record(), job.request.command
    if len(command) > _LISTED_CHARS:
        command = command[: _LISTED_CHARS - 1] + "…"
    return exec_pb2.Job(
        job_id=job.id,
        target=job.target,
        command=command,
        status=_STATUS[job.status],
        exit_code=job.exit_code,
        started=record["started"],
        duration_ms=round(job.duration * 1000),
        client=job.client,
        session_id=job.session or None,
    )


def job_end(job: Job) -> exec_pb2.JobEnd:
    """Return a job's outcome. Absence is never 0."""
    end = exec_pb2.JobEnd(
        status=_STATUS[job.status],
        duration_ms=round(job.duration * 1000),
        note=_note(job),
    )
    if job.exit_code is not None:
        end.exit_code = job.exit_code
    elif job.signal is not None:
        end.signal = job.signal
    else:
        end.lost = job.lost or "no exit status was reported"
    return end
