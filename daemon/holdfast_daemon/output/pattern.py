"""A regular expression from outside: checked, and never longer at work than allowed."""

from __future__ import annotations

import re

import regex

from holdfast_daemon.errors import InputError

SLOW_HINT = "avoid nested repeats such as (a+)+, or search for plain words"
_PATTERN_CHARS = 1000
# A pattern is made with one step for each time a part must come, at 200 bytes to 2 kB.
_STEPS = 100_000
_LEAST_COUNT = re.compile(r"(.?)\{([0-9]+)(?:,[0-9]*)?\}", re.DOTALL)
# What such a count may repeat is more than one character, or unclear.
_AFTER_MORE = frozenset(")}?*+ \t\n\r\f\v\0")
# Blanks and comments may stand anywhere in such a pattern, within a count too.
_VERBOSE = re.compile(r"\(\?[A-Za-z0-9-]*x")
_DIGIT = re.compile(r"[0-9]")
# (?R), (?1), (?+1), (?&name) and (?P>name): without end they take a gigabyte.
_CALLS_ITSELF = re.compile(r"(?<!\\)(?:\\\\)*\(\?(?:R|[+-]?\d|&|P>)")


def compile_pattern(
    text: str, *, field: str, lines: bool = False
) -> regex.Pattern[str]:
    """Return the regular expression that `text` is; may take long.

    Args:
        text: The pattern.
        field: Which field it came in, for errors.
        lines: `^` and `$` are the ends of every line.

    Raises:
        InputError: it is none, too long a one, or one that would take much memory.
    """
    if len(text) > _PATTERN_CHARS:
        raise InputError(
            field, f"the pattern has more than {_PATTERN_CHARS:,} characters"
        )
    if _steps(text) > _STEPS:
        raise InputError(
            field,
            "the pattern repeats too much: all its parts with their counts come to"
            f" more than {_STEPS:,}",
            hint="give smaller counts in braces, or * and + in their place",
        )
    if _CALLS_ITSELF.search(text):
        raise InputError(
            field,
            "the pattern has a part that calls a part, which is not supported",
            hint="write the part out, without (?R), (?1), (?&name) and the like",
        )
    try:
        return regex.compile(text, regex.MULTILINE if lines else 0)
    except (regex.error, ValueError, OverflowError, RecursionError) as error:
        raise InputError(
            field,
            f"no valid regular expression: {error}",
            hint="put a backslash before ( ) [ ] { } . * + ? ^ $ | to find it as it is",
        ) from error


def _steps(text: str) -> int:
    """Return at most how many steps it has: never fewer, often more than there are."""
    if _VERBOSE.search(text):
        return int(10 ** len(_DIGIT.findall(text)))
    single, factor = len(text), 1
    for before, least in _LEAST_COUNT.findall(text):
        count = max(1, int(least))
        if not before or before in _AFTER_MORE:
            factor *= count
        else:
            # a set of characters takes room for each of them
            single += count * (len(text) if before == "]" else 1)
    return single * factor


class Pattern:
    """What is looked for in a text of several lines, within a time for each look.

    Making one and searching may take long: both belong into a thread.
    """

    def __init__(self, text: str, *, field: str, seconds: float) -> None:
        """Check `text`.

        Raises:
            InputError: it is no regular expression, or too long a one.
        """
        self._compiled = compile_pattern(text, field=field, lines=True)
        self._field = field
        self._seconds = seconds

    def search(self, text: str) -> tuple[int, int] | None:
        """Return where the first match in `text` begins and ends.

        Raises:
            InputError: the pattern is too slow.
        """
        try:
            match = self._compiled.search(text, timeout=self._seconds, concurrent=True)
        except TimeoutError:
            raise InputError(
                self._field, "the pattern is too slow", hint=SLOW_HINT
            ) from None
        return match.span() if match else None
