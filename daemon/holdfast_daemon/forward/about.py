"""What a forward is, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_daemon.ids import ForwardId


class State(StrEnum):
    """How a forward stands."""

    AWAY = "away"
    UP = "up"
    STOPPED = "stopped"


@dataclass(slots=True, kw_only=True)
class About:
    """What a forward is from its beginning, but for names that are added.

    Attributes:
        target: The host as the caller named it.
        address: The host as it was resolved.
        principal: Whose client opened it.
        allowed_hosts: That client's own limits, which hold for what it left behind.
    """

    id: ForwardId
    names: list[str]
    target: str
    address: str
    client: str
    principal: str
    allowed_hosts: tuple[str, ...]
    opened: datetime
    begun: float
