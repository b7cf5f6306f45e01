"""Named places where a test has the daemon die, to see what becomes of the rest.

A daemon that is started with HOLDFAST_FAILPOINT=NAME and HOLDFAST_TESTING=1 kills
itself with SIGKILL when it gets to the place of that name, as a crash would. It can do
no more than that: whoever sets a daemon's environment may kill it anyway.
"""

from __future__ import annotations

import os
import signal

# looked up once: a place that nobody asked for costs one comparison
_FATAL = (
    os.environ.get("HOLDFAST_FAILPOINT", "")
    if os.environ.get("HOLDFAST_TESTING") == "1"
    else ""
)


def reach(place: str) -> None:
    """Die here, if this is the place."""
    if place == _FATAL:
        os.kill(os.getpid(), signal.SIGKILL)
