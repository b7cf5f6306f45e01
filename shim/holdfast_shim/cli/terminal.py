"""The person's terminal: its size, raw mode that is always undone, and ssh's `~.`."""

from __future__ import annotations

import contextlib
import os
import signal
import termios
import tty
from typing import TYPE_CHECKING

from holdfast.v1 import exec_pb2

if TYPE_CHECKING:
    from collections.abc import Generator

# What would end us with the terminal left as we set it.
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
_CR, _LF, _TILDE, _DOT = b"\r\n~."


def size() -> exec_pb2.TerminalSize:
    """Return size and type of the terminal, as far as one is there."""
    told = exec_pb2.TerminalSize(term=os.environ.get("TERM", ""))
    for descriptor in (0, 1, 2):
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(descriptor)
            told.cols, told.rows = found.columns, found.lines
            break
    return told


class RawMode:
    """Raw mode of one terminal; entering and leaving twice does nothing."""

    def __init__(self, descriptor: int) -> None:
        """Remember how the terminal is set."""
        self._descriptor = descriptor
        self._before = termios.tcgetattr(descriptor)
        self._raw = False

    def enter(self) -> None:
        """Pass every key on, Ctrl-C included."""
        self._raw = True
        tty.setraw(self._descriptor, termios.TCSADRAIN)

    def again(self) -> None:
        """Set it once more, as after a stop the shell may have changed it."""
        if self._raw:
            self.enter()

    def leave(self) -> None:
        """Set the terminal as it was."""
        if self._raw:
            self._raw = False
            with contextlib.suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._descriptor, termios.TCSADRAIN, self._before)


@contextlib.contextmanager
def raw_mode(descriptor: int, *, wanted: bool) -> Generator[RawMode | None]:
    """Give a raw mode to enter when there is a terminal, and undo it at the end."""
    mode = RawMode(descriptor) if wanted and os.isatty(descriptor) else None
    try:
        yield mode
    finally:
        if mode is not None:
            mode.leave()


class Escape:
    """Finds `~.` at the start of a line, the way out when all hangs. Sans-I/O."""

    def __init__(self) -> None:
        """Begin at the start of a line."""
        self._fresh = True
        self._tilde = False
        self.left = False

    def feed(self, data: bytes) -> bytes:
        """Return what is meant for the host; `left`: the person wants out."""
        passed = bytearray()
        for byte in data:
            if self._tilde:
                self._tilde = False
                if byte == _DOT:
                    self.left = True
                    break
                passed.append(_TILDE)
                if byte == _TILDE:
                    continue
            elif self._fresh and byte == _TILDE:
                self._tilde, self._fresh = True, False
                continue
            passed.append(byte)
            self._fresh = byte in (_CR, _LF)
        return bytes(passed)
