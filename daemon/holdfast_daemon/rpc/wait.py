"""`Wait`: the first of several things that come, in one call."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from holdfast.v1 import common_pb2, exec_pb2, forward_pb2, host_pb2
from holdfast_daemon.errors import (
    DaemonError,
    InputError,
    LimitError,
    Reason,
    StateError,
)
from holdfast_daemon.output.pattern import Pattern
from holdfast_daemon.rpc.door import current
from holdfast_daemon.waiting import kept, reach
from holdfast_daemon.waiting.first import First
from holdfast_daemon.waiting.thing import (
    Asked,
    ForwardIs,
    HostIs,
    JobEnds,
    PortOpens,
    SessionEnds,
    SessionPrints,
    SessionQuiet,
    read,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    import grpc.aio

    from holdfast_daemon.config import Config
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.forward.table import ForwardTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.gate import Ticket
    from holdfast_daemon.rpc.door import Call, Door
    from holdfast_daemon.session.session import Session
    from holdfast_daemon.session.table import SessionTable
    from holdfast_daemon.waiting.sight import Watch
    from holdfast_daemon.waiting.thing import Thing

    type_context = grpc.aio.ServicerContext[Any, Any]

_NAME = "ExecService/Wait"
# What waiting for a host, or for a port of it, needs to be allowed to do.
_CONNECT = "/holdfast.v1.HostService/Connect"
_FORWARD = "/holdfast.v1.ForwardService/OpenForward"


class WaitServicer:
    """Finds what is waited for, by the caller's own rights, and waits."""

    def __init__(
        self,
        *,
        jobs: JobTable,
        sessions: SessionTable,
        forwards: ForwardTable,
        pool: Pool,
        config: Callable[[], Config],
        door: Door,
    ) -> None:
        """Wait for what is in the tables, and for hosts that `door` lets one reach."""
        self._jobs = jobs
        self._sessions = sessions
        self._forwards = forwards
        self._pool = pool
        self._config = config
        self._door = door
        self._waits: set[First] = set()

    def close(self) -> None:
        """End every wait: the daemon is stopping."""
        for wait in self._waits:
            wait.stop(
                StateError(
                    Reason.DRAINING,
                    "the daemon is stopping",
                    hint="Wait again in a moment.",
                )
            )

    async def Wait(
        self, request: exec_pb2.WaitRequest, context: type_context
    ) -> AsyncIterator[exec_pb2.WaitResponse]:
        """Yield a sign of life about once a second, then how all of them stand."""
        call, limits = current(), self._config().limits
        things = self._read(request)
        seconds = limits.wait_seconds
        if request.HasField("wait_seconds"):
            seconds = min(request.wait_seconds, limits.wait_max_seconds)
        tickets: list[Ticket] = []
        told, why = "error", ""
        try:
            watches = [
                await self._watch(thing, f"any_of[{number}]", call, tickets)
                for number, thing in enumerate(things)
            ]
            first = First(watches)
            self._waits.add(first)
            try:
                passing = first.wait(
                    seconds,
                    look_seconds=limits.start_seconds,
                    interval=limits.progress_interval_seconds,
                )
                async with aclosing(passing):
                    async for passed in passing:
                        yield exec_pb2.WaitResponse(
                            progress=common_pb2.Progress(
                                progress=round(passed, 3), message=_waiting(watches)
                            )
                        )
            finally:
                self._waits.discard(first)
            yield exec_pb2.WaitResponse(result=_result(first, watches, seconds))
            told = "ok"
        except DaemonError as error:
            why = error.message
            raise
        except (asyncio.CancelledError, GeneratorExit):
            told, why = "cancelled", "the caller went away"
            raise
        finally:
            for ticket in tickets:
                await ticket.finish(told, error=why)

    def _read(self, request: exec_pb2.WaitRequest) -> list[Thing]:
        most = self._config().limits.wait_things
        if len(request.any_of) > most:
            raise LimitError(
                Reason.LIMIT_REACHED,
                f"any_of has {len(request.any_of)} things, and the limit wait_things"
                f" is {most}",
                hint="Wait for some of them at a time.",
                metadata={"limit": "wait_things", "value": str(most)},
            )
        return [
            read(_asked(entry), f"any_of[{number}]")
            for number, entry in enumerate(request.any_of)
        ]

    async def _watch(
        self, thing: Thing, path: str, call: Call, tickets: list[Ticket]
    ) -> Watch:
        """Return what sees `thing` come.

        Raises:
            DaemonError: There is no such thing, or this caller may not see it.
        """
        try:
            match thing:
                case JobEnds():
                    job = self._jobs.find(thing.job_id)
                    call.ticket.check_name(job.target, job.address)
                    return kept.JobEnd(job)
                case ForwardIs():
                    forward = self._forwards.find(thing.forward)
                    about = forward.about
                    call.ticket.check_name(about.target, about.address)
                    return kept.ForwardState(forward, up=thing.up)
                case HostIs():
                    request = host_pb2.ConnectRequest(target=thing.target)
                    host = await self._admit(_CONNECT, request, call, tickets)
                    make = reach.HostUp if thing.up else reach.HostDown
                    return make(host, self._pool, self._config().limits)
                case PortOpens():
                    return await self._port(thing, call, tickets)
                case _:
                    return await self._of_session(thing, path, call)
        except DaemonError as error:
            error.metadata.setdefault("entry", path)
            raise

    async def _of_session(
        self, thing: SessionPrints | SessionQuiet | SessionEnds, path: str, call: Call
    ) -> Watch:
        session = self._sessions.find(thing.session, call.ticket.sees)
        call.ticket.check_name(session.target, session.address)
        session.note(call.caller)
        match thing:
            case SessionEnds():
                return kept.Ending(session)
            case SessionQuiet():
                return kept.Quiet(session, thing.seconds)
            case SessionPrints():
                return await self._printing(session, thing.until, path, call)

    async def _printing(
        self, session: Session, until: str, path: str, call: Call
    ) -> Watch:
        pattern = None
        if until:
            seconds = self._config().limits.grep_seconds
            pattern = await asyncio.to_thread(
                Pattern, until, field=f"{path}.until", seconds=seconds
            )
        return kept.Printing(session, session.cursor(call.caller), pattern)

    async def _port(self, thing: PortOpens, call: Call, tickets: list[Ticket]) -> Watch:
        """Return what tries a port: allowed to whoever may open a forward there."""
        request = forward_pb2.OpenForwardRequest(
            target=thing.target,
            direction=forward_pb2.FORWARD_DIRECTION_LOCAL,
            remote_host=reach.LOOPBACK,
            remote_port=thing.port,
        )
        host = await self._admit(_FORWARD, request, call, tickets)
        tickets[-1].add(connect=f"{reach.LOOPBACK}:{thing.port}")
        return reach.PortOpen(host, thing.port, self._pool, self._config().limits)

    async def _admit(
        self, path: str, request: Any, call: Call, tickets: list[Ticket]
    ) -> Host:
        """Pass the gate as the call of `path` would, and keep the ticket."""
        admitted = await self._door.admit(call.caller, path, _NAME, request)
        tickets.append(admitted.ticket)
        if admitted.host is None:
            raise InputError("target", "target names no host")
        return admitted.host


def _asked(entry: exec_pb2.WaitFor) -> Asked:
    return Asked(
        job_id=entry.job_id,
        session=entry.session,
        until=entry.until,
        quiet_seconds=entry.quiet_seconds if entry.HasField("quiet_seconds") else None,
        exited=entry.exited,
        target=entry.target,
        port=entry.port if entry.HasField("port") else None,
        forward=entry.forward,
        state=entry.state,
    )


def _waiting(watches: Sequence[Watch]) -> str:
    """Return what to show a person while it waits."""
    return ", ".join(f"{one.what}: {one.sight().state}" for one in watches)


def _result(
    first: First, watches: Sequence[Watch], seconds: float
) -> exec_pb2.WaitResult:
    found = exec_pb2.WaitResult(
        states=[
            exec_pb2.WaitState(
                what=watch.what,
                came=sight.came or number == first.index,
                state=sight.state,
                detail=sight.detail or None,
                exit_code=sight.exit_code,
            )
            for number, watch in enumerate(watches)
            for sight in (watch.sight(),)
        ]
    )
    if first.index is not None:
        found.index = first.index
        found.first = watches[first.index].what
    elif first.hopeless:
        found.note = "none of them can come any more"
    else:
        found.note = f"none came within {seconds:g} s; wait again to go on"
    return found
