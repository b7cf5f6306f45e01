"""AdminService: the daemon itself."""

from __future__ import annotations

import asyncio
import resource
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import holdfast
from holdfast.contract import HASH, PROTOCOL_MAX, PROTOCOL_MIN
from holdfast.v1 import admin_pb2, admin_pb2_grpc
from holdfast_daemon import limits as limits_module
from holdfast_daemon.audit import query
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.errors import Reason, StateError
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    import grpc.aio

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.clock import Clock
    from holdfast_daemon.config import ConfigHolder
    from holdfast_daemon.connection.entry import Row
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.paths import Places
    from holdfast_daemon.rpc.clients import Clients
    from holdfast_daemon.rpc.place import Resolve

    type_context = grpc.aio.ServicerContext[Any, Any]

_STATM = Path("/proc/self/statm")
# Read with the code that knows these tools: an upgrade puts another's in its place.
_CATALOGUE = Path(holdfast.__path__[0], "catalog.json").read_text("utf-8")
# Records read at a time: the whole log may be 100 MB.
_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The daemon's parts, as far as they are asked how they stand.

    Attributes:
        instance: New at every start.
        started: Wall clock, for people.
        begun: Monotonic clock, for the uptime.
    """

    version: str
    instance: str
    pid: int
    started: datetime
    begun: float
    clock: Clock
    places: Places
    config: ConfigHolder
    audit: AuditLog
    pool: Pool
    table: JobTable
    clients: Clients


def _memory() -> int:
    """Return the resident set in bytes; where /proc is missing, its peak."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def _connection(row: Row) -> admin_pb2.Connection:
    return admin_pb2.Connection(
        target=row.target,
        state=row.state,
        channels=row.channels,
        age_seconds=int(row.age),
        idle_seconds=int(row.idle),
        via=row.via,
        passengers=row.passengers,
    )


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Thin: reads what the daemon's parts say of themselves."""

    def __init__(self, parts: Parts, resolve: Resolve) -> None:
        """Speak for `parts`; `resolve` finds the host that is asked about."""
        self._parts = parts
        self._resolve = resolve

    async def Hello(
        self, request: admin_pb2.HelloRequest, context: type_context
    ) -> admin_pb2.HelloResponse:
        """Say who answers."""
        parts = self._parts
        return admin_pb2.HelloResponse(
            version=parts.version,
            instance=parts.instance,
            protocol_min=PROTOCOL_MIN,
            protocol_max=PROTOCOL_MAX,
            contract_hash=HASH,
            started=rfc3339(parts.started),
            pid=parts.pid,
        )

    async def ReadCatalogue(
        self, request: admin_pb2.ReadCatalogueRequest, context: type_context
    ) -> admin_pb2.ReadCatalogueResponse:
        """Show the tools that this daemon was built with."""
        return admin_pb2.ReadCatalogueResponse(catalogue=_CATALOGUE)

    async def Status(
        self, request: admin_pb2.StatusRequest, context: type_context
    ) -> admin_pb2.StatusResponse:
        """Say how everything stands."""
        parts = self._parts
        jobs = parts.table.list()
        running = sum(job.running for job in jobs)
        response = admin_pb2.StatusResponse(
            version=parts.version,
            instance=parts.instance,
            pid=parts.pid,
            uptime_seconds=int(parts.clock.monotonic() - parts.begun),
            socket=str(parts.places.socket),
            config_file=str(parts.config.current.path or ""),
            config_error=parts.config.error,
            state_dir=str(parts.places.state),
            memory_bytes=await asyncio.to_thread(_memory),
            jobs_running=running,
            jobs_kept=len(jobs) - running,
            audit_error=parts.audit.error,
            jobs_bound=[job.id for job in jobs if job.running and not job.lasting],
            tasks=len(asyncio.all_tasks()),
        )
        waiting = await parts.pool.pending.waiting()
        names = dict.fromkeys(one.host.name for one in waiting)
        response.trust_requests.extend(names)
        response.connections.extend(_connection(row) for row in parts.pool.list())
        if request.target:
            response.host.CopyFrom(await self._host(request.target))
        for seen, idle in parts.clients.rows():
            response.clients.add(
                name=seen.label,
                pid=seen.pid,
                calls=seen.calls,
                idle_seconds=int(idle),
            )
        if request.limits:
            for one in limits_module.describe(parts.config.current.limits):
                response.limits.add(
                    name=one.name,
                    value=f"{one.value:g}"
                    if isinstance(one.value, float)
                    else str(one.value),
                    unit=one.bounds.unit,
                    reason=one.bounds.reason,
                )
        return response

    async def _host(self, target: str) -> admin_pb2.HostStatus:
        """Say how one host stands."""
        call, parts = current(), self._parts
        host = await self._resolve(call.caller, target, None)
        call.ticket.check(host)
        (stands,) = parts.pool.standings([host.account])
        return admin_pb2.HostStatus(
            name=host.name,
            target=host.display if host.show == "all" else "",
            state=stands.state,
            since=rfc3339(stands.since) if stands.since else "",
            last_error=stands.error,
            last_error_time=rfc3339(stands.error_at) if stands.error_at else "",
            retry_seconds=stands.retry,
            connections=[_connection(row) for row in stands.rows],
            events=[
                admin_pb2.HostEvent(
                    time=rfc3339(event.at),
                    kind=event.kind.value,
                    detail=event.detail,
                    times=event.times,
                )
                for event in stands.events
            ],
            jobs=[job.id for job in parts.table.on(host)],
        )

    async def ReadAudit(
        self, request: admin_pb2.ReadAuditRequest, context: type_context
    ) -> AsyncIterator[admin_pb2.ReadAuditResponse]:
        """Read records, and follow new ones if asked."""
        directory = self._parts.places.audit
        if request.follow:
            async for line in query.follow(self._parts.audit, request.last):
                yield admin_pb2.ReadAuditResponse(record=line)
            raise StateError(
                Reason.DRAINING,
                "the daemon is stopping",
                hint="Call again in a moment.",
            )
        await self._parts.audit.flush()
        lines = query.read(directory, request.last)
        while batch := await asyncio.to_thread(lambda: list(islice(lines, _BATCH))):
            for line in batch:
                yield admin_pb2.ReadAuditResponse(record=line)

    async def VerifyAudit(
        self, request: admin_pb2.VerifyAuditRequest, context: type_context
    ) -> admin_pb2.VerifyAuditResponse:
        """Check the hash chain."""
        await self._parts.audit.flush()
        verdict = await asyncio.to_thread(query.verify, self._parts.places.audit)
        return admin_pb2.VerifyAuditResponse(
            intact=verdict.intact, records=verdict.records, faults=verdict.faults
        )

    async def Reload(
        self, request: admin_pb2.ReloadRequest, context: type_context
    ) -> admin_pb2.ReloadResponse:
        """Read the configuration again."""
        config = self._parts.config
        before = config.current
        reloaded = await config.refresh()
        return admin_pb2.ReloadResponse(
            reloaded=reloaded, error=config.error, changed=config.current != before
        )
