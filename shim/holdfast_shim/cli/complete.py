"""What the shell offers behind a verb, from a daemon that runs already."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from grpc import aio

from holdfast.v1 import (
    exec_pb2,
    exec_pb2_grpc,
    host_pb2,
    host_pb2_grpc,
    session_pb2,
    session_pb2_grpc,
)
from holdfast_shim.cli.daemon import dial
from holdfast_shim.cli.options import Options
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    import click

    from holdfast_shim.client import DaemonClient

# A person who pressed Tab waits no longer.
_SECONDS = 1.0


async def _hosts(client: DaemonClient) -> list[str]:
    stub = host_pb2_grpc.HostServiceStub(client.channel)
    answer = await stub.ListHosts(
        host_pb2.ListHostsRequest(), metadata=client.metadata(), timeout=_SECONDS
    )
    return [host.name for host in answer.hosts]


async def _jobs(client: DaemonClient) -> list[str]:
    stub = exec_pb2_grpc.ExecServiceStub(client.channel)
    answer = await stub.ListJobs(
        exec_pb2.ListJobsRequest(), metadata=client.metadata(), timeout=_SECONDS
    )
    return [job.job_id for job in answer.jobs]


async def _sessions(client: DaemonClient, *, ended: bool) -> list[str]:
    stub = session_pb2_grpc.SessionServiceStub(client.channel)
    answer = await stub.ListSessions(
        session_pb2.ListSessionsRequest(include_exited=ended),
        metadata=client.metadata(),
        timeout=_SECONDS,
    )
    return [one.session_name or one.session_id for one in answer.sessions]


async def _living(client: DaemonClient) -> list[str]:
    return await _sessions(client, ended=False)


async def _ended_too(client: DaemonClient) -> list[str]:
    return await _sessions(client, ended=True)


def complete_target(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the names of hosts."""
    return _offer(context, _hosts, incomplete)


def complete_job(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the ids of jobs."""
    return _offer(context, _jobs, incomplete)


def complete_session(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[str]:
    """Offer the names of sessions, and the ids of those without one."""
    return _offer(context, _living, incomplete)


def complete_recording(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[str]:
    """Offer also those that ended: what they showed is kept."""
    return _offer(context, _ended_too, incomplete)


def _offer(
    context: click.Context,
    source: Callable[[DaemonClient], Awaitable[list[str]]],
    incomplete: str,
) -> list[str]:
    chosen = context.find_object(Options) or Options()
    socket = context.find_root().params.get("socket")
    chosen = replace(chosen, autostart=False, socket=socket or chosen.socket)

    async def run() -> list[str]:
        async with asyncio.timeout(2 * _SECONDS), dial(chosen) as client:
            return await source(client)

    try:
        names = asyncio.run(run())
    except (CallError, TimeoutError, aio.AioRpcError):
        return []  # no daemon, nothing to offer; a Tab starts none
    return [name for name in names if name.startswith(incomplete)]
