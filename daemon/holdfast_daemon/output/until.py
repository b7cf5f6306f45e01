"""Waiting for something in a terminal's output: a pattern, or quiet; sans I/O.

The pattern is looked for in the cleaned text as it grows, on the unfinished line too:
a prompt has no newline. `look` may take long with a hard pattern and belongs into a
thread; `feed` never does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from holdfast_daemon.output.text import Cleaner

if TYPE_CHECKING:
    from holdfast_daemon.output.pattern import Pattern

# How far back a match may begin before what has come since the last look.
_OVERLAP_CHARS = 8 * 1024
# Fed and not yet looked at; what is older then is not searched any more.
_WAITING_BYTES = 4 * 1024 * 1024


class Met(StrEnum):
    """What came first."""

    MATCHED = "matched"
    QUIET = "quiet"
    EXITED = "exited"


class Until:
    """Says when a wait is over.

    Attributes:
        met: What came first; None as long as nothing has.
        matched: The text that the pattern matched.
    """

    def __init__(
        self,
        *,
        pattern: Pattern | None = None,
        quiet_seconds: float | None = None,
        after_output: bool = False,
        cols: int | None = None,
        now: float,
    ) -> None:
        """Begin to wait.

        Args:
            pattern: What to look for.
            quiet_seconds: How long nothing may come.
            after_output: That counts only once something has come.
            cols: How wide the terminal is.
            now: The time, as in every call.
        """
        self._pattern = pattern
        self._quiet_seconds = quiet_seconds
        self._latest: float | None = None if after_output else now
        self._cleaner = Cleaner(sniff=False, cols=cols)
        self._text = ""
        self._waiting: list[bytes] = []
        self._size = 0
        self._exited = False
        self.met: Met | None = None
        self.matched = ""

    @property
    def deadline(self) -> float | None:
        """When it has been quiet long enough, unless more comes before."""
        if self.met or self._quiet_seconds is None or self._latest is None:
            return None
        return self._latest + self._quiet_seconds

    @property
    def waiting(self) -> bool:
        """Whether there is something to `look` at."""
        return self.met is None and bool(self._waiting or self._exited)

    def feed(self, data: bytes, now: float) -> None:
        """Take output that came at `now`."""
        if not data:
            return
        self._latest = now
        if self._pattern is None:
            return
        self._waiting.append(data[-_WAITING_BYTES:])
        self._size += len(data)
        while self._size > _WAITING_BYTES and len(self._waiting) > 1:
            self._size -= len(self._waiting.pop(0))

    def exited(self) -> None:
        """Nothing more will come."""
        self._exited = True

    def look(self, now: float) -> Met | None:
        """Return what has come first by `now`, None when nothing has.

        Raises:
            InputError: the pattern is too slow.
        """
        if self.met is None:
            quiet = self.deadline is not None and now >= self.deadline
            if self._found():
                self.met = Met.MATCHED
            elif self._exited:
                self.met = Met.EXITED
            elif quiet:
                self.met = Met.QUIET
        return self.met

    def _found(self) -> bool:
        waiting, self._waiting, self._size = self._waiting, [], 0
        if self._pattern is None or not waiting:
            return False
        self._text += self._cleaner.feed(b"".join(waiting))
        # A match may begin on a line that was looked at already, or end in the future.
        shown = self._text + self._cleaner.unfinished
        span = self._pattern.search(shown)
        if span is None:
            self._forget()
            return False
        self.matched = shown[slice(*span)]
        return True

    def _forget(self) -> None:
        """Keep the newest whole lines, so that `^` stays true."""
        if len(self._text) > _OVERLAP_CHARS:
            tail = self._text[-_OVERLAP_CHARS:]
            self._text = tail.partition("\n")[2] or tail
