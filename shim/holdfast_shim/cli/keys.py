"""The keys that leave a session, found in what a person types. Sans-I/O."""

from __future__ import annotations

DEFAULT = "~."
_NONE = "none"
_ENTER = b"\r\n"
_TILDE = ord("~")
_CONTROL = 0x1F
_PASTE_BEGINS, _PASTE_ENDS = b"\x1b[200~", b"\x1b[201~"


class KeysError(ValueError):
    """They can't be meant."""


def parse(text: str) -> bytes:
    """Return the keys that `text` names, as `~.` or as `ctrl-],d`; empty for none.

    Raises:
        KeysError: It names no keys.
    """
    if text == _NONE:
        return b""
    names = text.split(",") if "," in text or text.lower().startswith("ctrl-") else text
    keys = bytearray()
    for name in names:
        lower = name.lower()
        letter = name[5:] if lower.startswith("ctrl-") else name
        if len(letter) != 1 or not "!" <= letter <= "~":
            raise KeysError(f"{name!r} is no key: write ~. or ctrl-],d, or {_NONE}")
        if letter is name:
            keys.append(ord(letter))
        elif "@" <= letter.upper() <= "_":
            keys.append(ord(letter.upper()) & _CONTROL)
        else:
            raise KeysError(f"there is no {name}: ctrl- goes with a letter or @[\\]^_")
    if not keys:
        raise KeysError(f"no keys are named; {_NONE} turns them off")
    return bytes(keys)


def told(keys: bytes) -> str:
    """Return how a person types `keys`."""
    names = [
        f"Ctrl-{chr(key | 0x40).lower()}" if key <= _CONTROL else chr(key)
        for key in keys
    ]
    if keys[:1] == b"~":
        return "Enter " + "".join(names)
    return " ".join(names)


class LeavingKeys:
    """Finds them; what begins like them and is not passes on.

    Keys that begin with a tilde count at the start of a line only, as in ssh; none
    count within what is pasted.

    Attributes:
        left: They were typed: nothing more is passed on.
    """

    def __init__(self, keys: bytes) -> None:
        """Begin at the start of a line."""
        self._keys = keys
        self._held = 0
        self._fresh = True
        self._pasted = False
        self._recent = b""
        self.left = False

    def feed(self, data: bytes) -> bytes:
        """Return what is meant for the session."""
        if not self._keys:
            return data
        passed = bytearray()
        for key in data:
            if self.left:
                break
            if self._next(key):
                self._held += 1
                self.left = self._held == len(self._keys)
                continue
            begun, self._held = self._keys[: self._held], 0
            for one in begun:
                self._pass(passed, one)
            # Typed twice, the first of them is meant for the session, once.
            if begun == bytes((key,)):
                continue
            if self._next(key):
                self._held = 1
            else:
                self._pass(passed, key)
        return bytes(passed)

    def _next(self, key: int) -> bool:
        if self._pasted or key != self._keys[self._held]:
            return False
        return self._held > 0 or self._keys[0] != _TILDE or self._fresh

    def _pass(self, passed: bytearray, key: int) -> None:
        passed.append(key)
        self._fresh = key in _ENTER
        self._recent = (self._recent + bytes((key,)))[-len(_PASTE_BEGINS) :]
        if self._recent == _PASTE_BEGINS:
            self._pasted = True
        elif self._recent == _PASTE_ENDS:
            self._pasted = False
