"""Takes up the transfers that an earlier daemon left; asks the rules again for each."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts import fidelity
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.policy.rules import Action, Operation
from holdfast_daemon.transfer.means.again import not_resumed
from holdfast_daemon.transfer.means.record import DAMAGED
from holdfast_daemon.transfer.means.roots import roots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from holdfast_daemon.config import Config
    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.onward import Onward
    from holdfast_daemon.exec.table import JobTable
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.policy.gate import Gate, Ticket
    from holdfast_daemon.transfer.left import Left

_log = logging.getLogger(__name__)

_DAMAGED = "the daemon ended while it ran, and its record is damaged"


class Adoption:
    """Goes on with them in the name of who asked for them."""

    def __init__(
        self,
        gate: Gate,
        inventory: Inventory,
        config: Callable[[], Config],
        kinds: Sequence[Left],
    ) -> None:
        """Ask `gate`, and go on with these kinds."""
        self._gate = gate
        self._inventory = inventory
        self._config = config
        self._kinds = {kind.kind: kind for kind in kinds}

    def reserve(self, table: JobTable) -> None:
        """Let nobody begin one of them anew; call it before calls are served."""
        for job, past, kind in self._left(table):
            try:
                kind.reserve(job, past)
            except DAMAGED:
                table.give_up(job, _DAMAGED)

    async def take_up(self, table: JobTable) -> None:
        """Go on with all of them."""
        await asyncio.gather(
            *(
                self._take_up(table, job, past, kind)
                for job, past, kind in self._left(table)
            )
        )

    async def _take_up(
        self, table: JobTable, job: Job, past: Onward, kind: Left
    ) -> None:
        try:
            host, ticket = await self._admit(job, past, kind)
        except DaemonError as error:
            if error.reason is Reason.DRAINING:
                return  # it waits for the next daemon
            kind.release(past)
            table.give_up(job, not_resumed(error, kind.kept))
        except DAMAGED as error:
            _log.warning("the record of job %s is damaged: %s", job.id, error)
            kind.release(past)
            table.give_up(job, _DAMAGED)
        else:
            roots = roots_of(past.caller, self._config())
            table.resume(job, host, ticket, kind.runner(job, past, roots, ticket))

    async def _admit(self, job: Job, past: Onward, kind: Left) -> tuple[Host, Ticket]:
        """Return where it goes on, and the ticket for its end.

        Raises:
            DaemonError: Its host is not known, or not allowed any more.
        """
        evidence = kind.evidence(past)
        caller = past.caller
        own, config = caller.defaults, self._config()
        over = Overrides(
            default_user=own.user or config.defaults.user,
            default_port=own.port or config.defaults.port,
            auth_sock=own.auth_sock,
        )
        host = await self._inventory.resolve(job.target, over)
        if host.display != job.address:
            # Its name means another account by now.
            host = await self._inventory.resolve(job.address, over)
        fidelity.check_command(host)
        ticket = await self._gate.enter(
            Operation(kind.method, Action.WRITE, "file_operation", caller, own.port),
            host,
            metadata={"job_id": job.id, "resumed": True, **evidence},
            disabled=await self._inventory.those(self._gate.disabled()),
        )
        return host, ticket

    def _left(self, table: JobTable) -> Iterator[tuple[Job, Onward, Left]]:
        for job in table.unresumed():
            past = job.onward
            if past is not None and past.kind in self._kinds:
                yield job, past, self._kinds[past.kind]
