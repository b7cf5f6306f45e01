"""What a session has set of a terminal, so that it can be set back. Sans-I/O."""

from __future__ import annotations

import re

# Private modes; keys as kitty has them; as xterm has them; the cursor's shape; a reset.
_SEQUENCE = re.compile(
    rb"\x1b(?:\[\?(?P<modes>[0-9;]{1,40})(?P<way>[hl])"
    rb"|\[(?P<how>[<=>])(?P<flags>[0-9;]{0,40})u"
    rb"|\[>4(?:;(?P<level>[0-9]{0,3}))?(?P<other>m)"
    rb"|\[(?P<shape>[0-9]{0,3}) q"
    rb"|(?P<reset>c))"
)
# A sequence that a piece of output ends within.
_OPEN = re.compile(rb"\x1b(\[([?<=>]?[0-9;]{0,40} ?)?)?\Z")
_ALTERNATE = frozenset({47, 1047, 1049})
_CURSOR = 25
_WRAP = 7
# What a terminal has on by itself.
_USUAL = frozenset({_CURSOR, _WRAP})
# Turned off at the end when they were turned on: mouse, keys, colours, origin, focus,
# paste, frames that are held back, and reports of colours and sizes.
_MOUSE = frozenset({9, 1000, 1001, 1002, 1003, 1005, 1006, 1015, 1016})
_UNDONE = _MOUSE | {1, 5, 6, 66, 1004, 2004, 2026, 2031, 2048}


class Modes:
    """Follows what a terminal's output sets of it: modes, keys, the cursor's shape."""

    def __init__(self) -> None:
        """Begin with a terminal as it usually is."""
        self._rest = b""
        self._forget()

    def _forget(self) -> None:
        self._on: set[int] = set(_USUAL)
        # Each of the two screens has keys of its own: how many were put on others.
        self._pushed = {False: 0, True: 0}
        self._flagged = {False: False, True: False}
        self._other_keys = False
        self._shaped = False

    @property
    def alternate(self) -> bool:
        """A full-screen program has the terminal."""
        return bool(self._on & _ALTERNATE)

    def feed(self, data: bytes) -> None:
        """Take output as it came."""
        data = self._rest + data
        for found in _SEQUENCE.finditer(data):
            if found["modes"]:
                numbers = {int(n) for n in found["modes"].split(b";") if n}
                if found["way"] == b"h":
                    self._on |= numbers
                else:
                    self._on -= numbers
            elif found["how"]:
                self._keys(found["how"], found["flags"])
            elif found["other"]:
                self._other_keys = int(found["level"] or b"0") > 0
            elif found["reset"]:
                self._forget()
            else:
                self._shaped = int(found["shape"] or b"0") > 0
        still = _OPEN.search(data)
        self._rest = still[0] if still else b""

    def _keys(self, how: bytes, flags: bytes) -> None:
        number = int(flags.partition(b";")[0] or b"0")
        screen = self.alternate
        if how == b">":
            self._pushed[screen] += 1
        elif how == b"<":
            self._pushed[screen] = max(0, self._pushed[screen] - (number or 1))
        else:
            self._flagged[screen] = number > 0

    def undo(self) -> bytes:
        """Return what sets the terminal back, its cursor where it is."""
        parts = [b"\x1b[0m"]
        # Margins move the cursor when they are set back.
        parts.append(b"\x1b7\x1b[r\x1b8")
        parts += [b"\x1b[?%dl" % mode for mode in sorted(self._on & _UNDONE)]
        parts += self._keys_back(self.alternate)
        if self.alternate:
            parts += [b"\x1b[?%dl" % mode for mode in sorted(self._on & _ALTERNATE)]
            parts += self._keys_back(False)
        parts += [b"\x1b[?%dh" % mode for mode in sorted(_USUAL - self._on)]
        parts += [b"\x1b[>4m"] * self._other_keys + [b"\x1b[0 q"] * self._shaped
        parts.append(b"\x1b>\x1b(B\x0f")
        self._forget()
        return b"".join(parts)

    def _keys_back(self, screen: bool) -> list[bytes]:
        count, flagged = self._pushed[screen], self._flagged[screen]
        back = [b"\x1b[<%du" % count] if count else []
        return [*back, b"\x1b[=0u"] if flagged else back
