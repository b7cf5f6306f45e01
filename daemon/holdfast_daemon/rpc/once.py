"""What calls with a `request_id` came to, so that none is done twice (NF-17)."""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from holdfast_daemon.errors import DaemonError, Ran, Reason, StateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from holdfast_daemon.policy.caller import Caller

T = TypeVar("T")


def key_of(caller: Caller, request_id: str) -> tuple[str, str]:
    """Return what such a call is known by; as with commands, whichever shim sent it."""
    return f"{caller.principal} {caller.name}", request_id


@dataclass(slots=True)
class _Row(Generic[T]):
    """One call: what it asked for, and what it came to."""

    told: str
    outcome: asyncio.Future[T]


class Once(Generic[T]):
    """What calls of one kind came to."""

    def __init__(self, seconds: Callable[[], float], what: str) -> None:
        """Remember each for `seconds` after its end.

        Errors say that an id was used for `what`.
        """
        self._seconds = seconds
        self._what = what
        self._rows: dict[tuple[str, str], _Row[T]] = {}
        # those that ended, with how long they are remembered
        self._past: deque[tuple[float, tuple[str, str], _Row[T]]] = deque()

    async def do(
        self,
        key: tuple[str, str],
        told: Sequence[bytes],
        work: Callable[[], Awaitable[T]],
    ) -> T:
        """Do `work`, or return what it came to for the same key.

        With an id it goes on when its caller goes away: who calls again is told.

        Raises:
            StateError: The id was used for something else than `told`.
        """
        if not key[1]:
            return await work()
        self._forget(asyncio.get_running_loop().time())
        parts = b"".join(hashlib.sha256(part).digest() for part in told)
        print_ = hashlib.sha256(parts).hexdigest()
        found = self._rows.get(key)
        if found is not None:
            if found.told != print_:
                raise StateError(
                    Reason.REQUEST_ID_REUSED,
                    f"request_id {key[1]!r} was used for {self._what}",
                    hint="Give this one its own id.",
                )
            return await asyncio.shield(found.outcome)
        task = asyncio.ensure_future(work())
        row = self._rows[key] = _Row(print_, task)
        task.add_done_callback(lambda done: self._settle(key, row, done))
        return await asyncio.shield(task)

    def _forget(self, now: float) -> None:
        """Drop what is past its time; the oldest stand first."""
        while self._past and self._past[0][0] < now:
            _, key, row = self._past.popleft()
            if self._rows.get(key) is row:
                del self._rows[key]

    def _settle(
        self, key: tuple[str, str], row: _Row[T], done: asyncio.Future[T]
    ) -> None:
        """Let the same be tried again where nothing was done."""
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or (isinstance(error, DaemonError) and error.ran is Ran.NO):
            if self._rows.get(key) is row:
                del self._rows[key]
            return
        loop = asyncio.get_running_loop()
        self._past.append((loop.time() + self._seconds(), key, row))
        if error is None:
            # the task holds all of the call it was for
            row.outcome = loop.create_future()
            row.outcome.set_result(done.result())
