"""`holdfast exec --durable`: a command that its host keeps, looked on from here."""

from __future__ import annotations

import functools
import os
import sys
import threading
from typing import TYPE_CHECKING

import click
from grpc import aio

from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_shim.cli import outcome, output
from holdfast_shim.cli.jobs import follow_to_end, show_whole, watched
from holdfast_shim.cli.options import TRANSPORT, options
from holdfast_shim.client import error_of
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

# A stdin that nobody meant, as of a script that was started with an open pipe.
_SILENT_SECONDS = 2.0
_WAITING = "nothing is run until stdin ends, which is its input; -n leaves that out"
_GONE = ("DAEMON_LOST", "DAEMON_UNAVAILABLE", "DRAINING")


def take_input(request: exec_pb2.RunRequest) -> None:
    """Have all that comes by our stdin be its input: nobody stays to hand it on."""
    if os.isatty(0):
        return
    waiting = threading.Timer(_SILENT_SECONDS, output.note, (_WAITING,))
    waiting.daemon = True
    waiting.start()
    try:
        data = sys.stdin.buffer.read()
    finally:
        waiting.cancel()
    request.stdin = _text(data)


async def begin(client: DaemonClient, request: exec_pb2.RunRequest) -> int:
    """Begin it and look on until it ends; an interrupt ends only the looking."""
    request.wait_seconds = 0
    job_id = await _start(client, request)
    wanted = exec_pb2.ReadJobRequest(job_id=job_id)
    try:
        if not options().json:
            output.note(f"job {job_id} is kept on its host")
            look = watched(functools.partial(follow_to_end, whole=True))
            return await look(client, wanted)
        end = await _until_end(client, job_id)
        whole = await show_whole(client, wanted)
    except aio.AioRpcError as error:
        lost = error_of(error)
        if lost.reason not in _GONE:
            raise
        # its job is answered for before its host has begun it
        raise CallError(
            "DAEMON_LOST",
            f"{lost.message}; job {job_id} goes on without it if its host began it",
            hint=f"`holdfast job {job_id} --follow` starts it again and reads on",
            ran="unknown",
            metadata={"job_id": job_id},
        ) from error
    return outcome.exit_code(end) or (0 if whole else TRANSPORT)


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise click.UsageError(
            "the input of a durable command must be UTF-8 text: copy a file to the host"
            " and have the command read that"
        ) from error


async def _start(client: DaemonClient, request: exec_pb2.RunRequest) -> str:
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    async for frame in stub.Run(request, metadata=client.metadata()):
        if frame.WhichOneof("event") == "result":
            return frame.result.job_id
    raise CallError(
        "INTERNAL",
        "the daemon ended the call without an answer",
        hint="look with `holdfast jobs` before running it again",
        ran="unknown",
    )


async def _until_end(client: DaemonClient, job_id: str) -> exec_pb2.JobEnd:
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    call = stub.FollowJob(
        exec_pb2.FollowJobRequest(job_id=job_id), metadata=client.metadata()
    )
    async for frame in call:
        if frame.WhichOneof("frame") == "end":
            return frame.end
    return exec_pb2.JobEnd(status=common_pb2.EXEC_STATUS_RUNNING)
