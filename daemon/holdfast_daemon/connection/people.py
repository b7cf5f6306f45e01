"""What logins know of people: who is being asked, and what only a person could answer.

A host that asked for a code is not asked again merely to name its question: with some,
each time rings somebody's telephone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.connection.answers import Aid
from holdfast_daemon.errors import LimitError, NeedsError, Reason, StateError
from holdfast_daemon.hosts.host import keys_fit
from holdfast_daemon.hosts.pending import Pending
from holdfast_daemon.hosts.refusal import UntrustedKeyError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.entry import Entry, Wish
    from holdfast_daemon.connection.question import Asker
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.secrets import Redactor

_KEPT = 1000
_PERSON = (Reason.LOGIN_NEEDED, Reason.PASSPHRASE_NEEDED)


class _Asked(NamedTuple):
    """What a host asked, and until when that is taken for granted."""

    asks: str
    until: float


class People:
    """Remembers for a while what hosts ask of people.

    Attributes:
        pending: Keys that only a person may trust.
    """

    def __init__(self, limits: Limits, clock: Clock, redactor: Redactor) -> None:
        self._limits = limits
        self._clock = clock
        self._redactor = redactor
        self._asked: dict[Hashable, _Asked] = {}
        self.pending = Pending(clock, lambda: limits.trust_requests)

    def aid(self, host: Host, asker: Asker | None) -> Aid:
        """Return whom one login to `host` can turn to."""
        asked = self._asked.get(host.identity)
        now = self._clock.monotonic()
        known = asked.asks if asked is not None and now < asked.until else ""
        return Aid(self._redactor, asker, "" if asker is not None else known)

    def learn(self, host: Host, error: DaemonError) -> None:
        """Remember what a server asked by its own words, or which key it showed."""
        if isinstance(error, UntrustedKeyError):
            self.pending.note(error)
            return
        asks = error.metadata.get("asks", "")
        methods = error.metadata.get("methods", "")
        if error.reason is not Reason.LOGIN_NEEDED or "interactive" not in methods:
            return
        if self.aid(host, None).known:
            return  # told from memory: that makes it no fresher
        while len(self._asked) >= _KEPT:
            del self._asked[next(iter(self._asked))]
        until = self._clock.monotonic() + self._limits.login_recall_seconds
        self._asked[host.identity] = _Asked(asks, until)

    def forget(self, host: Host) -> None:
        """Let the server tell anew."""
        self._asked.pop(host.identity, None)


class Freed:
    """Wakes those who wait for a seat, where no more connections can be made."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiters: set[asyncio.Future[None]] = set()

    async def wait(
        self, host: Host, since: float | None, error: LimitError | None = None
    ) -> float:
        """Wait until there may be a seat; return since when, for the next such wait.

        Raises:
            LimitError: There was none for as long as a channel may take: `error`, or
                that only a person can make more.
        """
        if since is None:
            since = asyncio.get_running_loop().time()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        seconds = self._limits.channel_open_seconds
        try:
            async with asyncio.timeout_at(since + seconds):
                await waiter
        except TimeoutError:
            raise error or full(host, seconds) from None
        finally:
            self._waiters.discard(waiter)
        return since

    def wake(self) -> None:
        """Let them look again."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def admit(wish: Wish, error: DaemonError, entries: Iterable[Entry]) -> bool:
    """Put who needs a person on what a person makes or made, where there is any."""
    identity = wish.host.identity
    person = isinstance(error, NeedsError) and error.reason in _PERSON
    if wish.asker is not None or not person:
        return False
    for entry in entries:
        helps = entry.asker is not None or (entry.attended and entry.ready)
        fits = entry.host.endpoint == wish.host.endpoint and not entry.closing
        fits = fits and keys_fit(entry.host, wish.host)
        if helps and fits and identity not in entry.guests:
            entry.guests.add(identity)
            return True
    return False


def busy(host: Host) -> DaemonError:
    """Return the error for the second person at once."""
    return StateError(
        Reason.IN_USE,
        f"somebody is logging in to {host.name} already",
        hint="wait for that login: all share its connection; it ends when that"
        " person gives up",
        metadata={"host": host.shown},
    )


def full(host: Host, seconds: float) -> DaemonError:
    """Return the error for a connection of a person's that has no channel to spare."""
    return LimitError(
        Reason.LIMIT_REACHED,
        f"every channel of the connection to {host.name} that a person logged in was"
        f" in use for {seconds:g} s",
        hint="wait until a command on it has ended, or ask a person to run"
        f" `holdfast login --again {host.name}` for one more connection",
        metadata={"limit": "channels_per_connection", "host": host.shown},
    )
