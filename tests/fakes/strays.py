"""Processes that hold on to a test's directory, whoever started them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

_LOOK_SECONDS = 0.02


def naming(directory: Path) -> dict[int, str]:
    """Return those whose words or environment name a place in `directory`.

    Forks of the nursery name none: whoever started them holds them. Where there is no
    /proc, nothing is known of anybody.
    """
    name, found = os.fsencode(directory) + b"/", dict[int, str]()
    for process in Path("/proc").glob("[0-9]*"):
        # it ended just now, or it is another user's
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes()
            if name in words or name in (process / "environ").read_bytes():
                found[int(process.name)] = words.replace(b"\0", b" ").decode()
    found.pop(os.getpid(), None)
    return found


def none_left(directory: Path, seconds: float) -> None:
    """Fail unless everybody who names `directory` ends in time; end who does not."""
    limit = time.monotonic() + seconds
    while left := naming(directory):
        if time.monotonic() > limit:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"left in {directory}: {left}")
        time.sleep(_LOOK_SECONDS)


def ended(pid: int, directory: Path, seconds: float) -> None:
    """Wait until `pid`, which names `directory`, has ended."""
    limit = time.monotonic() + seconds
    while pid in naming(directory):
        assert time.monotonic() < limit, f"{pid} does not end"
        time.sleep(_LOOK_SECONDS)
