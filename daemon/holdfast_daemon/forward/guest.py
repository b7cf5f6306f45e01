"""Who uses a tunnel before, or instead of, one who carries bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.forward import socks

if TYPE_CHECKING:
    from holdfast_daemon.connection.tunnel import Tunnel
    from holdfast_daemon.forward.pipe import Pipe


class Nobody:
    """Uses a tunnel for nothing but to see that it opens."""

    def opened(self, tunnel: Tunnel) -> None:
        """Need nothing of it."""

    def received(self, data: bytes) -> None:
        """Need nothing of it."""

    def ended(self) -> None:
        """Need nothing of it."""

    def hold(self) -> None:
        """Need nothing of it."""

    def go_on(self) -> None:
        """Need nothing of it."""

    def lost(self) -> None:
        """Need nothing of it."""


class Guest:
    """A SOCKS client's end: it is told of the tunnel before anything comes from it."""

    def __init__(self, pipe: Pipe, rest: bytes) -> None:
        self._pipe = pipe
        self._rest = rest
        self.received = pipe.received
        self.ended = pipe.ended
        self.hold = pipe.hold
        self.go_on = pipe.go_on
        self.lost = pipe.lost

    def opened(self, tunnel: Tunnel) -> None:
        """Tell the client, and pass on what it said too early."""
        self._pipe.say(socks.answer(socks.Reply.SUCCEEDED))
        self._pipe.opened(tunnel)
        self._pipe.push(self._rest)
