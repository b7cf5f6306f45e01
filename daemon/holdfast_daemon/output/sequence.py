"""A terminal's input in tokens: text, controls, sequences, strings; sans I/O.

The state machine of a VT500, bounded: parameters, strings and what is kept of them have
an end, whatever comes. It gives the same tokens for any split of the same text.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Protocol

_PARAMETER_CHARS = 256
_PARAMETERS = 32
_LARGEST = 9999
_INTERMEDIATES = 4
# A string that nobody ends is given up then; what is asked in one is short.
_STRING_CHARS = 1024 * 1024
_KEPT_CHARS = 512

_CAN_OR_SUB = "\x18\x1a"
_TEXT = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")
_CSI = re.compile(
    rf"\x1b\[([<-?]?)([0-9:;]{{0,{_PARAMETER_CHARS}}}+)"
    rf"([ -/]{{0,{_INTERMEDIATES}}}+)([@-~])"
)
_BODY = re.compile(r"[^\x07\x18\x1a\x1b\x80-\x9f]+")
_STRINGS = "]PX^_k"
_C1_FINAL = 0x40


class Handler(Protocol):
    """What is done with the tokens."""

    def text(self, text: str) -> None:
        """Print characters, none of them a control."""
        ...

    def control(self, char: str) -> None:
        """Do what a C0 control says."""
        ...

    def escape(self, intermediates: str, final: str) -> None:
        """Do what `ESC intermediates final` says."""
        ...

    def csi(
        self, prefix: str, params: list[int], intermediates: str, final: str
    ) -> None:
        """Do what `CSI prefix params intermediates final` says; -1 is no parameter."""
        ...

    def string(self, kind: str, body: str, end: str) -> None:
        """Take a control string that ended; a long one is cut."""
        ...


class _State(Enum):
    GROUND = auto()
    ESCAPE = auto()
    CSI = auto()
    STRING = auto()


class Parser:
    """Cuts text into tokens for a handler."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._state = _State.GROUND
        # The sequence or string so far; too long a sequence does nothing.
        self._seen = ""
        self._wrong = False
        self._kind = ""
        self._length = 0
        # An ESC within a string may be the first half of its end.
        self._ending = False

    def feed(self, text: str) -> None:
        """Hand on the tokens that `text` completes."""
        place, end = 0, len(text)
        while place < end:
            match: re.Match[str] | None = None
            if self._state is _State.GROUND:
                if match := _TEXT.match(text, place):
                    self._handler.text(match[0])
                elif match := _CSI.match(text, place):
                    self._dispatch(*match.groups())
            elif (
                self._state is _State.STRING
                and not self._ending
                and (match := _BODY.match(text, place))
            ):
                self._collect(match[0])
            if match is None:
                self._step(text[place])
                place += 1
            else:
                place = match.end()

    def _step(self, char: str) -> None:
        if "\x80" <= char <= "\x9f":
            # In UTF-8 a C1 control is its escape of two characters.
            self._step("\x1b")
            char = chr(ord(char) - _C1_FINAL)
        if self._state is _State.STRING:
            self._in_string(char)
        elif char == "\x1b":
            self._begin(_State.ESCAPE)
        elif char in _CAN_OR_SUB:
            self._begin(_State.GROUND)
        elif char < " ":
            # Controls work in the middle of a sequence too.
            self._handler.control(char)
        elif char == "\x7f":
            return
        elif self._state is _State.ESCAPE:
            self._in_escape(char)
        elif self._state is _State.CSI:
            self._in_csi(char)
        else:
            self._handler.text(char)

    def _begin(self, state: _State) -> None:
        self._state = state
        self._seen, self._wrong = "", False

    def _in_escape(self, char: str) -> None:
        if " " <= char <= "/":
            if len(self._seen) < _INTERMEDIATES:
                self._seen += char
            else:
                self._wrong = True
        elif char == "[" and not self._seen:
            self._begin(_State.CSI)
        elif char in _STRINGS and not self._seen:
            self._begin(_State.STRING)
            self._kind, self._length, self._ending = char, 0, False
        else:
            seen, wrong = self._seen, self._wrong
            self._begin(_State.GROUND)
            if char > "~":
                self._handler.text(char)
            elif not wrong:
                self._handler.escape(seen, char)

    def _in_csi(self, char: str) -> None:
        if "@" <= char <= "~":
            match = None if self._wrong else _CSI.fullmatch(f"\x1b[{self._seen}{char}")
            self._begin(_State.GROUND)
            if match:
                self._dispatch(*match.groups())
        elif char > "~":
            self._begin(_State.GROUND)
            self._handler.text(char)
        elif len(self._seen) > _PARAMETER_CHARS + _INTERMEDIATES:
            self._wrong = True
        else:
            self._seen += char

    def _dispatch(
        self, prefix: str, params: str, intermediates: str, final: str
    ) -> None:
        numbers = [_number(part) for part in params.split(";", _PARAMETERS)]
        self._handler.csi(prefix, numbers[:_PARAMETERS], intermediates, final)

    def _in_string(self, char: str) -> None:
        if self._ending:
            self._ending = False
            if char == "\\":
                self._end("\x1b\\")
            else:
                # Any other escape breaks the string off and counts itself.
                self._begin(_State.ESCAPE)
                self._step(char)
        elif char == "\x1b":
            self._ending = True
        elif char == "\a" and self._kind == "]":
            self._end("\a")
        elif char in _CAN_OR_SUB:
            self._begin(_State.GROUND)
        else:
            self._collect(char)

    def _collect(self, part: str) -> None:
        room = _STRING_CHARS - self._length
        self._length += len(part)
        self._seen += part[: _KEPT_CHARS - len(self._seen)]
        # The Linux console's palette ends with nothing.
        if self._kind == "]" and self._seen[:1] in ("R", "P"):
            self._palette(part)
        elif len(part) > room:
            self._begin(_State.GROUND)
            self.feed(part[room:])

    def _palette(self, part: str) -> None:
        size = 1 if self._seen[0] == "R" else len("P0123456")
        if self._length >= size:
            self._begin(_State.GROUND)
            self.feed(part[len(part) - (self._length - size) :])

    def _end(self, end: str) -> None:
        kind, body = self._kind, self._seen
        self._begin(_State.GROUND)
        self._handler.string(kind, body, end)


def _number(text: str) -> int:
    """Return a parameter; of one with colons only what comes before them."""
    digits = text.partition(":")[0]
    return min(int(digits[:8]), _LARGEST) if digits else -1
