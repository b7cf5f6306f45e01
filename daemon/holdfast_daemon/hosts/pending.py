"""Keys that were refused and that a person may yet trust, and who asked for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast_daemon import ids
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.hosts.trust import Trust, files, names
from holdfast_daemon.hosts.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from holdfast_daemon.clock import Clock
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.refusal import UntrustedKeyError
    from holdfast_daemon.hosts.verdict import Verdict

_CLIENTS = 10


@dataclass(slots=True)
class Request:
    """One key that waits for a person's word.

    Attributes:
        host: Who showed it, as the call named it; without credentials.
        first: When it was first met.
        last: When it was met last.
        times: How often.
        clients: Who asked, the latest last.
        stamp: How the known_hosts files stood when it was looked at last.
    """

    id: str
    host: Host
    verdict: Verdict
    first: datetime
    last: datetime
    times: int = 1
    clients: dict[str, None] = field(default_factory=dict[str, None])
    stamp: tuple[tuple[int, int, int], ...] = ()


class Pending:
    """A bounded list, the oldest forgotten first. Touched by the event loop only."""

    def __init__(self, clock: Clock, most: Callable[[], int]) -> None:
        self._clock = clock
        self._most = most
        self._requests: dict[tuple[object, ...], Request] = {}

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._requests.values()))

    def note(self, error: UntrustedKeyError) -> None:
        """Take up the key of a refusal, and name the request in it.

        Nobody can trust a key that is revoked, nor one that is not the pinned one.
        """
        host, verdict = error.host, error.verdict
        if host is None or verdict is None or host.pinned_fingerprint:
            return
        if verdict.status is Status.REVOKED:
            return
        key = (*names(host), host.place, host.name, verdict.blob)
        now = self._clock.now()
        request = self._requests.pop(key, None)
        if request is None:
            bare = replace(host, password=None, private_key=None, asked=None)
            request = Request(ids.mint("k"), bare, verdict, now, now, times=0)
        request.last = now
        request.times += 1
        request.verdict = verdict
        while len(self._requests) >= max(1, self._most()):
            del self._requests[next(iter(self._requests))]
        self._requests[key] = request
        error.metadata["pending"] = request.id

    def asked_by(self, request_id: str, client: str) -> None:
        """Note who was refused."""
        request = self.find(request_id)
        if request is None:
            return
        request.clients.pop(client, None)
        request.clients[client] = None
        while len(request.clients) > _CLIENTS:
            del request.clients[next(iter(request.clients))]

    def find(self, request_id: str) -> Request | None:
        """Return a request by its id."""
        found = (one for one in self._requests.values() if one.id == request_id)
        return next(found, None)

    async def waiting(self) -> list[Request]:
        """Return the requests, without those somebody has settled by other means."""
        for request in self:
            if await asyncio.to_thread(is_settled, request):
                self.drop(request)
        return list(self)

    def drop(self, request: Request) -> None:
        """Forget a request."""
        for key, one in list(self._requests.items()):
            if one is request:
                del self._requests[key]


def is_settled(request: Request) -> bool:
    """Whether a file by now trusts or revokes the key. Blocks.

    Files are read only once they have changed.
    """
    host = replace(request.host, known_hosts_command="")
    stamp = _stamp(host)
    if stamp == request.stamp:
        return False
    request.stamp = stamp
    try:
        verdict = Trust.load(host).judge(request.verdict.blob)
    except DaemonError:
        return False  # it can't be told, so it waits on
    return verdict.status in (Status.KNOWN, Status.REVOKED)


def _stamp(host: Host) -> tuple[tuple[int, int, int], ...]:
    stamps: list[tuple[int, int, int]] = []
    for file in (*files(host), *host.guard_known_hosts, *host.revoked_host_keys):
        try:
            state = Path(file).stat()
        except OSError:
            stamps.append((0, 0, 0))
        else:
            stamps.append((state.st_ino, state.st_size, state.st_mtime_ns))
    return tuple(stamps)
