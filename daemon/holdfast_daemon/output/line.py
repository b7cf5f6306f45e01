"""Lines as a terminal shows them: CR goes to the start, BS one back; sans I/O."""

from __future__ import annotations

import re

# A line without end is given out in blocks; then CR goes back to the block's start.
_BLOCK_CHARS = 8192

_MOVES = re.compile(r"([\r\b\n])")


class Lines:
    """Turns text with CR and BS into lines, whatever pieces it comes in."""

    def __init__(self) -> None:
        self._line = ""
        self._returned = False

    @property
    def unfinished(self) -> str:
        """The line without an end, as a terminal shows it now."""
        return self._line

    def feed(self, text: str) -> str:
        """Return all that can't change any more."""
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if "\r" in text or "\b" in text or self._returned:
            return self._edit(text)
        done, newline, rest = text.rpartition("\n")
        if not newline:
            return self._grow(rest)
        done = self._line + done + "\n"
        self._line = ""
        return done + self._grow(rest)

    def finish(self) -> str:
        """Return the unfinished line."""
        line, self._line, self._returned = self._line, "", False
        return line

    def _edit(self, text: str) -> str:
        done: list[str] = []
        for part in _MOVES.split(text):
            if part == "\n":
                done.append(self._line + "\n")
                self._line, self._returned = "", False
            elif part == "\r":
                self._returned = True
            elif part == "\b":
                if not self._returned:
                    self._line = self._line[:-1]
            elif part:
                # What is there stays until something takes its place.
                if self._returned:
                    self._line, self._returned = "", False
                done.append(self._grow(part))
        return "".join(done)

    def _grow(self, text: str) -> str:
        """Add to the unfinished line; whole blocks are given out."""
        line = self._line + text
        cut = len(line) - len(line) % _BLOCK_CHARS
        self._line = line[cut:]
        return line[:cut]
