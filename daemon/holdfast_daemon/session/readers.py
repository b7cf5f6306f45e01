"""The clients that use a session, and how far each has read. No I/O but `os.kill`.

A client is known by its instance, which stays the same while its program runs, also
over a restart of the daemon. A program that is started anew is another reader: two of
one name would else eat each other's output.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from holdfast_daemon.policy.caller import Caller

# A client that comes back after so many others reads from the start.
_CLIENTS = 64


@dataclass(slots=True)
class _Reader:
    label: str
    pid: int
    cursor: int = 0


class Readers:
    """Those who used one session, the latest last.

    Attributes:
        on_read: Called when one of them has read on.
    """

    def __init__(self) -> None:
        self._readers: dict[str, _Reader] = {}
        self.on_read: Callable[[], None] = lambda: None

    def note(self, caller: Caller) -> None:
        """A client uses it."""
        reader = self._readers.pop(caller.instance, None)
        if reader is None:
            reader = _Reader(caller.label, caller.pid)
        elif not reader.pid:
            reader.label, reader.pid = caller.label, caller.pid
        self._readers[caller.instance] = reader
        while len(self._readers) > _CLIENTS:
            del self._readers[next(iter(self._readers))]

    def cursor(self, caller: Caller) -> int:
        """Return how far a client has read; one that never did begins at the start."""
        reader = self._readers.get(caller.instance)
        return reader.cursor if reader else 0

    def move(self, caller: Caller, offset: int) -> None:
        """Note how far a client has read."""
        reader = self._readers.get(caller.instance)
        if reader is not None and reader.cursor != offset:
            reader.cursor = offset
            self.on_read()

    @property
    def living(self) -> list[str]:
        """Labels of those that are still there."""
        return sorted({r.label for r in self._readers.values() if _there(r.pid)})

    def record(self) -> dict[str, int]:
        """Return what outlives the daemon."""
        return {ident: reader.cursor for ident, reader in self._readers.items()}

    def restore(self, record: dict[str, int]) -> None:
        """Take over what an earlier daemon knew; their calls tell who they are."""
        for ident, cursor in list(record.items())[-_CLIENTS:]:
            self._readers[str(ident)] = _Reader("", 0, int(cursor))


def _there(pid: int) -> bool:
    """Whether a client's process lives; one that told none can't be asked."""
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
