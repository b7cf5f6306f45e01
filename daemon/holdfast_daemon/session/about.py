"""What is settled about a session when it is opened. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_daemon.ids import SessionId
    from holdfast_daemon.session.shell import Durability, Plan


@dataclass(slots=True, kw_only=True)
class About:
    """What stays the same about a session.

    Attributes:
        target: The host as it was named, so that it can be named again.
        address: The host as user@host.
        opened: Wall clock, for people.
        begun: Monotonic clock, for spans.
        idle_timeout: Seconds without use after which it is closed; 0: never.
        auto_close: It is forgotten soon after its shell ended.
        asked_keys: The mark of the keys its call named; see `Host`.
    """

    id: SessionId
    name: str
    target: str
    address: str
    client: str
    plan: Plan
    durability: Durability
    opened: datetime
    begun: float
    idle_timeout: float
    auto_close: bool
    asked_keys: str = ""
