"""HostService: what hosts there are, and their shared connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from holdfast.v1 import host_pb2, host_pb2_grpc
from holdfast_daemon.clock import rfc3339
from holdfast_daemon.errors import InputError, LinkError, Reason, StateError
from holdfast_daemon.forward.table import names
from holdfast_daemon.rpc.door import current

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    import grpc.aio

    from holdfast.v1.common_pb2 import ConnectOptions
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.forward.table import ForwardTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.session.table import SessionTable

    Resolve = Callable[[Caller, str, ConnectOptions | None], Awaitable[Host]]
    type_context = grpc.aio.ServicerContext[Any, Any]


# How a host stands where an error says why.
_AMISS = ("lost", "failed", "waiting")
_ON_REQUEST = "it was disconnected on request"
# So many job ids are named in a refusal.
_NAMED = 5


class HostServicer(host_pb2_grpc.HostServiceServicer):
    """Thin: converts and calls inventory and pool."""

    def __init__(
        self,
        inventory: Inventory,
        pool: Pool,
        table: JobTable,
        resolve: Resolve,
        limits: Limits,
        *,
        forwards: ForwardTable,
        sessions: SessionTable,
    ) -> None:
        """Serve `inventory` and `pool`; the tables know who uses a connection."""
        self._inventory = inventory
        self._pool = pool
        self._table = table
        self._resolve = resolve
        self._limits = limits
        self._forwards = forwards
        self._sessions = sessions

    async def ListHosts(
        self, request: host_pb2.ListHostsRequest, context: type_context
    ) -> host_pb2.ListHostsResponse:
        """List the hosts that this caller may use."""
        call = current()
        query = request.query.casefold()
        hosts: list[host_pb2.Host] = []
        for row in await self._inventory.known():
            texts = (row.name, row.description, *row.tags)
            if not row.enabled or not call.ticket.allows_name(row.name, row.target):
                continue
            if request.tag and request.tag not in row.tags:
                continue
            if query and not any(query in text.casefold() for text in texts):
                continue
            found = host_pb2.Host(
                name=row.name,
                target=row.target if row.show == "all" else "",
                tags=row.tags,
                description=row.description,
            )
            hosts.append(found)
        self._tell_standings(hosts)
        notes = await self._inventory.troubles()
        return host_pb2.ListHostsResponse(hosts=hosts, notes=notes)

    def _tell_standings(self, hosts: Iterable[host_pb2.Host]) -> None:
        """Say how the connections to hosts stand, as far as anything is known."""
        accounts = [(host, self._inventory.account(host.name)) for host in hosts]
        known = [(host, found) for host, found in accounts if found is not None]
        standings = self._pool.standings(account for _, account in known)
        for (host, account), stands in zip(known, standings, strict=True):
            host.connected = stands.state == "connected"
            host.forwards = self._forwards.count(account)
            host.sessions = self._sessions.count(account)
            if stands.state:
                host.state = stands.state
            if stands.since is not None:
                host.since = rfc3339(stands.since)
            if stands.error and stands.state in _AMISS:
                host.last_error = stands.error

    async def Connect(
        self, request: host_pb2.ConnectRequest, context: type_context
    ) -> host_pb2.ConnectResponse:
        """Connect, or find the connection that is there; measure one round trip."""
        host = _host()
        seconds = self._limits.wait_max_seconds
        try:
            async with asyncio.timeout(seconds):
                lease = await self._pool.lease(host)
        except TimeoutError:
            raise LinkError(
                Reason.CONNECT_TIMEOUT,
                f"{host.shown} was not reached within {seconds:g} s",
                hint="The login goes on; call again to see whether it came through.",
            ) from None
        async with lease:
            link = lease.link
            return host_pb2.ConnectResponse(
                target=host.name,
                connected=True,
                reused=lease.reused,
                rtt_ms=round(await link.rtt() * 1000, 2),
                server_version=link.server_version,
                host_key_fingerprint=link.host_key_fingerprint,
                auth_method=link.auth_method,
                notes=_notes(lease.host, link),
            )

    async def Disconnect(
        self, request: host_pb2.DisconnectRequest, context: type_context
    ) -> host_pb2.DisconnectResponse:
        """Close the connections to a host."""
        call = current()
        host = await self._resolve(call.caller, request.target, None)
        call.ticket.check(host)
        jobs = list(self._table.on(host))
        forwards = list(self._forwards.on(host))
        sessions = list(self._sessions.on(host))
        if jobs and not request.force:
            named = ", ".join(job.id for job in jobs[:_NAMED])
            more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
            raise StateError(
                Reason.IN_USE,
                f"{len(jobs)} command(s) still use the connection to {host.name}",
                hint=f"End them by ssh_job_stop (job_id {named}{more}),"
                " or set force to end them as lost: those kept on the host go on"
                " there.",
                metadata={"jobs": ",".join(job.id for job in jobs)},
            )
        if forwards and not request.force:
            raise StateError(
                Reason.IN_USE,
                f"{len(forwards)} forward(s) use the connection to {host.name}",
                hint=f"End them by ssh_forward_close ({names(forwards, _NAMED)}),"
                " or set force.",
                metadata={"forwards": ",".join(one.about.id for one in forwards)},
            )
        if sessions and not request.force:
            ids = [one.id for one in sessions]
            raise StateError(
                Reason.IN_USE,
                f"{len(sessions)} session(s) use the connection to {host.name}",
                hint=f"End them by ssh_session_close ({', '.join(ids[:_NAMED])}),"
                " or set force: those kept on the host go on there.",
                metadata={"sessions": ",".join(ids)},
            )
        for one in forwards:
            await self._forwards.close(one, _ON_REQUEST)
        await self._pool.farewells.part(host)
        rested = [await self._sessions.rest(one, _ON_REQUEST) for one in sessions]
        # What its host keeps goes on there, in sessions too; and a copy by itself.
        kept = {one.id for one in sessions if one.running}
        ending = [job for job in jobs if not job.lasting and job.session not in kept]
        closed = await self._pool.disconnect(host, force=request.force)
        await _over(ending, self._limits.stop_seconds)
        return host_pb2.DisconnectResponse(
            closed=closed,
            jobs_ended=sum(not job.running for job in ending),
            sessions_ended=sum(rested),
            forwards_ended=len(forwards),
        )


async def _over(jobs: Iterable[Job], seconds: float) -> None:
    """Wait until they have ended; `seconds` at most."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            for job in jobs:
                await job.ended.wait()


def _notes(host: Host, link: Link) -> list[str]:
    """Say what ssh config asks for that is not done on this connection."""
    notes = list(host.notes)
    if host.forward_agent and not link.lends_agent:
        notes.append("ForwardAgent: no agent was found to lend")
    return notes


def _host() -> Host:
    host = current().host
    if host is None:
        raise InputError("target", "target names no host")
    return host
