"""How often our own disk is asked again once it took no more.

The host keeps what is not safe here for so long.
"""

from __future__ import annotations

import random

from holdfast_daemon.connection.state import Backoff

_FIRST_SECONDS = 0.5
_MOST_SECONDS = 15.0


def pauses() -> Backoff:
    """Return the pauses between two attempts to have everything on disk."""
    return Backoff(_FIRST_SECONDS, _MOST_SECONDS, random.random)
