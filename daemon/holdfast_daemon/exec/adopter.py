"""Goes on with what an earlier daemon left running on hosts; asks the rules again."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError
from holdfast_daemon.exec.durable import run
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import Action, Operation

if TYPE_CHECKING:
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.policy.gate import Gate, Ticket

_log = logging.getLogger(__name__)


class Adopter:
    """Finds their hosts, and admits them in the name of who asked for them."""

    def __init__(self, gate: Gate, inventory: Inventory) -> None:
        self._gate = gate
        self._inventory = inventory

    async def admit(self, job: Job) -> tuple[Host, Ticket]:
        """Return where a kept job is, and the ticket for its end.

        Raises:
            DaemonError: Its host is not known, or not allowed any more.
        """
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

    async def find(self, job: Job) -> Host:
        """Return where a job is: its name may mean another account by now."""
        host = await self._inventory.resolve(job.target)
        if host.display != job.address:
            host = await self._inventory.resolve(job.address)
        return host

    async def take_up(self, table: JobTable) -> None:
        """Follow the durable jobs of earlier daemons on to their ends."""
        await asyncio.gather(
            *(self._take_up(table, job) for job in table.unresumed() if _alone(job))
        )

    async def _take_up(self, table: JobTable, job: Job) -> None:
        try:
            host, ticket = await self.admit(job)
        except DaemonError as error:
            table.give_up(
                job,
                f"it is not followed any more, and may still run on {job.target}:"
                f" {error.message}",
            )
            return
        table.resume(job, host, ticket, run)

    async def clear_up(self, table: JobTable, pool: Pool, limits: Limits) -> None:
        """Have hosts forget the durable jobs whose ends were known before."""
        for job in filter(_alone, table.left_behind()):
            try:
                host = await self.find(job)
                await Keeper(pool, host, limits).wipe(job.id)
            except DaemonError as error:
                _log.info("left on its host: %s", error.message, extra={"job": job.id})
            else:
                table.forgotten(job)


def _alone(job: Job) -> bool:
    """Whether it is kept for itself, and not in a session's shell."""
    return job.kept is not None and job.kept.ident == job.id
