"""What is on disk of a transfer's end: the error, if it was one. Sans-I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from holdfast_daemon import errors
from holdfast_daemon.errors import DaemonError, Ran, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a record that somebody damaged raises.
DAMAGED = (AttributeError, KeyError, TypeError, ValueError)
_KINDS = (
    errors.NotFoundError,
    errors.StateError,
    errors.DeniedError,
    errors.NeedsError,
    errors.LimitError,
    errors.LinkError,
)


def written(fault: DaemonError | None) -> dict[str, Any] | None:
    """Return an error as it is kept on disk."""
    if fault is None:
        return None
    return {
        "kind": type(fault).__name__,
        "reason": fault.reason.value,
        "message": fault.message,
        "hint": fault.hint,
        "ran": fault.ran.value,
        "metadata": fault.metadata,
    }


def read(row: Mapping[str, Any] | None) -> DaemonError | None:
    """Return what `written` wrote.

    Raises one of DAMAGED: The record is.
    """
    if row is None:
        return None
    kinds = {one.__name__: one for one in _KINDS}
    return kinds.get(row["kind"], errors.StateError)(
        Reason(row["reason"]),
        row["message"],
        hint=row["hint"],
        ran=Ran(row["ran"]),
        metadata=row["metadata"],
    )
