"""Names of files that have not come whole yet, beside their places. Sans-I/O."""

from __future__ import annotations

import re
import secrets

# What leaves room for the rest of a name.
_KEPT_BYTES = 200
_HALF = 4


def token() -> str:
    """Return what one sync has in all such names, to know its own by."""
    return secrets.token_hex(_HALF)


def drafted(path: bytes, own: str) -> bytes:
    """Return such a name for a file."""
    name, unique = path.rpartition(b"/")[2], own + secrets.token_hex(_HALF)
    return b".%s.%s" % (name[:_KEPT_BYTES], unique.encode())


def is_draft(path: bytes, own: str) -> bool:
    """Say whether the sync of that token made a file of this name."""
    ending = re.escape(own.encode()) + rb"[0-9a-f]{%d}" % (2 * _HALF)
    ending += rb"(\.old)?"  # what one of them was to replace
    name = path.rpartition(b"/")[2]
    return re.fullmatch(rb"\..+\." + ending, name, re.DOTALL) is not None
