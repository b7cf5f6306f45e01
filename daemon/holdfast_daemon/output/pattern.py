"""A regular expression from outside: checked, and never longer at work than allowed."""

from __future__ import annotations

import regex

from holdfast_daemon.errors import InputError

SLOW_HINT = "avoid nested repeats such as (a+)+, or search for plain words"
_PATTERN_CHARS = 1000


def compile_pattern(
    text: str, *, field: str, lines: bool = False
) -> regex.Pattern[str]:
    """Return the regular expression that `text` is; may take long.

    Args:
        text: The pattern.
        field: Which field it came in, for errors.
        lines: `^` and `$` are the ends of every line.

    Raises:
        InputError: it is none, or too long a one.
    """
    if len(text) > _PATTERN_CHARS:
        raise InputError(
            field, f"the pattern has more than {_PATTERN_CHARS:,} characters"
        )
    try:
        return regex.compile(text, regex.MULTILINE if lines else 0)
    except (regex.error, OverflowError, RecursionError) as error:
        raise InputError(
            field,
            f"no valid regular expression: {error}",
            hint="put a backslash before ( ) [ ] { } . * + ? ^ $ | to find it as it is",
        ) from error


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
