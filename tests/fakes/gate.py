"""A place where commands on this machine wait without a sound until a test opens it."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Gate:
    """A FIFO: who reads from it waits until somebody opens it for writing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        os.mkfifo(path)

    @property
    def wait(self) -> str:
        """Shell words that wait here."""
        return f"read -r _ < {self.path}"

    def leave_open(self) -> None:
        """Let all go, also those who come later: each takes a line."""
        self._kept = os.open(self.path, os.O_RDWR)
        os.write(self._kept, b"\n" * 1000)

    def open(self) -> None:
        """Let all go who wait now; whoever comes later waits."""
        with contextlib.suppress(OSError):  # nobody waits
            os.close(os.open(self.path, os.O_WRONLY | os.O_NONBLOCK))
