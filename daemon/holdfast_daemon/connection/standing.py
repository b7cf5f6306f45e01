"""How each host stands: its connections, its next login, and what happened lately."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.connection.history import History, Kind
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence
    from datetime import datetime

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.connection.entry import Entry, Row
    from holdfast_daemon.connection.history import Event
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.limits import Limits


@dataclass(frozen=True, slots=True)
class Standing:
    """How one host stands.

    Attributes:
        state: connected, connecting, waiting (until a login may begin), lost, failed,
            closed, or empty: nothing is known of it.
        since: Wall clock; None while a connection is made, or nothing happened.
        error: What went wrong last, also where it is mended by now.
        error_at: When.
        retry: Seconds before which holdfast does not log in again by itself.
        rows: Its connections.
        events: What happened, oldest first.
    """

    state: str
    since: datetime | None
    error: str
    error_at: datetime | None
    retry: float
    rows: Sequence[Row]
    events: Sequence[Event]


class Chronicle:
    """Writes down what becomes of connections, and tells how their hosts stand."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        self._limits = limits
        self._clock = clock
        self._history = History()

    def connected(self, entry: Entry, link: Link) -> None:
        """A login was made."""
        hop = entry.host.proxy_jump
        via = f", over {hop.name}" if hop else ""
        self.note(entry.host.account, Kind.CONNECTED, f"by {link.auth_method}{via}")

    def failed(self, entry: Entry, error: BaseException | None) -> None:
        """A login was not made."""
        why = "an error of holdfast's, see its log"
        if isinstance(error, DaemonError):
            why = error.message
        self.note(entry.host.account, Kind.FAILED, why)

    def ended(self, entry: Entry, *, ours: bool) -> None:
        """A connection has ended, by our own doing or not."""
        if entry.link is not None:
            kind = Kind.CLOSED if ours else Kind.LOST
            self.note(entry.host.account, kind, entry.link.reason)

    def note(self, account: Hashable, kind: Kind, detail: str) -> None:
        """Something happened."""
        most = self._limits.host_events
        self._history.note(account, kind, detail, at=self._clock.now(), most=most)

    def standings(
        self,
        accounts: Iterable[Hashable],
        rows: Iterable[Row],
        left: Callable[[Hashable], float],
    ) -> Sequence[Standing]:
        """Return how accounts stand; `left` tells the seconds until the next login."""
        theirs: dict[Hashable, list[Row]] = {}
        for row in rows:
            theirs.setdefault(row.account, []).append(row)
        return [
            self._standing(account, theirs.get(account, ()), left(account))
            for account in accounts
        ]

    def _standing(
        self, account: Hashable, rows: Sequence[Row], retry: float
    ) -> Standing:
        last, error = self._history.state(account), self._history.error(account)
        state, since = "", None
        if last is not None:
            state, since = last.kind.value, last.at
        if any(row.state == "ready" for row in rows):
            logins = [r.since for r in rows if r.state == "ready" and r.since]
            state, since = "connected", min(logins, default=None)
        elif any(row.state == "connecting" for row in rows):
            state, since = "waiting" if retry > 0 else "connecting", None
        elif retry > 0:
            state = "waiting"
        elif state == "connected":
            # its end is on the way
            state = "closed"
        return Standing(
            state=state,
            since=since,
            error=error.detail if error else "",
            error_at=error.at if error else None,
            retry=retry,
            rows=rows,
            events=self._history.of(account),
        )
