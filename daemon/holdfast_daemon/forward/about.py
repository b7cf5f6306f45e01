"""What a forward is, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_daemon.errors import DeniedError, Reason

if TYPE_CHECKING:
    from datetime import datetime

    from holdfast_daemon.ids import ForwardId

CLOSED = "it was closed"
BARRED = "the rules do not allow this host any more"
NARROWED = "forward_wildcard does not let it listen on every address any more"
# One that ended for these returns with a later daemon, if it may again by then.
FORBIDDEN = frozenset({BARRED, NARROWED})


def closed_by(client: str) -> str:
    """Return why a forward ends that a client closes."""
    return f"{CLOSED} by {client}"


def forbidden(why: str) -> DeniedError:
    """Return what a call is told whose forward the rules have ended."""
    return DeniedError(Reason.POLICY_DENIED, f"the forward was ended: {why}")


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
        default_port: That client's SSH_DEFAULT_PORT, which they stand for, too.
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
    default_port: int | None = None
