"""Patterns of Perl's kind as `grep -E` has them. Sans-I/O."""

from __future__ import annotations

import re

_CLASSES = {"d": "0-9", "w": "[:alnum:]_", "s": "[:space:]"}
# What a pattern is read as: an escape, a set, a group that is not kept, or one letter.
_PART = re.compile(
    r"\\(?P<escape>.)"
    r"|(?P<set>\[\^?\]?(?:\\.|\[:[a-z]+:\]|[^\]\\])*\])"
    r"|(?P<plain>\(\?:)"
    r"|(?P<other>\(\?|[*+?}][?+])"
    r"|(?P<letter>.)",
    re.DOTALL,
)


def extended(pattern: str) -> str | None:
    """Return `pattern` for grep -E; None: it asks for what only Perl's have."""
    told: list[str] = []
    for part in _PART.finditer(pattern):
        if part["other"]:  # looking around, lazy and possessive repeats
            return None
        word: str | None
        if part["escape"]:
            word = _escape(part["escape"])
        elif part["set"]:
            word = _set(part["set"])
        else:
            word = "(" if part["plain"] else part["letter"]
        if word is None:
            return None
        told.append(word)
    return "".join(told)


def _escape(letter: str) -> str | None:
    if letter.lower() in _CLASSES:
        return f"[{'^' if letter.isupper() else ''}{_CLASSES[letter.lower()]}]"
    if letter == "t":
        return "\t"
    if letter.isalnum() and letter not in "bB":
        return None
    return f"\\{letter}"


def _set(text: str) -> str | None:
    """Return a set; there a backslash is a letter like any other to grep -E."""
    told, position = "", 0
    while (found := text.find("\\", position)) >= 0:
        letter = text[found + 1]
        if letter in _CLASSES:
            word = _CLASSES[letter]
        elif letter == "t":
            word = "\t"
        elif letter.isalnum() or letter in "]^-\\":
            return None
        else:
            word = letter
        told += text[position:found] + word
        position = found + 2
    return told + text[position:]
