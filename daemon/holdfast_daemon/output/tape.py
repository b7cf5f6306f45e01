"""What is written of a session: its asciicast and its plain transcript.

Everything here blocks and runs in one thread at a time. Lines are held back until they
end or rest, so that a secret that came in pieces is still found as a whole.
"""

from __future__ import annotations

import codecs
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.output import cast
from holdfast_daemon.output.cast import Code
from holdfast_daemon.output.halves import Halves
from holdfast_daemon.output.text import Cleaner
from holdfast_daemon.output.typed import Typed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from holdfast_daemon.secrets import Redactor

CAST = "session.cast"
TRANSCRIPT = "session.txt"
_HELD_CHARS = 16 * 1024
_KEY_HELD_CHARS = 64 * 1024
_EVENT_CHARS = 8 * 1024
_KEY_BEGINS = "-----BEGIN "
_KEY_ENDS = "-----END "


class Item(NamedTuple):
    """Something that happened at `at`; `end` is the output's position after it."""

    at: float
    code: Code
    data: bytes
    end: int | None = None
    # Output of a command beside the terminal: it is no echo, and has bare LFs.
    beside: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Where, how much, and what it is called."""

    directory: Path
    title: str
    recording_bytes: int
    transcript_bytes: int
    keys: bool = False


class Tape:
    """Turns items into lines of two files."""

    def __init__(
        self, plan: Plan, redactor: Redactor, *, cols: int, rows: int, begun: float
    ) -> None:
        self._plan = plan
        self._redactor = redactor
        self._size = (cols, rows)
        # As things were before what is written now.
        self._head = ""
        self._timeline = cast.Timeline(begun)
        self.recording = Halves(plan.directory / CAST, limit_bytes=plan.recording_bytes)
        self.transcript = Halves(
            plan.directory / TRANSCRIPT, limit_bytes=plan.transcript_bytes
        )
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._cleaner = Cleaner(sniff=False, cols=cols)
        self._typed = Typed() if plan.keys else None
        self._held: list[tuple[float, str]] = []
        # How much of the output is in what is held, and in what was released.
        self._end: int | None = None
        self._done: int | None = None
        self._lines: list[str] = []
        self._text: list[str] = []

    @property
    def holds(self) -> bool:
        """Whether something waits for the end of its line."""
        return bool(self._held)

    def begin(self, at: float, wall: float) -> int | None:
        """Mend what an earlier daemon left; return how much output is in it.

        None: that is not known.

        Raises:
            OSError: The files can't be used.
        """
        self.transcript.tail()
        last = self.recording.tail()
        if not last:
            return 0
        since = max(0.0, wall - self.recording.path.stat().st_mtime)
        self._timeline = cast.Timeline(at - since)
        self._event(at, Code.MARKER, "recorded by a new daemon from here on")
        self._event(at, Code.RESIZE, "{}x{}".format(*self._size))
        # the transcript gets a line once it is whole
        self._cleaner.feed(cast.unfinished(last).encode(errors="replace"))
        return cast.last_offset(last) or None

    def write(self, items: Sequence[Item], *, settle: bool, now: float) -> bool:
        """Write what `items` complete; with `settle` also the unfinished line.

        Returns whether there was anything to write.

        Raises:
            OSError: It could not be written, and is lost.
        """
        self._head = self._header()
        for item in items:
            self._take(item)
        if settle and not self._in_key():
            self._release()
        self._keys(now)
        return self._save()

    def _keys(self, now: float) -> None:
        if self._typed is not None:
            for keys in self._typed.seen(now):
                self._event(now, Code.INPUT, self._redactor.clean(keys))

    def finish(self, items: Sequence[Item], *, now: float) -> bool:
        """Write the rest: nothing more will come.

        Raises:
            OSError: It could not be written, and is lost.
        """
        self._head = self._header()
        for item in items:
            self._take(item)
        self._release()
        self._text.append(self._redactor.clean(self._cleaner.finish()))
        self._keys(now)
        return self._save()

    def _take(self, item: Item) -> None:
        match item.code:
            case Code.OUTPUT:
                self._output(item)
            case Code.INPUT:
                if self._typed is not None:
                    self._typed.type(item.data.decode(errors="replace"), item.at)
            case Code.RESIZE:
                self._release()
                text = item.data.decode()
                cols, _, rows = text.partition("x")
                self._size = (int(cols), int(rows))
                self._cleaner.resize(self._size[0])
                self._event(item.at, item.code, text)
            case _:
                self._release()
                self._keys(item.at)
                text = self._redactor.clean(item.data.decode(errors="replace"))
                self._event(item.at, item.code, cast.label(text))

    def _output(self, item: Item) -> None:
        data = item.data
        if item.beside:
            data = data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        elif self._typed is not None:
            self._typed.show(data)
        text = self._decoder.decode(data)
        head, newline, rest = text.rpartition("\n")
        if newline:
            self._held.append((item.at, head + newline))
            if item.end is not None:
                self._end = item.end - (len(data) - data.rfind(b"\n") - 1)
            if not self._in_key():
                self._release()
        if item.end is not None:
            self._end = item.end
        if rest:
            self._held.append((item.at, rest))
        size = sum(len(text) for _, text in self._held)
        if size > (_KEY_HELD_CHARS if self._in_key() else _HELD_CHARS):
            self._release()

    def _in_key(self) -> bool:
        """Whether a private key has begun and not ended."""
        text = "".join(text for _, text in self._held)
        return text.rfind(_KEY_BEGINS) > text.rfind(_KEY_ENDS)

    def _release(self) -> None:
        """Turn what is held back into events."""
        held, self._held = self._held, []
        text = "".join(piece for _, piece in held)
        if text:
            cleaned = self._redactor.clean(text)
            pieces = held if cleaned == text else [(held[0][0], cleaned)]
            for at, piece in pieces:
                for start in range(0, len(piece), _EVENT_CHARS):
                    part = piece[start : start + _EVENT_CHARS]
                    self._event(at, Code.OUTPUT, part)
            lines = self._cleaner.feed(cleaned.encode())
            self._text.append(self._redactor.clean(lines))
        if self._end is not None:
            self._done, self._end = self._end, None

    def _event(self, at: float, code: Code, data: str) -> None:
        self._lines.append(self._timeline.event(at, code, data))

    def _save(self) -> bool:
        if self._done is not None:
            self._lines.append(cast.offset_line(self._done))
        lines, self._lines, self._done = self._lines, [], None
        text, self._text = "".join(self._text), []
        self._append(self.recording, lines, self._head)
        for part in _parts(text):
            self._put(self.transcript, [part], "")
        return bool(lines or text)

    def _header(self) -> str:
        cols, rows = self._size
        title = self._redactor.clean(self._plan.title)
        return cast.header(cols, rows, timestamp=time.time(), title=title)

    def _append(self, file: Halves, lines: list[str], head: str) -> None:
        """Write whole lines, in parts that fit."""
        part: list[str] = []
        size = 0
        for line in lines:
            if part and size + len(line) > _EVENT_CHARS:
                self._put(file, part, head)
                part, size = [], 0
            part.append(line)
            size += len(line)
        if part:
            self._put(file, part, head)

    def _put(self, file: Halves, lines: list[str], head: str) -> None:
        data = "".join(lines).encode(errors="replace")
        if not file.fits(len(data)):
            file.turn()
        if file.empty:
            data = head.encode() + data
        file.append(data)


def _parts(text: str) -> Iterator[str]:
    """Cut it into parts of whole lines, without an object for each line."""
    start = 0
    while start < len(text):
        end = text.rfind("\n", start, start + _EVENT_CHARS) + 1
        if end <= start:
            # one line is longer
            end = text.find("\n", start) + 1 or len(text)
        yield text[start:end]
        start = end
