"""What of a copy is on disk: what was asked, and what came of it. Sans-I/O."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from holdfast_daemon.exec.onward import Onward
from holdfast_daemon.transfer.means import record
from holdfast_daemon.transfer.means.errand import CopyRequest
from holdfast_daemon.transfer.means.placing import Placing
from holdfast_daemon.transfer.means.record import DAMAGED
from holdfast_daemon.transfer.means.tally import Tally

if TYPE_CHECKING:
    from collections.abc import Mapping

    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.policy.caller import Caller
    from holdfast_daemon.transfer.means.errand import Means

KIND = "copy"
# What is there of one that is not gone on with.
KEPT = "what had come is kept, and the same copy goes on from there"
_TOLD = ("files", "moved", "skipped")
_COUNTS = (*_TOLD, "done", "total", "wanted")


@dataclass(slots=True)
class Done:
    """A copy that an earlier daemon saw the end of, as `Copy` tells of its own."""

    tally: Tally
    sha256: str
    fault: DaemonError | None


def begun(request: CopyRequest, key: bytes, caller: Caller) -> Onward:
    """Return what is written before a copy begins."""
    return Onward(KIND, caller, {"request": asdict(request), "key": key.decode()})


def key_of(onward: Onward) -> bytes:
    """Return the name under which what is not whole yet lies."""
    key: str = onward.row["key"]
    return key.encode()


def request_of(onward: Onward) -> CopyRequest:
    """Return what was asked."""
    row: dict[str, Any] = dict(onward.row["request"])
    for name in ("here", "there"):
        row[name] = tuple(row[name])
    return CopyRequest(**row)


def ended(
    onward: Onward, tally: Tally, sha256: str, fault: DaemonError | None
) -> Onward:
    """Return what is written at the end."""
    told: dict[str, Any] = {name: getattr(tally, name) for name in _TOLD}
    told["sha256"] = sha256
    told["fault"] = record.written(fault)
    return onward.noting(outcome=told, placing=None, come=None)


def coming(onward: Onward, placing: Placing, means: Means) -> Onward:
    """Return what is written when all has come, and is about to be put."""
    told: dict[str, Any] = {
        "counts": {name: getattr(means.tally, name) for name in _COUNTS},
        "sha256": means.sha256,
        "troubles": _pairs(means.troubles),
        "left": _pairs(means.left),
        "notes": list(means.notes),
    }
    return onward.noting(placing=placing.record(), come=told)


def recalled(onward: Onward | None, means: Means) -> Placing | None:
    """Give `means` what it knew when all had come; return what is put then, if it had.

    Raises one of DAMAGED: The record is.
    """
    if onward is None or not onward.row.get("placing"):
        return None
    placing = Placing.read(onward.row["placing"])
    told = onward.row["come"]
    for name in _COUNTS:
        setattr(means.tally, name, int(told["counts"][name]))
    means.sha256 = told["sha256"]
    means.troubles |= {path.encode("latin-1"): why for path, why in told["troubles"]}
    means.left |= {path.encode("latin-1"): why for path, why in told["left"]}
    means.notes += told["notes"]
    return placing


def _pairs(names: Mapping[bytes, str]) -> list[tuple[str, str]]:
    return [(path.decode("latin-1"), why) for path, why in names.items()]


def done(onward: Onward | None) -> Done | None:
    """Return what came of a copy; None: that is not known, or it was none."""
    if onward is None or onward.kind != KIND or "outcome" not in onward.row:
        return None
    told = onward.row["outcome"]
    try:
        tally = Tally()
        for name in _TOLD:
            setattr(tally, name, int(told[name]))
        return Done(tally, str(told["sha256"]), record.read(told["fault"]))
    except DAMAGED:
        return None
