"""Globs as people write them: braces, `**`, and the rule for hidden files. Sans-I/O."""

from __future__ import annotations

import re

from holdfast_daemon.errors import InputError

_MOST = 64
_CHARS = 1000
# One of some letters; a class of them has brackets of its own.
_NAMED = r"\[:[a-z]+:\]"
SET = rf"\[[!^]?+(?:{_NAMED}|[^/])(?:{_NAMED}|[^\]/])*\]"
_LOOSE = re.compile(rf"(\\.)|\*{{2,}}/?|[*?]|{SET}", re.DOTALL)
_WHOLE_SET = re.compile(SET, re.DOTALL)
_CLASSES = {
    "[:alnum:]": "0-9A-Za-z",
    "[:alpha:]": "A-Za-z",
    "[:digit:]": "0-9",
    "[:lower:]": "a-z",
    "[:space:]": r"\s",
    "[:upper:]": "A-Z",
    "[:xdigit:]": "0-9A-Fa-f",
}


def expand(glob: str, field: str = "glob") -> list[str]:
    """Return the globs that one with braces stands for.

    Raises:
        InputError: It is empty, too long, or stands for too many.
    """
    if not glob.strip():
        raise InputError(field, f"{field} is blank", hint="Give one like **/*.py")
    if len(glob) > _CHARS:
        raise InputError(field, f"{field} is longer than {_CHARS} characters")
    waiting, done = [glob], []
    while waiting:
        one = waiting.pop(0)
        parts = _braces(one)
        if parts is None:
            done.append(one)
        else:
            waiting = [*parts, *waiting]
        if len(waiting) + len(done) > _MOST:
            raise InputError(field, f"{field} stands for more than {_MOST} globs")
    return list(dict.fromkeys(done))


def _braces(glob: str) -> list[str] | None:
    """Return `glob` with its first braces written out; None: it has none."""
    start = 0
    while (start := glob.find("{", start)) >= 0:
        found = _alternatives(glob, start)
        if found is not None:
            stop, parts = found
            return [glob[:start] + part + glob[stop:] for part in parts]
        start += 1
    return None


def _alternatives(glob: str, start: int) -> tuple[int, list[str]] | None:
    depth, begun, parts = 0, start + 1, list[str]()
    for position in range(start, len(glob)):
        letter = glob[position]
        if letter == "{":
            depth += 1
        elif letter == "," and depth == 1:
            parts.append(glob[begun:position])
            begun = position + 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                parts.append(glob[begun:position])
                return (position + 1, parts) if len(parts) > 1 else None
    return None


def coarse(glob: str) -> str:
    """Return a pattern for `find` that misses nothing of `glob`.

    To a host's programs a letter may be several, of which `?` and sets take one each.
    """
    return _LOOSE.sub(lambda found: found[1] or "*", glob)


def depth(globs: list[str]) -> int | None:
    """Return how deep to look; None: as deep as it goes."""
    if any("**" in glob for glob in globs):
        return None
    return max(glob.count("/") + 1 for glob in globs)


def names_hidden(globs: list[str]) -> bool:
    """Say whether a glob asks for names with a leading dot."""
    return any(part.startswith(".") for glob in globs for part in glob.split("/"))


def matcher(globs: list[str], *, hidden: bool = False) -> re.Pattern[str]:
    """Return what a path below the directory must match as a whole.

    With `hidden` a star takes names with a leading dot too.

    Raises:
        InputError: One has a range that goes backwards.
    """
    shown = "" if hidden else r"(?!\.)"
    told = "|".join(_regex(glob, shown) for glob in globs)
    try:
        return re.compile(told, re.DOTALL)
    except re.error as error:
        raise InputError(
            "glob",
            f"glob has a set of letters that is none: {error.msg}",
            hint="Put a backslash before a [ that is meant as it stands.",
        ) from None


def _regex(glob: str, shown: str) -> str:
    parts = glob.split("/")
    told = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            told += f"(?:{shown}[^/]+/)*" + (f"{shown}[^/]+" if last else "")
            continue
        hidden = "" if part.startswith(".") else shown
        told += hidden + _part(part) + ("" if last else "/")
    return f"(?:{told})"


def _part(part: str) -> str:
    told, position = "", 0
    while position < len(part):
        letter = part[position]
        position += 1
        if letter == "*":
            told += "[^/]*"
        elif letter == "?":
            told += "[^/]"
        elif letter == "\\" and position < len(part):
            told += re.escape(part[position])
            position += 1
        elif letter == "[" and (found := _WHOLE_SET.match(part, position - 1)):
            told += _class(found[0][1:-1])
            position = found.end()
        else:
            told += re.escape(letter)
    return told


def _class(inside: str) -> str:
    negated = inside[:1] in ("!", "^")
    letters = inside[1:] if negated else inside
    told = "".join(
        _CLASSES.get(part) or _letters(part)
        for part in re.split(f"({_NAMED})", letters)
    )
    return f"(?!/)[{'^' if negated else ''}{told}]"


def _letters(text: str) -> str:
    text = text.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
    return text.replace("^", r"\^").replace("&&", r"&\&").replace("~~", r"~\~")
