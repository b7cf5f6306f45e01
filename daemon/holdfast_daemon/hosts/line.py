"""One line of an ssh configuration as OpenSSH takes it apart. Pure."""

from __future__ import annotations

import re

_BLANK = " \t\r\n\f"
_KEYWORD = re.compile(r'[ \t]*("?)([A-Za-z0-9]+)\1[ \t]*=?[ \t]*')
# A backslash takes the meaning of a quote or another one; else it is itself.
_ESCAPE = re.compile(r"""\\(["'\\])""")
_PART = re.compile(
    r"""\\(?P<escaped>["'\\ ])"""
    r"""|"(?P<double>(?:\\["'\\]|[^"\\]|\\(?!["'\\]))*)\""""
    r"""|'(?P<single>(?:\\["'\\]|[^'\\]|\\(?!["'\\]))*)'"""
    r"""|(?P<plain>[^\s"'])"""
)

# Their value is the rest of the line, quotes and all.
_WHOLE = frozenset(
    {"knownhostscommand", "localcommand", "proxycommand", "remotecommand"}
)


def split(line: str) -> tuple[str, list[str]]:
    """Return the keyword in lower case, and its words; no keyword in an empty line.

    Raises:
        ValueError: It is no line of an ssh configuration.
    """
    text = line.strip(_BLANK)
    if not text or text.startswith("#"):
        return "", []
    found = _KEYWORD.match(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no option")
    keyword, rest = found[2].lower(), text[found.end() :]
    if keyword in _WHOLE:
        return keyword, [rest] if rest else []
    return keyword, words(rest)


def words(text: str) -> list[str]:
    """Return the words of `text`, up to a comment.

    Raises:
        ValueError: A quote is not closed.
    """
    found: list[str] = []
    at = _next(text, 0)
    while at < len(text) and text[at] != "#":
        word = ""
        while at < len(text) and text[at] not in _BLANK:
            part = _PART.match(text, at)
            if part is None:
                raise ValueError("a quote is not closed")
            quoted = part["double"] if part["double"] is not None else part["single"]
            if quoted is not None:
                word += _ESCAPE.sub(r"\1", quoted)
            else:
                word += part["escaped"] or part["plain"]
            at = part.end()
        found.append(word)
        at = _next(text, at)
    return found


def _next(text: str, at: int) -> int:
    """Return where the next word begins."""
    return len(text) - len(text[at:].lstrip(_BLANK))
