"""Secrets: a value that does not show itself, and the one filter that hides known ones.

Knows no one who uses it; everything that leaves the daemon as text passes a `Redactor`.
"""

from __future__ import annotations

import hmac
import json
import shlex
from collections import Counter
from typing import NoReturn, Self
from urllib.parse import quote

from holdfast_daemon import suspects
from holdfast_daemon.suspects import REDACTED

HIDDEN = "[secret]"

# Shorter ones would blank out half of every text without hiding anything.
_SHORTEST = 4
# Of several lines each long one is hidden alone too: logs and prompts split them.
_SHORTEST_LINE = 12


class Secret:
    """A text that is shown only to who asks for it by name."""

    __slots__ = ("__text",)

    def __init__(self, text: str) -> None:
        self.__text = text

    def reveal(self) -> str:
        """Return the text itself."""
        return self.__text

    def __repr__(self) -> str:
        return HIDDEN

    def __str__(self) -> str:
        return HIDDEN

    def __format__(self, spec: str) -> str:
        return format(HIDDEN, spec)

    def __bool__(self) -> bool:
        return bool(self.__text)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self.__text), _bytes(other.__text))

    def __hash__(self) -> int:
        return hash((Secret, self.__text))

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a secret is not pickled")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


class Redactor:
    """Replaces every known secret, and what looks like one, in a text.

    One instance is shared by logs, audit and answers; it may be used from any thread.
    """

    def __init__(self) -> None:
        self._uses: Counter[str] = Counter()
        self._kept: set[str] = set()
        # Replaced as a whole at each change: a thread that reads sees old or new.
        self._needles: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Redactor of {len(self._uses)} secrets>"

    def add(self, secret: str | Secret) -> None:
        """Hide `secret` from now on; as often added, so often to be removed."""
        text = _text(secret)
        if len(text) >= _SHORTEST:
            self._uses[text] += 1
            self._needles = self._all_forms()

    def keep(self, secret: str | Secret) -> None:
        """Hide `secret` from now on, however often this is said."""
        text = _text(secret)
        if text not in self._kept:
            self._kept.add(text)
            self.add(text)

    def remove(self, secret: str | Secret) -> None:
        """Undo one `add`."""
        text = _text(secret)
        if text in self._uses:
            self._uses[text] -= 1
            if not self._uses[text]:
                del self._uses[text]
            self._needles = self._all_forms()

    def clean(self, text: str) -> str:
        """Return `text` with every secret replaced by `[redacted]`."""
        return suspects.hide(self._without_known(text))

    def _all_forms(self) -> tuple[str, ...]:
        return tuple({form for text in self._uses for form in _forms(text)})

    def _without_known(self, text: str) -> str:
        """Cut out all spans at once: secrets may overlap or contain one another."""
        spans: list[tuple[int, int]] = []
        for needle in self._needles:
            start = text.find(needle)
            while start >= 0:
                spans.append((start, start + len(needle)))
                start = text.find(needle, start + 1)
        if not spans:
            return text
        pieces: list[str] = []
        done = 0
        for start, end in sorted(spans):
            if start > done or not pieces:
                pieces += (text[done:start], REDACTED)
            done = max(done, end)
        return "".join((*pieces, text[done:]))


def _text(secret: str | Secret) -> str:
    return secret.reveal() if isinstance(secret, Secret) else secret


def _forms(text: str) -> set[str]:
    """Return the spellings under which `text` turns up once a program has quoted it."""
    trimmed = text.strip()
    lines = [line.strip() for line in trimmed.splitlines()]
    plain = {text, trimmed}
    if len(lines) > 1:
        plain |= {
            line
            for line in lines
            if len(line) >= _SHORTEST_LINE and not line.startswith("-----")
        }
    forms: set[str] = set()
    for item in plain:
        forms |= {
            item,
            json.dumps(item)[1:-1],
            json.dumps(item, ensure_ascii=False)[1:-1],
            repr(item)[1:-1],
            quote(item, safe="", errors="replace"),
            shlex.quote(item).strip("'"),
        }
    return {form for form in forms if len(form) >= _SHORTEST}
