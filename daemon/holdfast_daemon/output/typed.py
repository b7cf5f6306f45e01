"""Which typed keys a recording may hold: those that the terminal showed; sans I/O.

Whether a prompt hides what is typed is known on the host only. What is echoed is in
the recording anyway, so that, and nothing else, is recorded as typed.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from holdfast_daemon.output.text import Cleaner, clean

_SECONDS = 5.0
_LINES = 64
_LINE_CHARS = 4096
_SHOWN_CHARS = 16 * 1024
# Nobody's secret: Enter, Ctrl-C and the like, arrows and other keys with a name.
_NAMED = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O[A-Za-z])|[\x00-\x1f\x7f]")
_SECRET_PROMPT = re.compile(
    r"(?i)(?:password|passphrase|passcode|secret|token|otp|pin|code)"
    r"[^\n]{0,80}[:>?]\s*\Z"
)


class _Waiting(NamedTuple):
    at: float
    text: str


class Typed:
    """Holds keys back until they are seen on the line they were typed on."""

    def __init__(self) -> None:
        self._screen = Cleaner(sniff=False)
        self._echo = Cleaner(sniff=False)
        self._lines = ""
        self._place = 0
        self._visible = False
        self._waiting: list[_Waiting] = []

    def type(self, text: str, at: float) -> None:
        """Take keys that are about to be sent; `seen` gives them out."""
        if _SECRET_PROMPT.search(self._screen.unfinished):
            text = _named(text)
        if not self._waiting:
            self._begin()
        for part in re.split(r"(?<=[\r\n])", text):
            if part and len(self._waiting) < _LINES and len(part) <= _LINE_CHARS:
                self._waiting.append(_Waiting(at, part))

    def show(self, data: bytes) -> None:
        """Take output."""
        self._screen.feed(data)
        if self._waiting:
            self._lines += self._echo.feed(data)
            if len(self._lines) > _SHOWN_CHARS:
                # Nobody's echo any more.
                self._lines = "\n" * _LINES

    def seen(self, now: float) -> list[str]:
        """Return the keys that were echoed by now, and forget those that were not."""
        found: list[str] = []
        while self._waiting:
            first = self._waiting[0]
            shown = self._lines + self._echo.unfinished
            line, ended, rest = shown.partition("\n")
            enter = first.text[-1] in "\r\n"
            late = now - first.at >= _SECONDS
            printed = _NAMED.sub("", first.text)
            plain = _squeezed(printed)
            place = _squeezed(line).find(plain, self._place)
            if printed and not plain and not self._visible:
                # A blank tells nothing; what came before it on the line does.
                place = -1
            if not late and not ended and (enter or place < 0):
                break
            found.append(first.text if place >= 0 else _named(first.text))
            self._place = max(self._place, place + len(plain))
            self._visible = place >= 0 and (bool(plain) or self._visible)
            if enter and ended:
                self._lines = rest.removesuffix(self._echo.unfinished)
                self._place, self._visible = 0, False
            self._waiting.pop(0)
        if not self._waiting:
            self._begin()
        return [keys for keys in found if keys]

    def _begin(self) -> None:
        """Only what is shown from now on can be an echo."""
        self._echo = Cleaner(sniff=False)
        self._lines, self._place = "", 0


def _named(text: str) -> str:
    return "".join(match[0] for match in _NAMED.finditer(text))


def _squeezed(text: str) -> str:
    """Return `text` without blanks: a long line is echoed with breaks in it."""
    return "".join(clean(text.encode(errors="replace")).split())
