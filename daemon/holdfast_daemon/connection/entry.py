"""What the pool knows of one connection: what it can carry and who is on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.hosts.host import may_share

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Hashable, Iterable, Iterator
    from datetime import datetime

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.question import Asker
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Secret


@dataclass(frozen=True, slots=True)
class Row:
    """One connection as `status` shows it; times in seconds.

    `account` is `Host.account`: whatever name a caller used, equal ones are one.
    `since` is when it was logged in, by the wall clock: the same whenever it is asked.
    """

    name: str
    account: Hashable
    target: str
    state: str
    channels: int
    leases: int
    age: float
    since: datetime | None
    idle: float
    via: str
    passengers: int
    server_version: str
    auth_method: str


@dataclass(slots=True)
class Wish:
    """A connection that somebody wants.

    Attributes:
        host: Where to.
        urgent: It is to end something, and goes before the others.
        tunnel: As the way to another host, which takes none of MaxSessions.
        asker: Asks a person what the login asks; None: nobody is there.
        wasted: How many connections in a row were gone before they were of use.
    """

    host: Host
    urgent: bool = False
    tunnel: bool = False
    asker: Asker | None = None
    wasted: int = 0


class Entry:
    """One connection, or the login that will make it, and who uses it.

    Attributes:
        asker: Asks the person who is logging in.
        waited: How many waited for that person's login.
        retired: Nobody is put on it any more; it closes once nobody uses it.
        attended: A person helped to make it, and would have to again.
        extra: It was one above the limit when it was made, for something urgent.
        guests: Identities that may share it though they named other credentials: their
            own login needs a person.
    """

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
        self.retired = False
        self.asker: Asker | None = None
        self.waited = 0
        self.attended = self.extra = False
        self.guests: set[Hashable] = set()
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
        if self.closing or self.retired:
            return False
        return self.link is not None and not self.link.closed

    @property
    def load(self) -> int:
        """How many of its channels are spoken for."""
        return max(self.seats, self.link.channels if self.link else 0)

    @property
    def free(self) -> bool:
        """One more channel may be opened on it."""
        return self.ready and self.load < self.capacity

    def takes(self, wish: Wish, *, over: bool) -> bool:
        """Whether `wish` may have a channel; `over`: there are more than the limit.

        The one above it stays free for what is urgent, or a full host could be neither
        stopped nor told anything.
        """
        if wish.tunnel:
            return self.ready
        return self.free and (wish.urgent or not (over and self.extra))

    @property
    def used(self) -> bool:
        """Somebody needs it."""
        return bool(self.seats or self.passengers or (self.link and self.link.channels))

    def joinable(self, wish: Wish, *, alone: bool) -> bool:
        """Whether `wish` may wait for the login under way.

        One that is to be `alone` is waited for by all. A person's is the only one there
        will be, so is that; and one without a person is of no use to a person.
        """
        if self.login is None or self.asker is not None:
            return self.login is not None
        room = alone or wish.tunnel or self.passengers < self.capacity
        return room and wish.asker is None

    def row(self, now: float) -> Row:
        """Describe it as it stands."""
        link, host = self.link, self.host
        state = "ready" if self.ready else "closing" if link else "connecting"
        return Row(
            name=host.name,
            account=host.account,
            target=host.shown,
            state=state,
            channels=link.channels if link else 0,
            leases=self.seats,
            age=now - (link.opened_at if link else self.begun),
            since=link.since if link else None,
            idle=0.0 if self.used or link is None else now - link.used_at,
            via=host.proxy_jump.shown if host.proxy_jump else "",
            passengers=self.passengers if link else 0,
            server_version=link.server_version if link else "",
            auth_method=link.auth_method if link else "",
        )


def usable(entries: Iterable[Entry], host: Host) -> Iterator[Entry]:
    """Yield what `host` may be put on, the same credentials first.

    Who names no credential may use those of others: `may_share` says which. Who names
    one gets only connections made by it, unless it turned out that a person is needed
    too.
    """
    identity = host.identity
    others: list[Entry] = []
    for entry in entries:
        if entry.closing or entry.retired:
            continue
        if entry.host.identity == identity or identity in entry.guests:
            yield entry
        elif may_share(entry.host, host):
            others.append(entry)
    # not a login of other credentials under way: it may fail where ours would not
    yield from (entry for entry in others if entry.ready)
