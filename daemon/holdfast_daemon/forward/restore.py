"""Whether a forward that was left behind may be kept: asks the rules again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason, StateError
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.policy.caller import Caller
from holdfast_daemon.policy.rules import Action, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from holdfast_daemon.forward.about import About
    from holdfast_daemon.forward.store import Saved
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.inventory import Inventory
    from holdfast_daemon.paths import Places
    from holdfast_daemon.policy.gate import Gate


class Restorer:
    """Asks the gate in the name of the client that opened a forward."""

    def __init__(self, gate: Gate, inventory: Inventory) -> None:
        self._gate = gate
        self._inventory = inventory

    async def allows(self, about: About, host: Host) -> bool:
        """Whether the rules of now let `about` lead through `host`."""
        disabled = await self._disabled()
        try:
            self._gate.decide(_operation(about), host, disabled)
        except DeniedError:
            return False
        return True

    async def admit(self, saved: Saved) -> Host:
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
    return Operation("ForwardService/OpenForward", Action.EXECUTE, "forward", caller)


def guarded(places: Places, environ: Mapping[str, str]) -> Sequence[Path]:
    """Return the sockets whose user can act as this person: ours and the agent's."""
    agent = environ.get("SSH_AUTH_SOCK", "")
    return [places.socket, *([Path(agent)] if agent[:1] == "/" else [])]
