"""`ListKept` and `WipeKept`: what is kept on a host, whichever daemon made it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holdfast.v1 import session_pb2
from holdfast_daemon.errors import InputError
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import grpc.aio

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.kept.standing import Standing

    type_context = grpc.aio.ServicerContext[Any, Any]

_RUNNING = "running"


class Store(Protocol):
    """What is kept on one host."""

    async def list(self) -> Sequence[Standing]:
        """Return all of it."""
        ...

    async def end(self, ident: str, *, force: bool) -> object:
        """End one that runs."""
        ...

    async def wipe(self, ident: str) -> None:
        """Remove one."""
        ...


class KeptServicer:
    """Serves the two RPCs; the rest of their service is served elsewhere."""

    def __init__(self, store: Callable[[Host], Store]) -> None:
        """Look at a host through `store`."""
        self._store = store

    async def ListKept(
        self,
        request: session_pb2.ListKeptRequest,
        context: type_context,
    ) -> session_pb2.ListKeptResponse:
        """List what is kept on a host, newest first."""
        host = _host()
        found = await self._store(host).list()
        return session_pb2.ListKeptResponse(
            target=host.name, kept=[_row(one) for one in _newest_first(found)]
        )

    async def WipeKept(
        self,
        request: session_pb2.WipeKeptRequest,
        context: type_context,
    ) -> session_pb2.WipeKeptResponse:
        """Remove what was named; what runs only with force, which ends it first."""
        if request.all == bool(request.ids):
            raise InputError("ids", "give ids, or all, and not both")
        host = _host()
        store = self._store(host)
        found = {one.ident: one for one in _newest_first(await store.list())}
        if unknown := [ident for ident in request.ids if ident not in found]:
            raise InputError(
                "ids",
                f"{', '.join(unknown)} is not kept on {host.name}; nothing was removed",
                hint=f"`holdfast sessions --on {host.name}` shows what is.",
            )
        answer = session_pb2.WipeKeptResponse(target=host.name)
        try:
            for ident in dict.fromkeys(request.ids or found):
                one = found[ident]
                if one.state == _RUNNING:
                    if not request.force:
                        answer.left.append(_row(one))
                        continue
                    await store.end(ident, force=True)
                await store.wipe(ident)
                answer.wiped.append(_row(one))
        finally:
            # Also where it broke off: what is gone is gone.
            current().ticket.add(
                wiped=[one.id for one in answer.wiped],
                left=[one.id for one in answer.left],
            )
        return answer


def _host() -> Host:
    host = current().host
    if host is None:
        raise InputError("target", "target names no host")
    return host


def _newest_first(found: Sequence[Standing]) -> list[Standing]:
    return sorted(found, key=lambda one: (one.at, one.ident), reverse=True)


def _row(one: Standing) -> session_pb2.Kept:
    return session_pb2.Kept(
        id=one.ident,
        kind="job" if one.ident.startswith("j") else "session",
        state=one.state,
        name=one.name,
        owner=one.owner,
        created=one.at,
        command=one.command or one.shell,
        holder=one.kind,
        size_bytes=one.size,
        exit_code=one.exit_code,
        signal=one.signal,
        why=one.why,
    )
