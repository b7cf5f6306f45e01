"""`holdfast jobs` and `holdfast job`: what ran, what runs, and what it printed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NoReturn

import click

from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_shim.cli import outcome, output
from holdfast_shim.cli.complete import complete_job, complete_target
from holdfast_shim.cli.daemon import QUICK_SECONDS, ask
from holdfast_shim.cli.follow import follow, follow_json
from holdfast_shim.cli.options import (
    FAILED,
    OK,
    TRANSPORT,
    json_option,
    options,
)
from holdfast_shim.cli.streams import Live, give_up, race
from holdfast_shim.errors import CallError
from holdfast_shim.translate import to_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_shim.client import DaemonClient

# Two texts of so many characters fit into a message whatever they hold.
_PAGE_CHARS = 400_000
_STREAMS = {
    "both": exec_pb2.OUTPUT_STREAM_BOTH,
    "stdout": exec_pb2.OUTPUT_STREAM_STDOUT,
    "stderr": exec_pb2.OUTPUT_STREAM_STDERR,
}
_SIGNALS = {
    "INT": common_pb2.SIGNAL_INT,
    "TERM": common_pb2.SIGNAL_TERM,
    "KILL": common_pb2.SIGNAL_KILL,
    "HUP": common_pb2.SIGNAL_HUP,
}
_IN_TURN = "in turn"
_BEFORE = "had ended before"


@click.command("jobs")
@click.argument("target", required=False, default="", shell_complete=complete_target)
@click.option("--running", is_flag=True, help="Only what still runs.")
@json_option
def jobs(target: str, *, running: bool) -> int:
    """List commands, running and ended, newest first, from every client."""
    chosen = options()
    request = exec_pb2.ListJobsRequest(target=target, running_only=running)

    async def work(client: DaemonClient) -> exec_pb2.ListJobsResponse:
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        return await stub.ListJobs(
            request, metadata=client.metadata(), timeout=QUICK_SECONDS
        )

    answer = to_json(ask(chosen, work))
    if chosen.json:
        output.emit(answer)
        return OK
    if not answer["jobs"]:
        kind = "running jobs" if running else "jobs"
        output.note(f"no {kind} on {target}" if target else f"no {kind}")
        return OK
    output.table(
        ("job", "target", "state", "started", "time", "client", "session", "command"),
        [_row(job) for job in answer["jobs"]],
    )
    if answer.get("truncated"):
        output.note("older jobs were left out")
    return OK


def _row(job: dict[str, Any]) -> list[str]:
    return [
        job["job_id"],
        job["target"],
        outcome.state(job),
        output.ago(job["started"]),
        output.span(job["duration_ms"] / 1000),
        job["client"],
        job.get("session_id", ""),
        job["command"],
    ]


@click.command("job")
@click.argument("job_id", metavar="ID", required=False, shell_complete=complete_job)
@click.option("-f", "--follow", "following", is_flag=True, help="Until it ends.")
@click.option(
    "--tail", type=click.IntRange(1, 100_000), metavar="N", help="Last N lines."
)
@click.option("--grep", default="", metavar="RE", help="Only lines that match.")
@click.option(
    "--stream", type=click.Choice(list(_STREAMS)), default="both", show_default=True
)
@click.option(
    "--stop",
    is_flag=False,
    flag_value=_IN_TURN,
    metavar="[SIGNAL]",
    help="Stop it: INT, TERM, KILL or HUP; without one INT, TERM, KILL in turn.",
)
@json_option
def job(
    job_id: str | None,
    *,
    following: bool,
    tail: int | None,
    grep: str,
    stream: str,
    stop: str | None,
) -> int:
    """Show a job's output, follow it, or stop it.

    Its stdout goes to stdout and its stderr to stderr, byte for byte; --tail and --grep
    show cleaned lines. With --follow the exit code is that of `holdfast exec`: the
    job's own, or 255 where that is not known.
    """
    chosen = options()
    if stop is not None and job_id is None and stop != _IN_TURN:
        job_id, stop = stop, _IN_TURN  # `--stop ID`: the word was no signal
    if not job_id:
        raise click.UsageError("missing argument 'ID'")
    if stop is not None:
        if following or tail or grep:
            raise click.UsageError(
                "--stop goes with neither --follow, --tail nor --grep"
            )
        return _stop(job_id, stop)
    if following and grep:
        raise click.UsageError(
            "--follow shows everything; pipe it into grep instead of using --grep"
        )
    request = exec_pb2.ReadJobRequest(
        job_id=job_id, stream=_STREAMS[stream], max_output_chars=_PAGE_CHARS, grep=grep
    )
    if tail is not None:
        request.tail_lines = tail
    show = _way(request, following=following, as_json=chosen.json)

    def work() -> int:
        return ask(chosen, lambda client: show(client, request))

    return outcome.apart(work, as_json=chosen.json) if following else work()


def _way(
    request: exec_pb2.ReadJobRequest, *, following: bool, as_json: bool
) -> Callable[[DaemonClient, exec_pb2.ReadJobRequest], Awaitable[int]]:
    """Return what shows the part of a job that was asked for."""
    if following:
        return watched(_lines if as_json else follow_to_end)
    if as_json:
        return _document
    part = request.grep or request.HasField("tail_lines")
    return _show if part else _dump


def watched(
    show: Callable[[DaemonClient, exec_pb2.ReadJobRequest], Awaitable[int]],
) -> Callable[[DaemonClient, exec_pb2.ReadJobRequest], Awaitable[int]]:
    """Return `show`, which then says that an interrupt ended only the watching."""

    async def watch(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> int:
        try:
            return await show(client, request)
        except asyncio.CancelledError:
            output.note(f"job {request.job_id} goes on")
            raise

    return watch


def _stop(job_id: str, name: str) -> int:
    chosen = options()
    known = _SIGNALS.get(name.upper().removeprefix("SIG"))
    if known is None and name != _IN_TURN:
        raise click.BadParameter(
            f"{name!r} is none of {', '.join(_SIGNALS)}", param_hint="--stop"
        )
    request = exec_pb2.StopJobRequest(
        job_id=job_id, signal=known or common_pb2.SIGNAL_UNSPECIFIED
    )

    async def work(client: DaemonClient) -> exec_pb2.StopJobResponse:
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        return await stub.StopJob(request, metadata=client.metadata())

    answer = ask(chosen, work)
    told = to_json(answer)
    runs = answer.status == common_pb2.EXEC_STATUS_RUNNING
    before = answer.note == f"it {_BEFORE}"
    sure = answer.stopped or before
    if chosen.json:
        output.emit(told)
    else:
        verb = "has ended" if answer.stopped else _BEFORE
        if runs or sure:
            verb = "still runs" if runs else verb
            output.say(f"job {job_id} {verb}: {outcome.state(told)}")
        else:
            output.say(f"what became of job {job_id} is not known")
        if answer.note and not before:
            output.note(answer.note)
    return OK if sure and not runs else FAILED


async def read(
    client: DaemonClient, request: exec_pb2.ReadJobRequest
) -> exec_pb2.JobOutput:
    """Return one answer about a job."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    async for frame in stub.ReadJob(
        request, metadata=client.metadata(), timeout=QUICK_SECONDS
    ):
        if frame.WhichOneof("event") == "result":
            return frame.result
    raise CallError("INTERNAL", "the daemon ended the call without an answer", ran="no")


async def _show(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> int:
    """Print the lines that were asked for."""
    found = await read(client, request)
    await _print(found.stdout.encode(), found.stderr.encode())
    if request.grep and not (found.stdout or found.stderr):
        output.note(f"no line matches {request.grep!r}")
    elif found.truncated and request.grep:
        output.note("more lines match than are shown")
    _tell_cut(request, found)
    if found.note:
        output.note(found.note)
    return OK


def _tell_cut(request: exec_pb2.ReadJobRequest, found: exec_pb2.JobOutput) -> None:
    """Say so where the lines that were asked for had no room, or are gone."""
    texts = [text for text in (found.stdout, found.stderr) if text]
    lines = (text.count("\n") + (not text.endswith("\n")) for text in texts)
    most = max(lines, default=0)
    if found.truncated and 0 < most < request.tail_lines and not request.grep:
        output.note(
            f"only the last {most} lines are shown, the first of them maybe in part;"
            f" `holdfast job {request.job_id}` shows all that is kept"
        )


async def _print(out: bytes, err: bytes) -> None:
    stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
    sink = Live(lambda error: give_up(stop, error))

    async def write() -> None:
        await sink.put(out, error=False)
        await sink.put(err, error=True)
        await sink.finish()

    await race(write(), stop)


async def _document(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> int:
    """Print one document with all that was asked for."""
    if request.grep or request.HasField("tail_lines"):
        output.emit(to_json(await read(client, request)))
    else:
        await show_whole(client, request)
    return OK


async def show_whole(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> bool:
    """Print one document with all a job has printed by now, page by page.

    Returns:
        Whether it is there from its beginning on.
    """
    out: list[str] = []
    err: list[str] = []
    # what a page leaves out is told with that page
    notes: dict[str, None] = {}
    whole = True
    request.offset = 0
    # what goes on printing as fast as it is read has no end
    until: int | None = None
    while True:
        found = await read(client, request)
        notes |= dict.fromkeys(found.note.split("; ") if found.note else ())
        whole = whole and found.earliest_offset <= request.offset
        out.append(found.stdout)
        err.append(found.stderr)
        if until is None:
            until = found.stdout_bytes + found.stderr_bytes
        if not found.truncated or not request.offset < found.next_offset < until:
            break
        request.offset = found.next_offset
    told = to_json(found) | {"stdout": "".join(out), "stderr": "".join(err)}
    told["truncated"] = found.truncated or not whole
    if notes:
        told["note"] = "; ".join(notes)
    output.emit(told)
    return whole


async def _start(
    client: DaemonClient, request: exec_pb2.ReadJobRequest
) -> exec_pb2.JobOutput:
    """Return how a job stands, without output, or with the tail that was asked for."""
    if request.HasField("tail_lines"):
        return await read(client, request)
    return await read(
        client,
        exec_pb2.ReadJobRequest(job_id=request.job_id, offset=0, max_output_chars=0),
    )


async def _dump(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> int:
    """Print what has been printed so far, byte for byte and in order."""
    found = await _start(client, request)
    until = found.stdout_bytes + found.stderr_bytes
    if found.earliest_offset < until:
        await follow(client, request, offset=found.earliest_offset, until=until)
    if found.status == common_pb2.EXEC_STATUS_RUNNING:
        output.note(
            f"job {request.job_id} still runs on {found.target}, "
            f"{output.span(found.duration_ms / 1000)} by now"
        )
    if found.note:
        output.note(found.note)
    return OK


async def follow_to_end(
    client: DaemonClient, request: exec_pb2.ReadJobRequest, *, whole: bool = False
) -> int:
    """Print output until the job ends; return the job's own exit code.

    `whole`: output with a hole in it must not pass for a success.
    """
    offset = 0
    if request.HasField("tail_lines"):
        found = await read(client, request)
        await _print(found.stdout.encode(), found.stderr.encode())
        _tell_cut(request, found)
        offset = found.next_offset
    end, skipped = await follow(client, request, offset=offset)
    if end is None:
        return TRANSPORT
    for text in outcome.remarks(end, request.job_id):
        output.note(text)
    return outcome.exit_code(end) or (TRANSPORT if whole and skipped else 0)


async def _lines(client: DaemonClient, request: exec_pb2.ReadJobRequest) -> int:
    """Print one JSON line for each piece of output, and one for the end."""
    offset = 0
    if request.HasField("tail_lines"):
        found = await read(client, request)
        for name, text in (("stdout", found.stdout), ("stderr", found.stderr)):
            if text:
                output.emit({"stream": name, "text": text}, line=True)
        offset = found.next_offset
    end = await follow_json(client, request, offset=offset)
    return TRANSPORT if end is None else outcome.exit_code(end)
