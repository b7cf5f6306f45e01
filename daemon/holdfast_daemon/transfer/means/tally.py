"""How far a copy is: files, bytes, rate and time left. Sans-I/O."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

_WINDOW_SECONDS = 5.0
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024.0
_HOUR, _MINUTE = 3600, 60


@dataclass(slots=True)
class Tally:
    """What is done, of how much.

    Attributes:
        files: Files that are in their place.
        moved: Bytes of content that went over the wire.
        done: Bytes of content that are there, those of an earlier attempt included.
        total: Bytes of content that are to be there.
        wanted: Files that are to be there.
        skipped: Files left as they were.
        now: The file that moves.
        resumed: An earlier daemon began it: what lies there is what that moved.
    """

    files: int = 0
    moved: int = 0
    done: int = 0
    total: int = 0
    wanted: int = 0
    skipped: int = 0
    now: str = ""
    resumed: bool = False
    _marks: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])

    def move(self, count: int) -> None:
        """Note bytes that moved."""
        self.moved += count
        self.done += count

    def find(self, count: int) -> None:
        """Note bytes that are there already."""
        self.done += count
        if self.resumed:
            self.moved += count

    def take_back(self, count: int) -> None:
        """Note bytes that have to move again."""
        self.done -= count

    def rate(self, now: float) -> float:
        """Return the bytes a second of the last few seconds."""
        self._marks.append((now, self.moved))
        while len(self._marks) > 1 and now - self._marks[0][0] > _WINDOW_SECONDS:
            self._marks.popleft()
        since, before = self._marks[0]
        return (self.moved - before) / (now - since) if now > since else 0.0

    def line(self, now: float) -> str:
        """Return how it stands, for people."""
        rate = self.rate(now)
        text = f"{size(self.done)} of {size(self.total)}"
        if self.total:
            text += f" ({100 * min(self.done, self.total) // self.total}%)"
        if rate:
            text += f", {size(rate)}/s"
            left = max(0, self.total - self.done)
            text += f", {span(left / rate)} left"
        if self.wanted > 1:
            text += f", {self.files} of {self.wanted} files"
        return text


def size(count: float) -> str:
    """Return a number of bytes for people."""
    unit = 0
    while count >= _STEP and unit < len(_UNITS) - 1:
        count /= _STEP
        unit += 1
    return f"{count:.1f} {_UNITS[unit]}" if unit else f"{count:.0f} B"


def span(seconds: float) -> str:
    """Return a time for people."""
    whole = int(seconds)
    if whole >= _HOUR:
        return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE} min"
    if whole >= _MINUTE:
        return f"{whole // _MINUTE} min {whole % _MINUTE} s"
    return f"{whole} s"
