"""What the pool knows of one connection: what it can carry and who is on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Secret


@dataclass(frozen=True, slots=True)
class Row:
    """One connection as `status` shows it; times in seconds.

    `account` is `Host.account`: whatever name a caller used, equal ones are one.
    """

    name: str
    account: Hashable
    target: str
    state: str
    channels: int
    leases: int
    age: float
    idle: float
    via: str
    server_version: str
    auth_method: str


@dataclass(slots=True)
class Wish:
    """A connection that somebody wants.

    Attributes:
        host: Where to.
        urgent: It is to end something, and goes before the others.
        tunnel: As the way to another host, which takes none of MaxSessions.
        wasted: How many connections in a row were gone before they were of use.
    """

    host: Host
    urgent: bool = False
    tunnel: bool = False
    wasted: int = 0


class Entry:
    """One connection, or the login that will make it, and who uses it."""

    def __init__(self, host: Host, limits: Limits, now: float) -> None:
        self.host = host
        self._limits = limits
        self.learnt: int | None = None
        self.begun = now
        self.free_since = 0.0
        self.link: Link | None = None
        self.login: asyncio.Task[Link] | None = None
        self.seats = 0
        self.passengers = 0
        self.closing = False
        self.idle: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> int:
        """How many channels it can carry: the limit, or less where that was learnt."""
        most = self._limits.channels_per_connection
        return most if self.learnt is None else min(most, self.learnt)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """What it logs in with and nobody may read."""
        found = (self.host.password, self.host.private_key)
        return tuple(secret for secret in found if secret is not None)

    @property
    def wasted(self) -> bool:
        """It was gone, and not by our doing, before it was of any use."""
        link = self.link
        return link is not None and link.closed and not link.proven and not self.closing

    @property
    def ready(self) -> bool:
        """It can carry something."""
        return self.link is not None and not self.link.closed and not self.closing

    @property
    def load(self) -> int:
        """How many of its channels are spoken for."""
        return max(self.seats, self.link.channels if self.link else 0)

    @property
    def free(self) -> bool:
        """One more channel may be opened on it."""
        return self.ready and self.load < self.capacity

    @property
    def used(self) -> bool:
        """Somebody needs it."""
        return bool(self.seats or self.passengers or (self.link and self.link.channels))

    def row(self, now: float) -> Row:
        """Describe it as it stands."""
        link, host = self.link, self.host
        state = "ready" if self.ready else "closing" if link else "connecting"
        return Row(
            name=host.name,
            account=host.account,
            target=host.display,
            state=state,
            channels=link.channels if link else 0,
            leases=self.seats,
            age=now - (link.opened_at if link else self.begun),
            idle=0.0 if self.used or link is None else now - link.used_at,
            via=host.proxy_jump.display if host.proxy_jump else "",
            server_version=link.server_version if link else "",
            auth_method=link.auth_method if link else "",
        )
