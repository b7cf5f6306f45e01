"""TransferService: copies and syncs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast.v1 import transfer_pb2, transfer_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc.aio

    from holdfast_daemon.rpc.copy import CopyCalls
    from holdfast_daemon.rpc.sync import Syncs

    type_context = grpc.aio.ServicerContext[Any, Any]


class TransferServicer(transfer_pb2_grpc.TransferServiceServicer):
    """Thin: hands each call on."""

    def __init__(self, syncs: Syncs, copies: CopyCalls) -> None:
        """Serve `syncs` and `copies`."""
        self._syncs = syncs
        self._copies = copies

    async def CopyFiles(
        self, request: transfer_pb2.CopyFilesRequest, context: type_context
    ) -> AsyncIterator[transfer_pb2.CopyFilesResponse]:
        """Copy files to or from a host."""
        async for frame in self._copies.serve(request):
            yield frame

    async def SyncDirectory(
        self, request: transfer_pb2.SyncDirectoryRequest, context: type_context
    ) -> AsyncIterator[transfer_pb2.SyncDirectoryResponse]:
        """Make one directory like another."""
        async for frame in self._syncs.serve(request):
            yield frame
