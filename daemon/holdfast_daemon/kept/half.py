"""Whether a line was begun in a shell's terminal, and not ended. Pure.

Who types a line of ours behind it would press Enter for somebody else.
"""

from __future__ import annotations

from typing import Literal

Half = Literal["none", "half", "perhaps"]

# After these a shell waits for a line that is still empty.
_WHOLE = (b"\n", b"\r", b"\x03")
# Goes to the end of a line and takes it away, in line editors and without one.
CLEAR = b"\x05\x15"


def after(data: bytes, before: Half) -> Half:
    """Return how a line stands once `data` was typed."""
    if not data:
        return before
    return "none" if data.endswith(_WHOLE) else "half"
