"""A real gRPC server that answers with its name: whose socket is at a path?"""

from __future__ import annotations

import os
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

# Channels of one process would share a connection per address.
CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


@contextmanager
def umask(value: int) -> Generator[None]:
    """Set the umask for a while."""
    before = os.umask(value)
    try:
        yield
    finally:
        os.umask(before)


@asynccontextmanager
async def serve(path: Path, name: str) -> AsyncGenerator[grpc.aio.Server]:
    """Run a real gRPC server at `path` that answers with `name`."""

    async def answer(_request: bytes, _context: object) -> bytes:
        return name.encode()

    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("test.Test", {"Name": handler}),)
    )
    with umask(0o177):
        server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield server
    finally:
        await server.stop(0)


async def who(path: Path) -> str:
    """Return the name of the server that answers at `path`, or the error's code."""
    async with grpc.aio.insecure_channel(f"unix:{path}", options=CHANNEL) as channel:
        call: Any = channel.unary_unary("/test.Test/Name")
        try:
            reply: bytes = await call(b"", timeout=10)
        except grpc.aio.AioRpcError as error:
            return error.code().name
        return reply.decode()
