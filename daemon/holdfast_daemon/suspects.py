"""What looks like a secret in a text although nobody told us.

Each shape begins with a fixed word. Only where that word stands is the shape tried: a
search for a word costs a hundredth of a pattern tried at each character, and whoever
searches holds up everybody else. No shape can backtrack over more than it consumes, so
a long hostile text costs linear time.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

REDACTED = "[redacted]"

_VALUE = (
    r"""(?!\[(?:secret|redacted)\])"""
    r"""(?:"[^"]*"|'[^']*'|\\"[^"]*"|[^\s,;&"')}\]]+)"""
)
_WORD = (
    r"(?:password|passwd|passphrase|token|api[_-]?key|private[_-]?key|_pwd"
    r"|secret(?:(?:[_-]access)?[_-]key)?)"
)
# how those words begin
_WORDS = ("passw", "passphrase", "secret", "token", "api", "private", "_pwd")


class Shape(NamedTuple):
    """A secret's shape; of group 1 nothing is hidden, `lead` stands before the word."""

    pattern: re.Pattern[str]
    words: tuple[str, ...]
    lead: str = ""


SHAPES = (
    Shape(
        re.compile(
            r"()-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
            r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)",
            re.DOTALL,
        ),
        ("-----begin ",),
    ),
    Shape(re.compile(r"()\btok_[A-Za-z0-9_-]{4,}"), ("tok_",)),
    Shape(
        re.compile(r"(?i)(\bbearer\s{1,8})(?!\[redacted\])[A-Za-z0-9._~+/=-]{6,}"),
        ("bearer",),
    ),
    Shape(
        re.compile(
            r"""(?i)(\bauthorization["']?\s{0,8}[:=]\s{0,8}["']?(?:basic|token)\s{1,8})"""
            r"(?!\[redacted\])[A-Za-z0-9._~+/=-]{4,}"
        ),
        ("authorization",),
    ),
    Shape(
        # a text in a text has its quotes behind backslashes
        re.compile(rf"""(?i)({_WORD}\\?["']?\s{{0,8}}[=:]\s{{0,8}}){_VALUE}"""),
        _WORDS,
    ),
    Shape(re.compile(rf"(?i)(--{_WORD}\s{{1,8}}){_VALUE}"), _WORDS, "--"),
    Shape(
        re.compile(
            r"(?i)(\bcurl\b[^\n]{0,200}?\s(?:-u|--user)[\s=]{0,8}"
            rf"""["']?[^\s:"']{{1,128}}:){_VALUE}"""
        ),
        ("curl",),
    ),
    Shape(re.compile(rf"(?i)(\bsshpass\s{{1,8}}-p\s{{0,8}}){_VALUE}"), ("sshpass",)),
    Shape(
        re.compile(r"(://[^\s/@:]{0,256}:)(?!\[redacted\]@)[^\s/@]{1,256}(?=@)"),
        ("://",),
    ),
)
# The one character that becomes two in lower case, and would move all behind it.
_LONGER = "\u0130"


def hide(text: str) -> str:
    """Return `text` with all that looks like a secret replaced by `[redacted]`."""
    plain = _plain(text)
    for shape in SHAPES:
        cleaned = _without(shape, text, plain)
        if cleaned is not text:
            text, plain = cleaned, _plain(cleaned)
    return text


def _plain(text: str) -> str:
    """Return it in lower case, each character at its place."""
    return text.replace(_LONGER, "i").lower()


def _without(shape: Shape, text: str, plain: str) -> str:
    pieces: list[str] = []
    done = 0
    for start in _places(shape, plain):
        if start < done:
            continue
        found = shape.pattern.match(text, start)
        if found is not None:
            pieces += (text[done : found.end(1)], REDACTED)
            done = found.end()
    if not pieces:
        return text
    return "".join((*pieces, text[done:]))


def _places(shape: Shape, plain: str) -> Iterator[int]:
    """Yield where it may begin, in order."""
    lead = len(shape.lead)
    places: list[int] = []
    for word in shape.words:
        at = plain.find(word)
        while at >= 0:
            if plain.startswith(shape.lead, max(0, at - lead)):
                places.append(at - lead)
            at = plain.find(word, at + 1)
    yield from sorted(places) if len(shape.words) > 1 else places
