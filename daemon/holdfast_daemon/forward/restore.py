"""Whether a forward may be kept, or kept again: asks the rules of now."""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import DaemonError, DeniedError, Reason, StateError
from holdfast_daemon.forward.about import BARRED, NARROWED
from holdfast_daemon.forward.wish import everybody
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import Action, Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.config import Config
    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.connection.tunnel import Place
    from holdfast_daemon.forward.about import About
    from holdfast_daemon.forward.store import Saved
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.policy.gate import Gate

_log = logging.getLogger(__name__)

_FIRST = 0.5
_MOST = 60.0


class Restorer:
    """Asks the gate in the name of the client that opened a forward."""

    def __init__(
        self,
        gate: Gate,
        inventory: Inventory,
        pool: Pool,
        config: Callable[[], Config],
    ) -> None:
        self._gate = gate
        self._inventory = inventory
        self._pauses = pool.pauses
        self._config = config

    async def forbids(self, about: About, listen: Place, host: Host) -> str:
        """Say why the rules of now do not let it be so; empty: they do."""
        disabled = await self._disabled()
        if everybody(listen) and not self._config().forward_wildcard:
            return NARROWED
        try:
            self._gate.decide(_operation(about), host, disabled)
        except DeniedError:
            return BARRED
        return ""

    async def admit(
        self, saved: Saved, wanted: Callable[[], bool], told: Callable[[str], None]
    ) -> Host | None:
        """Return where a forward of an earlier run leads; None: it is not to return.

        What somebody can mend, as a mistake in ssh config, is waited for, as long as it
        is `wanted`; `told` hears each time why it is not back.
        """
        backoff = Backoff(_FIRST, _MOST, random.random)
        why = ""
        while wanted():
            try:
                return await self._admit(saved)
            except DaemonError as error:
                if error.message != why:
                    why = error.message
                    _log.warning("forward %s stays away: %s", saved.about.id, why)
                passing = error.reason is Reason.AUDIT_UNAVAILABLE
                if isinstance(error, DeniedError) and not passing:
                    told(f"{why}; a later daemon asks again")
                    return None
            told(why)
            await self._pauses.rest(backoff.failed())
        return None

    async def _admit(self, saved: Saved) -> Host:
        """Resolve the host of a forward of an earlier run, and record that it returns.

        Raises:
            DaemonError: It is another host now, or not allowed any more.
        """
        about = saved.about
        over = Overrides(default_user=saved.user, default_port=saved.port)
        host = await self._inventory.resolve(about.target, over)
        if host.display != about.address:
            raise StateError(
                Reason.FORWARD_REFUSED,
                f"{about.target} is another host now than when it was opened",
            )
        ticket = await self._gate.enter(
            _operation(about),
            host,
            metadata={
                "forward_id": about.id,
                "direction": saved.wish.direction.value,
                "listen": str(saved.wish.listen),
                "connect": str(saved.wish.connect or ""),
                "restored": True,
            },
            disabled=await self._disabled(),
        )
        await ticket.finish("ok")
        return host

    async def _disabled(self) -> list[Host]:
        return await self._inventory.those(self._gate.disabled())


def _operation(about: About) -> Operation:
    caller = Caller(
        about.principal, name=about.client, allowed_hosts=about.allowed_hosts
    )
    return Operation(
        "ForwardService/OpenForward",
        Action.EXECUTE,
        "forward",
        caller,
        about.default_port,
    )
