"""What is asked of a session table, and what it answers. Sans-I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast_daemon.session.shell import Durability

if TYPE_CHECKING:
    from holdfast_daemon.session.session import Session
    from holdfast_daemon.session.shell import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a caller asks for; None and empty values are the defaults.

    Attributes:
        resize: Columns and rows for one that is there already; 0: as it is.
    """

    plan: Plan
    name: str = ""
    durability: Durability = Durability.AUTO
    idle_timeout: float | None = None
    auto_close: bool = False
    tmux: bool = False
    new: bool = False
    resize: tuple[int, int] = (0, 0)


@dataclass(frozen=True, slots=True)
class Opened:
    """A session, and how it was come by.

    Attributes:
        matched_by: name or restored; empty: it is a new one.
    """

    session: Session
    created: bool
    matched_by: str = ""


@dataclass(frozen=True, slots=True)
class Closed:
    """What a close found.

    Attributes:
        signal: The signal it took.
    """

    was_running: bool
    signal: str = ""
