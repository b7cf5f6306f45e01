"""The kinds of transfers that an earlier daemon may have left, each to be gone on with.

A copy goes on where it was; a sync is begun anew, which sends what is not there yet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from holdfast_daemon.transfer import past as copied
from holdfast_daemon.transfer.copy import Copies, Copy
from holdfast_daemon.transfer.sync import past as synced
from holdfast_daemon.transfer.sync.sync import Sync

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.exec.job import Job
    from holdfast_daemon.exec.onward import Onward
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.policy.gate import Ticket
    from holdfast_daemon.transfer.means.roots import Roots

    Runner = Callable[[Job, Site], Awaitable[None]]


class Left(Protocol):
    """One kind. Where a record is damaged its methods raise one of DAMAGED.

    Attributes:
        kind: Of the records that it knows.
        method: The call that began it, as the rules know it.
        kept: What is there of one that is not gone on with.
    """

    kind: str
    method: str
    kept: str

    def reserve(self, job: Job, past: Onward) -> None:
        """Let nobody begin it a second time."""
        ...

    def release(self, past: Onward) -> None:
        """Let others begin it: it is given up."""
        ...

    def evidence(self, past: Onward) -> dict[str, Any]:
        """Return what a record tells, in the words of the call's own."""
        ...

    def runner(self, job: Job, past: Onward, roots: Roots, ticket: Ticket) -> Runner:
        """Return what goes on with it."""
        ...


class LeftCopies:
    """Copies."""

    kind = copied.KIND
    method = "TransferService/CopyFiles"
    kept = copied.KEPT

    def __init__(self, shared: Copies, keep: Callable[[Job, Copy], None]) -> None:
        """`shared` is what all of this daemon share; `keep` is told of each."""
        self._shared = shared
        self._keep = keep

    def reserve(self, job: Job, past: Onward) -> None:
        """Let nobody begin it a second time."""
        self._shared.under_way[copied.key_of(past)] = job.id

    def release(self, past: Onward) -> None:
        """Let others begin it."""
        self._shared.under_way.pop(copied.key_of(past), None)

    def evidence(self, past: Onward) -> dict[str, Any]:
        """Return what a record tells."""
        request = copied.request_of(past)
        ends = request.here, request.there
        sources, (destination, *_) = ends if request.upload else ends[::-1]
        return {
            "direction": _way(upload=request.upload),
            "sources": list(sources),
            "destination": destination,
        }

    def runner(self, job: Job, past: Onward, roots: Roots, ticket: Ticket) -> Runner:
        """Return what goes on with it."""
        del ticket
        request = copied.request_of(past)
        copy = Copy(request, roots, self._shared, past.caller, past=past)
        self._keep(job, copy)
        return copy


class LeftSyncs:
    """Syncs."""

    kind = synced.KIND
    method = "TransferService/SyncDirectory"
    kept = synced.KEPT

    def __init__(
        self, under_way: dict[str, Job], keep: Callable[[Job, Sync], None]
    ) -> None:
        """`under_way` is what all of this daemon share; `keep` is told of each."""
        self._under_way = under_way
        self._keep = keep

    def reserve(self, job: Job, past: Onward) -> None:
        """Let nobody begin it a second time."""
        if key := synced.known_of(past).key:
            self._under_way[key] = job

    def release(self, past: Onward) -> None:
        """Let others begin it."""
        self._under_way.pop(synced.known_of(past).key, None)

    def evidence(self, past: Onward) -> dict[str, Any]:
        """Return what a record tells."""
        request = synced.request_of(past)
        ends = request.here, request.there
        source, destination = ends if request.upload else ends[::-1]
        return {
            "direction": _way(upload=request.upload),
            "source": source,
            "destination": destination,
            "delete": request.delete,
            "dry_run": request.dry_run,
            "exclude": list(request.exclude),
        }

    def runner(self, job: Job, past: Onward, roots: Roots, ticket: Ticket) -> Runner:
        """Return what begins it anew."""
        request = synced.request_of(past)
        sync = Sync(
            request, roots, self._under_way, past.caller, tell=ticket.add, past=past
        )
        self._keep(job, sync)
        return sync


def _way(*, upload: bool) -> str:
    return f"TRANSFER_DIRECTION_{'UPLOAD' if upload else 'DOWNLOAD'}"
