"""A job's output as it comes: byte for byte for people, JSON lines for programs."""

from __future__ import annotations

import asyncio
import codecs
from typing import TYPE_CHECKING, NoReturn

from holdfast.v1 import exec_pb2, exec_pb2_grpc
from holdfast_shim.cli import outcome, output
from holdfast_shim.cli.streams import Live, Sink, give_up, race

if TYPE_CHECKING:
    from holdfast_shim.client import DaemonClient

_NAMES = {
    exec_pb2.OUTPUT_STREAM_STDOUT: "stdout",
    exec_pb2.OUTPUT_STREAM_STDERR: "stderr",
}


async def follow(
    client: DaemonClient,
    request: exec_pb2.ReadJobRequest,
    *,
    offset: int,
    until: int | None = None,
) -> tuple[exec_pb2.JobEnd | None, int]:
    """Write a job's output to our own descriptors.

    Args:
        client: A connected client.
        request: Which job, and which of its streams.
        offset: Where to begin.
        until: Where to end; None: where the job does.

    Returns:
        The job's end, when it was reached, and how many bytes were not there any more.
    """
    stop: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()
    sink = Live(lambda error: give_up(stop, error))
    return await race(_copy(client, request, offset, until, sink), stop)


async def _copy(
    client: DaemonClient,
    request: exec_pb2.ReadJobRequest,
    offset: int,
    until: int | None,
    sink: Sink,
) -> tuple[exec_pb2.JobEnd | None, int]:
    call = exec_pb2_grpc.ExecServiceStub(client.channel).FollowJob(
        exec_pb2.FollowJobRequest(job_id=request.job_id, offset=offset),
        metadata=client.metadata(),
    )
    end: exec_pb2.JobEnd | None = None
    skipped = 0
    try:
        async for frame in call:
            if frame.WhichOneof("frame") == "end":
                end = frame.end
                break
            chunk, data = frame.output, frame.output.data
            if chunk.skipped:
                skipped += chunk.skipped
                output.note(f"{chunk.skipped} bytes before this were discarded")
            if until is not None and chunk.next_offset > until:
                # all of it, where what was before it has been discarded
                data = data[: max(0, len(data) - (chunk.next_offset - until))]
            if data and wanted(request, chunk):
                error = chunk.stream == exec_pb2.OUTPUT_STREAM_STDERR
                await sink.put(data, error=error)
            if until is not None and chunk.next_offset >= until:
                break
    finally:
        call.cancel()
    await sink.finish()
    return end, skipped


async def follow_json(
    client: DaemonClient, request: exec_pb2.ReadJobRequest, *, offset: int
) -> exec_pb2.JobEnd | None:
    """Print a JSON line for each piece of output and one for the end."""
    call = exec_pb2_grpc.ExecServiceStub(client.channel).FollowJob(
        exec_pb2.FollowJobRequest(job_id=request.job_id, offset=offset),
        metadata=client.metadata(),
    )
    # Pieces may end within a character.
    decoders = {s: codecs.getincrementaldecoder("utf-8")("replace") for s in _NAMES}
    async for frame in call:
        if frame.WhichOneof("frame") == "end":
            for stream, decoder in decoders.items():
                if rest := decoder.decode(b"", final=True):
                    output.emit({"stream": _NAMES[stream], "text": rest}, line=True)
            output.emit(
                {"job_id": request.job_id, **outcome.document(frame.end)}, line=True
            )
            return frame.end
        chunk = frame.output
        if not wanted(request, chunk):
            continue
        told = {
            "stream": _NAMES[chunk.stream],
            "text": decoders[chunk.stream].decode(chunk.data),
            "next_offset": chunk.next_offset,
        }
        output.emit(
            told | ({"skipped": chunk.skipped} if chunk.skipped else {}), line=True
        )
    return None


def wanted(request: exec_pb2.ReadJobRequest, chunk: exec_pb2.OutputChunk) -> bool:
    """Return whether a chunk is of a stream that was asked for."""
    both = (exec_pb2.OUTPUT_STREAM_UNSPECIFIED, exec_pb2.OUTPUT_STREAM_BOTH)
    return request.stream in both or request.stream == chunk.stream
