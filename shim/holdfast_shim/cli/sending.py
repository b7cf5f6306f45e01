"""The half of a live call that sends: frames in order, and the call's own end kept."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from grpc import aio

if TYPE_CHECKING:
    from google.protobuf.message import Message

_Request = TypeVar("_Request", bound="Message")
_Response = TypeVar("_Response")


class Sender(Generic[_Request, _Response]):
    """Sends the frames of one call; several tasks may."""

    def __init__(self, call: aio.StreamStreamCall[_Request, _Response]) -> None:
        """Send on `call`."""
        self._call = call
        # The public write() replaces the call's status by INTERNAL when the call ends
        # while it writes (grpc.aio, set_internal_error), and why it ended is lost.
        # Below it lies one that leaves the status alone.
        self._inner: Any = getattr(call, "_cython_call", None)
        self._turn = asyncio.Lock()
        self._begun = False

    @property
    def waiting(self) -> bool:
        """A frame is on its way, and the daemon does not take it yet."""
        return self._turn.locked()

    async def send(self, frame: _Request) -> bool:
        """Send one frame, waiting while the daemon takes none; False: it is over."""
        async with self._turn:
            if self._call.done():
                return False
            try:
                if self._inner is None or not self._begun:
                    self._begun = True
                    await self._call.write(frame)
                else:
                    await self._inner.send_serialized_message(frame.SerializeToString())
            except (aio.AioRpcError, aio.InternalError, asyncio.InvalidStateError):
                return False  # who reads the call learns why
        return True
