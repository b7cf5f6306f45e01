"""Takes the line that starts an agent's command out of what a person sees. Pure.

A shell echoes that line as it does all that is typed; what others type stays.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

# Its echo may come a little later than word of the command's end.
_LATE_SECONDS = 2.0
# what a line editor puts between two letters
_GAP = rb"(?:\x1b\[[0-9;?]*[@-~]|\x1b\([AB0]|\r|\x08)*"


def _line(path: bytes, gap: bytes) -> re.Pattern[bytes]:
    """Return ` . '/…/kept/ID/r'/c` or ` . '/…/holdfast-NUMBER'/c`."""
    letters = (rb"\.", rb" ", rb"'", rb"/" + path, rb"'", rb"/", rb"[a-z]\b")
    return re.compile(rb" ?" + gap + gap.join(letters))


_LINE = _line(rb"[^'\n]{1,600}?", _GAP)
# a screen that is drawn row by row
_ROWS = _line(rb"[^']{1,600}?", rb"(?:\x1b\[[0-9;]*m|\r\n)*")
# colours, and the ends of rows: what comes behind it needs them
_KEPT = re.compile(rb"\x1b\[[0-9;]*m|\x1b\([AB0]|\r\n")
# as much of its beginning as may stand at the end of a piece
_BEGUN = re.compile(
    rb"\."
    + _GAP
    + rb"(?: "
    + _GAP
    + rb"(?:'(?:/[^'\n]{0,600}(?:'"
    + _GAP
    + rb"/?)?)?)?)?"
    rb"\Z"
)
_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[@-~]|\x1b\([AB0]|[\r\n\x08]")
_OURS = re.compile(rb"/kept/s[0-9a-z]+/r'/[a-z]\Z|/holdfast-[0-9a-f]{16}'/[a-z]\Z")


def without(data: bytes) -> bytes:
    """Return what a terminal printed without such lines."""
    return _LINE.sub(_rest, data)


def drawn(screen: bytes) -> bytes:
    """Return the drawing of a screen without such lines; its rows stay as they are."""
    return _ROWS.sub(_rest, screen)


def _rest(found: re.Match[bytes]) -> bytes:
    return b"".join(_KEPT.findall(found[0])) if _ours(found) else found[0]


def _ours(found: re.Match[bytes]) -> bool:
    return _OURS.search(_ESCAPES.sub(b"", found[0])) is not None


class Veil:
    """Watches for the lines that are to come."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """Count seconds by `clock`."""
        self._clock = clock
        self._running = 0
        self._until = 0.0
        self._held = b""

    def began(self) -> None:
        """A command is being started."""
        self._running += 1

    def ended(self) -> None:
        """A command has ended."""
        self._running = max(0, self._running - 1)
        self._until = self._clock() + _LATE_SECONDS

    def feed(self, data: bytes) -> bytes:
        """Take what the terminal printed; return what is to be shown."""
        data, self._held = self._held + data, b""
        if not self._running and self._clock() > self._until:
            return data
        shown = without(data)
        begun = _BEGUN.search(shown)
        if begun is not None:
            shown, self._held = shown[: begun.start()], shown[begun.start() :]
        return shown

    def rest(self) -> bytes:
        """Return what was held back."""
        held, self._held = self._held, b""
        return held
