"""What tells the parts of this daemon's copies from those of another daemon's.

Two people, or two machines that build the same, may copy to one place from paths of the
same names: who shared their parts would put what the other is just writing.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_log = logging.getLogger(__name__)

_SHAPE = re.compile(r"[0-9a-f]{32}")


class Signature:
    """Chosen once, and kept: the same copy goes on from its parts after a restart."""

    def __init__(self, path: Path) -> None:
        """Keep it in `path`, which is not looked at before it is asked for."""
        self._path = path
        self._found = ""

    def __call__(self) -> str:
        """Return it; where it can't be kept it holds until the daemon ends."""
        if not self._found:
            try:
                self._found = self._read() or self._make()
            except OSError as error:
                _log.warning("the signature of copies can't be kept: %s", error)
                self._found = secrets.token_hex(16)
        return self._found

    def _read(self) -> str:
        try:
            told = self._path.read_text(encoding="ascii", errors="replace").strip()
        except FileNotFoundError:
            return ""
        return told if _SHAPE.fullmatch(told) else ""

    def _make(self) -> str:
        made = secrets.token_hex(16)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w", encoding="ascii") as writing:
            writing.write(f"{made}\n")
            writing.flush()
            os.fsync(writing.fileno())
        fresh.rename(self._path)
        return made
