"""`holdfast`: the person's command line, with the same verbs as the tools."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from holdfast_shim.standard import know_home, stand_in

if TYPE_CHECKING:
    from collections.abc import Sequence

# As `options` has it, which is not loaded yet.
_INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        stand_in()
        know_home()
        from holdfast_shim.cli import app  # noqa: PLC0415 - the package alone stays light

        code = app.main(argv)
    except KeyboardInterrupt:  # while it is loaded, or offers words to a shell
        code = _INTERRUPTED
    # What came of it counts, though somebody interrupts once more as Python ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code
