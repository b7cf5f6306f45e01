"""What a channel is to those who run commands on it; knows no SSH library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from holdfast_daemon.streams import Stream


class Sink(Protocol):
    """Takes the output of one channel as it comes."""

    def received(self, stream: Stream, data: bytes) -> None:
        """Take `data`; must neither block nor raise."""
        ...


@dataclass(frozen=True, slots=True)
class Terminal:
    """The terminal a command gets."""

    term: str = "xterm-256color"
    cols: int = 80
    rows: int = 24


@dataclass(frozen=True, slots=True)
class ChannelEnd:
    """How a channel ended: exactly one is set, and absence of a status is never 0.

    Attributes:
        exit_code: What the command returned.
        signal: What ended it, without SIG.
        lost: Why its outcome is not known.
        warning: What is to be said beside the outcome; empty where nothing is.
    """

    exit_code: int | None = None
    signal: str | None = None
    lost: str | None = None
    warning: str = ""

    def __post_init__(self) -> None:
        """Hold the one rule of this class."""
        told = [self.exit_code, self.signal, self.lost]
        if sum(item is not None for item in told) != 1:
            raise ValueError(f"a channel ends in exactly one way, not {told}")


class Channel(Protocol):
    """One command on a host.

    Attributes:
        waited: It was told to a shell that had waited for it: until that has said that
            it begins, how the channel ends says nothing of the command.
    """

    waited: bool

    async def write(self, data: bytes) -> None:
        """Send `data` to its stdin, waiting while the host takes no more.

        Raises:
            BrokenPipeError: It takes no input any more.
        """
        ...

    def eof(self) -> None:
        """End its stdin; nothing happens when it is ended already."""
        ...

    def signal(self, name: str) -> None:
        """Ask the server to send signal `name` (no SIG); many servers ignore it."""
        ...

    def resize(self, cols: int, rows: int) -> None:
        """Tell the terminal's new size."""
        ...

    def pause(self) -> None:
        """Stop reading; the host then waits once its window is full."""
        ...

    def resume(self) -> None:
        """Read on."""
        ...

    def close(self) -> None:
        """Close it; unread output is dropped."""
        ...

    async def exited(self) -> None:
        """Wait until the command's outcome is known.

        The channel may stay open after it: what the command left in the background
        keeps its output open.
        """
        ...

    async def ended(self) -> ChannelEnd:
        """Wait for its end, which comes after all of its output was delivered."""
        ...
