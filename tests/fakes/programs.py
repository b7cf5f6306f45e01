"""Programs that want a terminal, run at a real one and shown by the daemon's screen."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from typing import TYPE_CHECKING, Self

from holdfast_daemon.output.screen import Picture, Screen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

_SECONDS = 45.0

# A question in a box on the alternate screen, answered by arrows and Enter.
DIALOG = """
old=$(stty -g)
trap 'stty "$old"; printf "\\033[?25h\\033[?1049l"' EXIT
stty -icanon -echo
printf '\\033[?1049h\\033[?25l\\033[2J'
at=1
while :; do
  printf '\\033[5;10H\\033(0lqqqqqqqqqqqqqqqqqqk\\033(B'
  printf '\\033[6;10H\\033(0x\\033(B Delete the file? \\033(0x\\033(B'
  printf '\\033[7;10H\\033(0mqqqqqqqqqqqqqqqqqqj\\033(B'
  if [ $at = 1 ]; then printf '\\033[9;12H[No]  Yes '; fi
  if [ $at = 2 ]; then printf '\\033[9;12H No  [Yes]'; fi
  key=$(dd bs=1 count=1 2>/dev/null | od -An -tx1 | tr -d ' ')
  case $key in
    43) at=2 ;;  44) at=1 ;;
    0a|0d|'') break ;;
  esac
done
printf '\\033[?1049l'
echo "answer: $at"
"""


class Program:
    """A program, what it printed, and the screen it made."""

    def __init__(self, *words: str, cols: int = 80, rows: int = 24) -> None:
        self._words = words
        self._size = (cols, rows)
        self.screen = Screen(cols, rows)
        self.printed = b""
        self._ours = -1
        self._pid = 0

    def start(self, env: Mapping[str, str], directory: Path) -> Self:
        """Start it with a terminal of its own."""
        self._ours, theirs = pty.openpty()
        # Before it starts: one that looks first and listens for changes later would
        # keep the size it found.
        self._set_size()
        self._pid = os.fork()
        if not self._pid:
            with contextlib.suppress(OSError):
                os.login_tty(theirs)
                os.chdir(directory)
                os.execvpe(self._words[0], self._words, dict(env))
            os._exit(127)
        os.close(theirs)
        os.set_blocking(self._ours, False)
        return self

    def _set_size(self) -> None:
        cols, rows = self._size
        size = struct.pack("HHHH", rows, cols, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    def resize(self, cols: int, rows: int) -> None:
        """Give it another size."""
        self._size = (cols, rows)
        self.screen.resize(cols, rows)
        self._set_size()

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._ours, keys.encode())

    async def shows(self, what: Callable[[Picture], object]) -> Picture:
        """Return the screen once `what` is true of it."""
        async with asyncio.timeout(_SECONDS):
            while not what(picture := self.screen.picture()):
                await self._read()
        return picture

    async def prints(self, data: bytes) -> None:
        """Return once it has printed `data`."""
        await self.shows(lambda _: data in self.printed)

    async def ended(self) -> None:
        """Return once it prints no more."""
        async with asyncio.timeout(_SECONDS):
            while await self._read():
                pass

    async def _read(self) -> bool:
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._ours, ready.set)
        try:
            await ready.wait()
            data = os.read(self._ours, 4096)
        except OSError:
            return False
        finally:
            loop.remove_reader(self._ours)
        self.printed += data
        self.screen.feed(data)
        if answers := self.screen.take_answers():
            os.write(self._ours, answers)
        return bool(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)
        os.close(self._ours)
        os.waitpid(self._pid, 0)
