"""Follows one copy to its end: over a restart of the daemon, and until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from typing import TYPE_CHECKING

from grpc import aio

from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc, transfer_pb2_grpc
from holdfast_shim.cli.restarts import over_restarts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from holdfast.v1 import transfer_pb2
    from holdfast_shim.client import DaemonClient

_STOP_SECONDS = 5.0


async def copied(
    client: DaemonClient,
    request: transfer_pb2.CopyFilesRequest,
    show: Callable[[common_pb2.Progress], None],
) -> transfer_pb2.CopyResult:
    """Copy, and return what came of it; `show` is told how far it is.

    The next daemon goes on with a copy by itself: it is asked for the same one again.

    Raises:
        AioRpcError: It failed.
        CallError: The daemon went away, and stays away.
    """
    request.request_id = request.request_id or f"cli-{secrets.token_hex(8)}"
    return await over_restarts(client, lambda: _once(client, request, show), "copy")


async def _once(
    client: DaemonClient,
    request: transfer_pb2.CopyFilesRequest,
    show: Callable[[common_pb2.Progress], None],
) -> transfer_pb2.CopyResult | None:
    """Ask once; None: the daemon left it to the next one."""
    stub = transfer_pb2_grpc.TransferServiceStub(client.channel)
    call = stub.CopyFiles(request, metadata=client.metadata())
    frames = aiter(call)
    first = asyncio.ensure_future(_next(frames))
    try:
        frame = await asyncio.shield(first)
        while frame is not None:
            kind = frame.WhichOneof("event")
            if kind == "result":
                running = frame.result.status == common_pb2.EXEC_STATUS_RUNNING
                return None if running else frame.result
            if kind == "progress":
                show(frame.progress)
            frame = await _next(frames)
    except asyncio.CancelledError:
        await _stop(client, first)
        raise
    finally:
        call.cancel()
        await asyncio.gather(first, return_exceptions=True)
    return None


async def _next(
    frames: AsyncIterator[transfer_pb2.CopyFilesResponse],
) -> transfer_pb2.CopyFilesResponse | None:
    return await anext(frames, None)


async def _stop(
    client: DaemonClient,
    first: asyncio.Future[transfer_pb2.CopyFilesResponse | None],
) -> None:
    """End the copy, which would go on without us."""
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    with contextlib.suppress(TimeoutError, aio.AioRpcError):
        async with asyncio.timeout(_STOP_SECONDS):
            frame = await first
            if frame is not None and frame.WhichOneof("event") == "job_id":
                wanted = exec_pb2.StopJobRequest(job_id=frame.job_id)
                await stub.StopJob(wanted, metadata=client.metadata())
