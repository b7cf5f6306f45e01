"""Which known name a wrong one was probably meant to be; rather none than a wrong one.

Knows neither tools nor options.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# Below this two words have their letters in common, not their meaning.
_ALIKE = 0.76
_PREFIX = 2
_ABBREVIATED = 3
_SHOWN_CHARS = 100


def alike(word: str, known: Iterable[str]) -> list[str]:
    """Return at most three of `known` that are written much like `word`."""
    from difflib import get_close_matches  # noqa: PLC0415 - needed once in a while

    return get_close_matches(word[:_SHOWN_CHARS], list(known), 3, _ALIKE)


def meant(word: str, known: Iterable[str]) -> str:
    """Return the one of `known` that `word` begins, abbreviates or resembles, or ""."""
    names = list(known)
    if len(word) >= _PREFIX:
        for name in names:
            if name.startswith(word):
                return name
    close = alike(word, names)
    if close:
        return close[0]
    if len(word) >= _ABBREVIATED:
        for name in names:
            if _abbreviates(word, name):
                return name
    return ""


def _abbreviates(word: str, name: str) -> bool:
    """Whether the letters of `word` come in `name` in order, the first one first."""
    rest = iter(name)
    return name.startswith(word[0]) and all(letter in rest for letter in word)
