"""Goes on with what an earlier daemon left running on hosts; asks the rules again."""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError, DeniedError, Reason
from holdfast_daemon.exec.durable import run
from holdfast_daemon.kept.farewell import Farewell
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import Action, Operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.connection.pauses import Pauses
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.gate import Gate, Placed, Ticket

T = TypeVar("T")

_log = logging.getLogger(__name__)

_FIRST = 0.5
_MOST = 15.0
_NOT_FOLLOWED = "it could not be followed for a while"


class Adopter:
    """Finds their hosts, and admits them in the name of who asked for them."""

    def __init__(self, gate: Gate, inventory: Inventory, pauses: Pauses) -> None:
        self._gate = gate
        self._inventory = inventory
        self._pauses = pauses

    async def admit(self, job: Job) -> tuple[Host, Ticket]:
        """Return where a kept job is, and the ticket for its end.

        What somebody can mend, as a mistake in ssh config, is waited for: the job runs.

        Raises:
            DeniedError: It is not allowed any more.
        """

        def tell(why: str) -> None:
            job.add_note(f"{_NOT_FOLLOWED}: {why}")

        return await self._patiently(lambda: self._admit(job), tell)

    async def found(self, thing: Placed, tell: Callable[[str], None]) -> Host:
        """Return where something is, however long that takes; `tell` hears why."""
        return await self._patiently(lambda: self.find(thing), tell)

    async def _patiently(
        self, ask: Callable[[], Awaitable[T]], tell: Callable[[str], None]
    ) -> T:
        """Ask again for what can't be had now; a daemon that stops asks till its end.

        Raises:
            DeniedError: A rule is against it.
        """
        backoff = Backoff(_FIRST, _MOST, random.random)
        while True:
            try:
                return await ask()
            except DaemonError as error:
                passing = error.reason is Reason.AUDIT_UNAVAILABLE
                if isinstance(error, DeniedError) and not passing:
                    raise
                if error.reason is not Reason.DRAINING:
                    tell(error.message)
            await self._pauses.rest(backoff.failed())

    async def _admit(self, job: Job) -> tuple[Host, Ticket]:
        host = await self.find(job)
        principal = job.kept.principal if job.kept else ""
        ticket = await self._gate.enter(
            Operation(
                "ExecService/Run",
                Action.EXECUTE,
                "command_execution",
                Caller(principal, name=job.client),
            ),
            host,
            command=job.request.command,
            metadata={"job_id": job.id, "resumed": True},
            disabled=await self._inventory.those(self._gate.disabled()),
        )
        return host, ticket

    async def check(self, ticket: Ticket, host: Host) -> None:
        """Ask the rules in force now about what was let in before.

        Raises:
            DeniedError: It is not allowed any more; the refusal is recorded.
        """
        ticket.check_again(host, await self._inventory.those(self._gate.disabled()))

    async def find(self, thing: Placed) -> Host:
        """Return where something is: its name may mean another account by now.

        Raises:
            DaemonError: That can't be said now.
        """
        named = await self._inventory.resolve(thing.target)
        if named.display == thing.address:
            return named
        # that may be a mistake, or half a file
        host = await self._inventory.resolve(thing.address)
        return replace(host, asked=named.asked)

    async def take_up(self, table: JobTable) -> None:
        """Follow the durable jobs of earlier daemons on to their ends."""
        await asyncio.gather(
            *(self._take_up(table, job) for job in table.unresumed() if _alone(job))
        )

    async def _take_up(self, table: JobTable, job: Job) -> None:
        try:
            host, ticket = await self.admit(job)
        except DeniedError as error:
            table.give_up(
                job,
                f"it is not followed any more, and may still run on {job.target}:"
                f" {error.message}",
            )
            return
        table.resume(job, host, ticket, run)

    async def clear_up(self, table: JobTable, pool: Pool, limits: Limits) -> None:
        """Have hosts forget the durable jobs whose ends were known before."""

        async def clear(job: Job) -> None:
            try:
                if await self._forget(job, pool, limits):
                    table.forgotten(job)
            finally:
                table.let_be(job)

        await asyncio.gather(*map(clear, filter(_alone, table.left_behind())))

    async def _forget(self, job: Job, pool: Pool, limits: Limits) -> bool:
        told = {"job": job.id}
        try:
            host = await self.find(job)
        except DaemonError as error:
            _log.info("left on its host: %s", error.message, extra=told)
            return False

        async def wipe() -> None:
            try:
                await Keeper(pool, host, limits).wipe(job.id)
            except DaemonError as error:
                _log.info("left on its host for now: %s", error.message, extra=told)
                raise
            finally:
                # one connection is made for it, and no other
                farewell.rest()

        farewell = Farewell(pool, host, wipe)
        with pool.farewells.due(farewell):
            return await farewell.say(job.id)


def _alone(job: Job) -> bool:
    """Whether it is kept for itself, and not in a session's shell."""
    return job.kept is not None and job.kept.ident == job.id
