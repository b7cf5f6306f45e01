"""Keeps what is open already, as a session, from reaching a host that was switched off.

A call that names a target meets this rule at the door; one that names a session does
not, and the configuration may have changed since that was opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.rpc.door import current
from holdfast_daemon.rpc.place import Places

if TYPE_CHECKING:
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.policy.gate import Gate
    from holdfast_daemon.rpc.place import Resolve


class Reaching:
    """Asks the rules in force now about a host that was resolved before."""

    def __init__(self, gate: Gate, resolve: Resolve) -> None:
        """Ask `gate`, with its disabled hosts as `resolve` finds them."""
        self._gate = gate
        self._places = Places(resolve)

    async def check(self, host: Host | None) -> None:
        """Return when the current call may reach `host`; None: there is none by now.

        Raises:
            DeniedError: It is disabled; the refusal is recorded.
        """
        names = self._gate.disabled()
        if host is None or not names:
            return
        call = current()
        disabled = await self._places.named(call.caller, names)
        call.ticket.check_enabled(host, disabled)
