"""ForwardService: forwards of ports and sockets."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from holdfast.v1 import forward_pb2, forward_pb2_grpc
from holdfast_daemon.errors import InputError, LinkError, Reason
from holdfast_daemon.forward import wish
from holdfast_daemon.forward.about import closed_by
from holdfast_daemon.forward.wish import Asked, Direction
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from holdfast_daemon.config import Config
    from holdfast_daemon.forward.forward import Forward
    from holdfast_daemon.forward.table import ForwardTable

    type_context = grpc.aio.ServicerContext[Any, Any]

_DIRECTIONS = {
    forward_pb2.FORWARD_DIRECTION_LOCAL: Direction.LOCAL,
    forward_pb2.FORWARD_DIRECTION_REMOTE: Direction.REMOTE,
    forward_pb2.FORWARD_DIRECTION_DYNAMIC: Direction.DYNAMIC,
}
_NUMBERS = {value: key for key, value in _DIRECTIONS.items()}


class ForwardServicer(forward_pb2_grpc.ForwardServiceServicer):
    """Thin: converts and calls the table."""

    def __init__(self, table: ForwardTable, config: Callable[[], Config]) -> None:
        """Serve `table` under the current configuration."""
        self._table = table
        self._config = config

    async def OpenForward(
        self, request: forward_pb2.OpenForwardRequest, context: type_context
    ) -> forward_pb2.OpenForwardResponse:
        """Open a forward, or find the same one open."""
        call, config = current(), self._config()
        host = call.host
        if host is None:
            raise InputError("target", "target names no host")
        wanted = wish.read(_asked(request), wildcard=config.forward_wildcard)
        seconds = config.limits.wait_max_seconds
        call.ticket.add(
            direction=wanted.direction.value,
            listen=str(wanted.listen),
            connect=str(wanted.connect or ""),
        )
        try:
            async with asyncio.timeout(seconds):
                found, reused = await self._table.open(
                    wanted, host, call.caller, request.request_id
                )
        except TimeoutError:
            raise LinkError(
                Reason.CONNECT_TIMEOUT,
                f"the forward through {host.shown} was not open within {seconds:g} s",
                hint="It goes on being opened; call again to see what came of it.",
            ) from None
        call.ticket.add(forward_id=found.about.id, listen=str(found.listen))
        return forward_pb2.OpenForwardResponse(**_fields(found, reused=reused))

    async def ListForwards(
        self, request: forward_pb2.ListForwardsRequest, context: type_context
    ) -> forward_pb2.ListForwardsResponse:
        """List what this caller may see, newest first."""
        call = current()
        kept = self._table.list(stopped=request.include_stopped)
        found = [
            one
            for one in (*kept, *self._table.waiting())
            if call.ticket.allows_name(one.about.target, one.about.address)
            and (not request.target or request.target in _names(one))
        ]
        return forward_pb2.ListForwardsResponse(
            count=len(found),
            forwards=[forward_pb2.Forward(**_fields(one)) for one in found],
        )

    async def CloseForward(
        self, request: forward_pb2.CloseForwardRequest, context: type_context
    ) -> forward_pb2.CloseForwardResponse:
        """Close a forward and the connections through it."""
        call = current()
        found = self._table.find(request.forward)
        call.ticket.check_name(found.about.target, found.about.address)
        call.ticket.add(forward_id=found.about.id)
        was = await self._table.close(found, closed_by(call.caller.label))
        broken_off = found.broken_off if was else 0
        return forward_pb2.CloseForwardResponse(
            **_fields(found),
            was_running=was,
            forced_kill=broken_off > 0,
            connections_ended=broken_off,
        )


def _names(forward: Forward) -> tuple[str, ...]:
    about, host = forward.about, forward.host
    return about.target, about.address, host.shown, host.hostname


def _asked(request: forward_pb2.OpenForwardRequest) -> Asked:
    return Asked(
        direction=_DIRECTIONS[request.direction],
        name=request.name,
        bind_address=request.bind_address,
        local_port=request.local_port if request.HasField("local_port") else None,
        remote_host=request.remote_host,
        remote_port=request.remote_port if request.HasField("remote_port") else None,
        local_socket=request.local_socket,
        remote_socket=request.remote_socket,
        durable=request.durable,
    )


def _fields(forward: Forward, *, reused: bool = False) -> dict[str, Any]:
    """Return the fields that every answer about a forward begins with."""
    about, kept = forward.about, forward.wish
    return {
        "forward_id": about.id,
        "name": about.names[0] if about.names else "",
        "direction": _NUMBERS[kept.direction],
        "listen": str(forward.listen),
        "connect": "" if kept.connect is None else str(kept.connect),
        "running": forward.running,
        "reused": reused,
        "uptime_seconds": int(forward.uptime),
        "connections": forward.connections,
        "bytes_in": forward.tally.inward,
        "bytes_out": forward.tally.outward,
        "target": about.target,
        "client": about.client,
        "durable": kept.durable,
        "state": forward.state.value,
        "served": forward.served,
        "refused": forward.refused,
        "last_error": forward.last_error or None,
        "termination_reason": forward.ended_for or None,
    }
