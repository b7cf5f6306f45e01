"""Who may write to a session: one at a time, and nobody for long who is gone. Sans-I/O.

A client holds the keyboard while a call of its is under way and a moment after, so that
one that died frees it; a person at a terminal from attaching until leaving.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_daemon.policy.caller import Caller


@dataclass(frozen=True, slots=True)
class Holder:
    """Who writes.

    Attributes:
        client: Label, for people and agents.
        instance: Tells two clients of one label apart.
        since: Wall clock.
        person: It is a person at a terminal, not a program's call.
    """

    client: str
    instance: str
    since: datetime
    person: bool = False


class Writer:
    """The keyboard of one session."""

    def __init__(self, keep_seconds: float) -> None:
        """Keep it for its holder so long after a call."""
        self._keep = keep_seconds
        self._holder: Holder | None = None
        self._calls = 0
        self._until = 0.0

    def holder(self, now: float) -> Holder | None:
        """Return who has it at `now`, monotonic."""
        held = self._holder
        if held is None or held.person or self._calls or now < self._until:
            return held
        self._holder = None
        return None

    def enter(self, caller: Caller, now: float, wall: datetime) -> Holder | None:
        """Begin a call that writes; return who is in its way, and None for nobody."""
        held = self.holder(now)
        if held is not None and held.instance != caller.instance:
            return held
        if held is None:
            self._holder = Holder(caller.label, caller.instance, wall)
        self._calls += 1
        return None

    def leave(self, caller: Caller, now: float, *, keep: bool = True) -> None:
        """End such a call; without `keep` others need not wait after it."""
        held = self._holder
        if held is not None and held.instance == caller.instance and self._calls:
            self._calls -= 1
            if keep:
                self._until = now + self._keep

    def left(self, caller: Caller, now: float) -> float | None:
        """Return the seconds until another's hold ends by itself; None: it does not."""
        held = self.holder(now)
        if held is None or held.instance == caller.instance:
            return 0.0
        return None if held.person or self._calls else self._until - now

    def take(self, caller: Caller, wall: datetime) -> None:
        """Give it to a person, whoever has it: people go before programs."""
        self._holder = Holder(caller.label, caller.instance, wall, person=True)
        self._calls = 0

    def release(self, caller: Caller) -> None:
        """Take it from a person who leaves; nothing happens when they have it not."""
        held = self._holder
        if held is not None and held.person and held.instance == caller.instance:
            self._holder = None
