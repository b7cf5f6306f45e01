"""Globs as people write them: braces, `**`, and the rule for hidden files. Sans-I/O."""

from __future__ import annotations

import re

from holdfast_daemon.errors import InputError

_MOST = 64
_CHARS = 1000


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
    """Return a pattern for `find -path` below `.` that misses nothing of `glob`."""
    return "./" + re.sub(r"\*{2,}/?|\*", "*", glob)


def depth(globs: list[str]) -> int | None:
    """Return how deep to look; None: as deep as it goes."""
    if any("**" in glob for glob in globs):
        return None
    return max(glob.count("/") + 1 for glob in globs)


def names_hidden(globs: list[str]) -> bool:
    """Say whether a glob asks for names with a leading dot."""
    return any(part.startswith(".") for glob in globs for part in glob.split("/"))


def matcher(globs: list[str]) -> re.Pattern[str]:
    """Return what a path below the directory must match as a whole."""
    return re.compile("|".join(map(_regex, globs)), re.DOTALL)


def _regex(glob: str) -> str:
    parts = glob.split("/")
    told = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            told += r"(?:(?!\.)[^/]+/)*" + (r"(?!\.)[^/]+" if last else "")
            continue
        hidden = "" if part.startswith(".") else r"(?!\.)"
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
        elif letter == "[" and (stop := _closing(part, position)) > 0:
            told += _class(part[position:stop])
            position = stop + 1
        else:
            told += re.escape(letter)
    return told


def _closing(part: str, position: int) -> int:
    start = position + (part[position : position + 1] in ("!", "^"))
    return part.find("]", start + 1)


def _class(inside: str) -> str:
    negated = inside[:1] in ("!", "^")
    letters = inside[1:] if negated else inside
    letters = letters.replace("\\", r"\\").replace("[", r"\[").replace("]", r"\]")
    letters = letters.replace("^", r"\^").replace("&&", r"&\&").replace("~~", r"~\~")
    return f"(?!/)[{'^' if negated else ''}{letters}]"
