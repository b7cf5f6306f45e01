"""What a session has set of a terminal, so that it can be set back. Sans-I/O."""

from __future__ import annotations

import re

_SET = re.compile(rb"\x1b\[\?([0-9;]{1,40})([hl])")
# A sequence that a piece of output ends within.
_OPEN = re.compile(rb"\x1b(\[(\?[0-9;]{0,40})?)?\Z")
_ALTERNATE = frozenset({47, 1047, 1049})
_CURSOR = 25
_WRAP = 7
# What a terminal has on by itself.
_USUAL = frozenset({_CURSOR, _WRAP})
# Turned off at the end when they were turned on: keys, mouse, focus, paste.
_UNDONE = frozenset({1, 9, 66, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1015, 2004})


class Modes:
    """Follows the private modes in a terminal's output."""

    def __init__(self) -> None:
        """Begin with a terminal as it usually is."""
        self._on: set[int] = set(_USUAL)
        self._rest = b""

    @property
    def alternate(self) -> bool:
        """A full-screen program has the terminal."""
        return bool(self._on & _ALTERNATE)

    def feed(self, data: bytes) -> None:
        """Take output as it came."""
        data = self._rest + data
        for found in _SET.finditer(data):
            numbers = {int(n) for n in found[1].split(b";") if n}
            if found[2] == b"h":
                self._on |= numbers
            else:
                self._on -= numbers
        still = _OPEN.search(data)
        self._rest = still[0] if still else b""

    def undo(self) -> bytes:
        """Return what sets the terminal back, its cursor where it is."""
        parts = [b"\x1b[0m"]
        # Margins move the cursor when they are set back.
        parts.append(b"\x1b7\x1b[r\x1b8")
        parts += [b"\x1b[?%dl" % mode for mode in sorted(self._on & _UNDONE)]
        parts += [b"\x1b[?%dl" % mode for mode in sorted(self._on & _ALTERNATE)]
        parts += [b"\x1b[?%dh" % mode for mode in sorted(_USUAL - self._on)]
        parts.append(b"\x1b>\x0f")
        self._on = set(_USUAL)
        return b"".join(parts)
