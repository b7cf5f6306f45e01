"""Asks the rules again where a call comes to a host later than through the door.

A call that names a target meets them at the door; one that names a session does not,
and one that waits for a login may find them changed when it has its connection.
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

    async def confirm(self, host: Host) -> None:
        """Return when the call at work may still have the connection it waited for.

        Where none is at work, as for what an earlier daemon left, others have asked.

        Raises:
            DeniedError: It may not; where its outcome is open that is recorded.
        """
        try:
            call = current()
        except LookupError:
            return
        ticket = call.ticket
        named = ticket.host
        if named is None or named.account != host.account:
            # It named a session, or this is a jump host of the one it named.
            await self.check(host)
            return
        disabled = await self._places.named(call.caller, self._gate.disabled())
        if ticket.finished:
            # Its caller went away, and what it began goes on.
            self._gate.decide(ticket.operation, host, disabled)
        else:
            ticket.check_again(host, disabled)
