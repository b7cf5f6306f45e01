"""What of a sync is on disk: what was asked, and what came of it. Sans-I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast_daemon.exec.onward import Onward
from holdfast_daemon.transfer.means import record
from holdfast_daemon.transfer.means.record import DAMAGED
from holdfast_daemon.transfer.sync.itemize import Report
from holdfast_daemon.transfer.sync.rsync import SyncRequest

if TYPE_CHECKING:
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.policy.caller import Caller

KIND = "sync"
# What is there of one that is not gone on with.
KEPT = "what it did stays, and the same sync does the rest"


@dataclass(frozen=True, slots=True)
class Begun:
    """What must be known of one to begin it anew.

    Attributes:
        key: Equal for syncs of the same two directories; empty: it changes nothing.
        token: In the names of files that it has not finished.
        place: Tells the directory of this machine from another one of its name.
    """

    key: str
    token: str
    place: tuple[int, int] | None


@dataclass(slots=True)
class Done:
    """A sync that an earlier daemon saw the end of, as `Sync` tells of its own."""

    report: Report
    fault: DaemonError | None


def begun(request: SyncRequest, known: Begun, caller: Caller) -> Onward:
    """Return what is written before a sync begins."""
    return Onward(KIND, caller, {"request": asdict(request), "begun": asdict(known)})


def known_of(onward: Onward) -> Begun:
    """Return what `begun` was told.

    Raises one of DAMAGED: The record is.
    """
    row = onward.row["begun"]
    place = row["place"]
    return Begun(
        str(row["key"]),
        str(row["token"]),
        None if place is None else (int(place[0]), int(place[1])),
    )


def request_of(onward: Onward) -> SyncRequest:
    """Return what was asked.

    Raises one of DAMAGED: The record is.
    """
    row: dict[str, Any] = dict(onward.row["request"])
    row["exclude"] = tuple(row["exclude"])
    return SyncRequest(**row)


def ended(onward: Onward, report: Report, fault: DaemonError | None) -> Onward:
    """Return what is written at the end."""
    return onward.noting(
        outcome={"report": asdict(report), "fault": record.written(fault)}
    )


def done(onward: Onward | None) -> Done | None:
    """Return what came of a sync; None: that is not known, or it was none."""
    if onward is None or onward.kind != KIND or "outcome" not in onward.row:
        return None
    told = onward.row["outcome"]
    try:
        return Done(Report(**told["report"]), record.read(told["fault"]))
    except DAMAGED:
        return None
