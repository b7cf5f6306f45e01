"""What of a flood still matters to a screen, when drawing it all would cost too much.

Sans I/O. Plain lines that scroll away can be left out and the screen is the same; of
anything else only what lasts is kept: modes, margins, the alternate screen.
"""

from __future__ import annotations

import re
from typing import NamedTuple

# Two screens of lines: then nothing is left of what stood there before.
_SCREENS = 2
_PLAIN = b"\n\r\t" + bytes(range(0x20, 0x7F)) + bytes(range(0x80, 0x100))
# Each pattern begins with the same byte, so that plain text costs next to nothing.
_COLOUR = re.compile(rb"\x1b\[[0-9;:]{0,80}m")
_LASTING = re.compile(
    rb"\x1b(?:\[[?]?[0-9;]{0,40}[hl]|\[[0-9;]{0,20}r|\[!p|c|[()][0-9A-Z])"
)
_LASTING_BYTES = 8 * 1024


class Rest(NamedTuple):
    """What is left of a flood.

    Attributes:
        lasting: What is to be drawn in place of what was left out.
        tail: What is to be drawn as it is.
        exact: The screen will be the same as if all had been drawn, provided no
            margins are set.
    """

    lasting: bytes
    tail: bytes
    exact: bool


def shorten(data: bytes, *, rows: int, limit: int) -> Rest:
    """Return what of `data` is to be drawn: its end, at most `limit` bytes of it."""
    cut = max(0, len(data) - limit)
    # From the start of a line on, if there is one in time.
    cut = data.find(b"\n", cut) + 1 or cut
    head, tail = data[:cut], data[cut:]
    exact = (
        head.endswith(b"\r\n")
        and tail.count(b"\n") >= _SCREENS * rows
        and _plain(tail)
        and _plain(head)
    )
    if exact:
        return Rest(b"\r", tail, exact=True)
    lasting = b"".join(_LASTING.findall(head))[-_LASTING_BYTES:]
    # The end of a string, lest one that began before hides what comes.
    return Rest(b"\x18" + lasting + b"\r\n", tail, exact=False)


def _plain(data: bytes) -> bool:
    """Whether it is lines of text, with colours at most: they change no character."""
    if b"\x1b" in data:
        data = _COLOUR.sub(b"", data)
    return not data.translate(None, _PLAIN)
