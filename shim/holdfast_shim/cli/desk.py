"""The terminal where a person is asked: prompts and hidden typing, always undone.

It is the controlling terminal, as with ssh, so that output may go elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import termios
from typing import TYPE_CHECKING, Any, Self

from holdfast_shim.cli.output import plain
from holdfast_shim.cli.streams import Reader
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import Generator

_LOCAL_FLAGS = 3


class Desk:
    """A person at the controlling terminal, if there is one."""

    def __init__(self) -> None:
        try:
            self._terminal: int | None = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        except OSError:
            self._terminal = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            os.close(terminal)

    @property
    def there(self) -> bool:
        """Somebody can be asked."""
        return self._terminal is not None

    def say(self, text: str) -> None:
        """Show a text; what a terminal would act on becomes visible."""
        print(plain(text, lines=True), file=sys.stderr, flush=True)

    async def ask(self, prompt: str, *, echo: bool) -> str:
        """Return the line that is typed, unseen without `echo`.

        Raises:
            CallError: The person ends the input instead.
        """
        terminal = self._terminal
        assert terminal is not None  # noqa: S101 - `there` was asked before
        while True:
            with _hidden(terminal, hidden=not echo):
                # After the echo is off: what is typed at once must not be seen.
                os.write(terminal, plain(prompt).encode())
                line = await _line(terminal)
                if not echo:
                    os.write(terminal, b"\n")
            if not line:
                raise CallError(
                    "LOGIN_NEEDED",
                    "the login was given up: the input ended",
                    hint="begin again with `holdfast login`",
                )
            try:
                return line.rstrip(b"\r\n").decode()
            except UnicodeDecodeError:
                self.say("That is not valid UTF-8; type it again.")


async def _line(terminal: int) -> bytes:
    """Read one line, as the terminal hands it over."""
    reader = Reader(terminal)
    try:
        return await reader.read()
    finally:
        reader.close()


@contextlib.contextmanager
def _hidden(terminal: int, *, hidden: bool) -> Generator[None]:
    """Show nothing of what is typed, and have the terminal as it was afterwards."""
    if not hidden:
        yield
        return
    before = termios.tcgetattr(terminal)
    quiet = termios.tcgetattr(terminal)
    quiet[_LOCAL_FLAGS] &= ~(termios.ECHO | termios.ECHONL)
    loop = asyncio.get_running_loop()

    def rest() -> None:
        """Stop, as Ctrl-Z asks, with the terminal as it was until we go on."""
        loop.remove_signal_handler(signal.SIGTSTP)
        _set(terminal, before)
        signal.raise_signal(signal.SIGTSTP)
        _set(terminal, quiet)
        loop.add_signal_handler(signal.SIGTSTP, rest)

    if signal.getsignal(signal.SIGTSTP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGTSTP, rest)
    # With the flush what was typed ahead, seen, is no answer.
    termios.tcsetattr(terminal, termios.TCSAFLUSH, quiet)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTSTP)
        _set(terminal, before)


def _set(terminal: int, mode: list[Any]) -> None:
    with contextlib.suppress(termios.error):  # the terminal is gone
        termios.tcsetattr(terminal, termios.TCSADRAIN, mode)
