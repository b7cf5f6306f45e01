"""What a terminal sends by itself, told from what a person types. Sans-I/O.

Several terminals show one session, and each of them answers what a program asks of its
terminal. Only the answers of the one who has the keyboard are meant for the program.
"""

from __future__ import annotations

import re

_REPORT = re.compile(
    rb"\x1b\[[?>=][0-9;]*\$?[a-zA-Z]"  # what it is, which modes it has
    rb"|\x1b\[[0-9;]+[Rnt]"  # where the cursor is, how it does, its size
    rb"|\x1b\[[IO]"  # somebody looks at it, or away
    rb"|\x1b[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)"  # colours, settings
)


def typed(data: bytes) -> bytes:
    """Return `data` without what the terminal sent by itself."""
    return _REPORT.sub(b"", data) if b"\x1b" in data else data
