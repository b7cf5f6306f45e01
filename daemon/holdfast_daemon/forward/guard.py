"""Keeps hosts from sockets whose user can act as this person: ours, and the agents'."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason
from holdfast_daemon.forward.wish import Direction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from holdfast_daemon.connection.tunnel import Place
    from holdfast_daemon.forward.wish import Wish
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.paths import Places

WHY = "it would let the host act as you"
# As session/observer.py names it: whoever has it opens windows, and runs what he likes.
_WINDOWS = "tmux.sock"


class Guard:
    """Asks the disk: there a path may lead elsewhere at any time."""

    def __init__(
        self,
        places: Places,
        environ: Mapping[str, str],
        agents: Callable[[], Iterable[str]],
    ) -> None:
        """Guard the sockets of `places`, the agent of `environ` and those of `agents`.

        `agents` names what the configuration of hosts names, those of others than the
        one that a forward goes through.
        """
        own = (places.socket, places.socket.with_name(_WINDOWS))
        self._own = (*map(str, own), environ.get("SSH_AUTH_SOCK", ""))
        self._agents = agents

    async def check(self, wish: Wish, host: Host) -> None:
        """Return unless a remote forward would lead there.

        Raises:
            DeniedError: It would.
        """
        place = wish.connect
        if wish.direction is not Direction.REMOTE or place is None:
            return
        if await self.bars(place, host):
            raise DeniedError(
                Reason.SENSITIVE_PATH,
                f"{place.path} is not forwarded: {WHY}",
                hint="Agents are lent by ForwardAgent in ssh config only.",
                metadata={"path": place.path},
            )

    async def bars(self, place: Place, host: Host) -> bool:
        """Say whether `place` is one of them now, by whatever name."""
        if not place.path:
            return False
        guarded = {*self._own, host.auth_sock, host.identity_agent, *self._agents()}
        return await asyncio.to_thread(_any_same, Path(place.path), guarded)


def _any_same(one: Path, others: Iterable[str]) -> bool:
    return any(_same(one, Path(other)) for other in others if other[:1] == "/")


def _same(one: Path, other: Path) -> bool:
    try:
        # nobody need be there yet; and a hard link has another path
        return one.resolve() == other.resolve() or one.samefile(other)
    except (OSError, RuntimeError):  # a circle of links is the latter
        return False
