"""A channel that is open and waits to be told its command.

Opening a channel and naming its command are two round trips (RFC 4254 6.1 and 6.5).
With the first one made ahead of time a command costs one, and nothing else about it
changes: the server starts it as it starts any other. Where a shell may wait on it too,
the host has less to start.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import asyncssh
from asyncssh import SSHClientChannel
from asyncssh.constants import (
    OPEN_CONNECT_FAILED,
    OPEN_REQUEST_PTY_FAILED,
    OPEN_REQUEST_SESSION_FAILED,
)
from asyncssh.packet import SSHPacket, String, UInt32

from holdfast_daemon.connection.standby import Greeting
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from asyncssh import SSHClientConnection

    from holdfast_daemon.connection.channel import Terminal
    from holdfast_daemon.connection.session import Session
    from holdfast_daemon.connection.standby import Purpose

_WINDOW = 2 * 1024 * 1024
# A packet around so much data must stay below the 256 KiB that the library takes, and
# OpenSSH sends as much as it may once we were slow to read.
_PACKET = 255 * 1024
# RFC 4254 8: the end of a list of terminal modes, here an empty one.
_NO_MODES = b"\0"


@dataclass(frozen=True, slots=True)
class Start:
    """What a channel is told to do.

    Attributes:
        command: As the server's login shell gets it; None: the login shell itself.
        waiting: The same for a shell that waits; empty: it can't be told to one.
        purpose: What a channel is, or may have been, prepared for.
        told: What is said on one that is; empty: it can't be told to one.
        terminal: Give it a terminal of this kind and size.
        environment: Variables to ask for; a server takes those its AcceptEnv names.
        stdin: Sent right behind the command.
        eof: Its input ends there.
        agent: Lend it the connection's agent.
    """

    command: bytes | None
    waiting: bytes = b""
    purpose: Purpose | None = None
    told: bytes = b""
    terminal: Terminal | None = None
    environment: Sequence[tuple[str, str]] = ()
    stdin: bytes = b""
    eof: bool = False
    agent: bool = False


class Carried:
    """How many channels a connection carries, and the most it ever did."""

    def __init__(self) -> None:
        self.now = self.peak = 0

    def opened(self) -> None:
        """Count one more."""
        self.now += 1
        self.peak = max(self.peak, self.now)

    def gone(self) -> None:
        """Count one less."""
        self.now -= 1


class Listener:
    """Hears what a shell says before it waits; a sink."""

    def __init__(self, greeting: Greeting) -> None:
        """Have `greeting` read it."""
        self._greeting = greeting
        self.heard = asyncio.Event()

    def received(self, stream: Stream, data: bytes) -> None:
        """Pass it on."""
        self._greeting.received(stream, data)
        if self._greeting.heard:
            self.heard.set()


class _Hearing(asyncssh.SSHClientSession[bytes]):
    """Hands what comes to a listener."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener

    def data_received(self, data: bytes, datatype: int | None) -> None:
        """Pass it on."""
        self._listener.received(Stream.ERR if datatype else Stream.OUT, data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        """Hear no more."""
        self._listener.heard.set()


class Waiting(SSHClientChannel[bytes]):
    """A session channel without a command yet.

    The library opens channels and starts their commands in one step; what is used here
    to take it apart has no public names.
    """

    # A shell waits on it, which is told the command by its input.
    shell = False
    # What it is prepared for: it takes nothing else.
    purpose: Purpose | None = None

    _carried: Carried | None = None

    @classmethod
    async def open(cls, connection: SSHClientConnection, carried: Carried) -> Waiting:
        """Open a channel; not to be cancelled, or the server would keep it for nobody.

        Raises:
            asyncssh.ChannelOpenError: The server opens none.
        """
        loop = asyncio.get_running_loop()
        channel = cls(connection, loop, "strict", None, "strict", _WINDOW, _PACKET)
        await channel._open(b"session")
        # a stand-in until somebody takes it, for what the server may say meanwhile
        channel._session = asyncssh.SSHClientSession[bytes]()
        channel._carried = carried
        carried.opened()
        return channel

    def _cleanup(self, exc: Exception | None = None) -> None:
        carried, self._carried = self._carried, None
        if carried is not None:
            carried.gone()
        super()._cleanup(exc)

    async def greet(self, start: Start, seconds: float, *, look: bool) -> bool:
        """Have a shell wait on it; False where none does. The channel is used up then.

        `start` says what the shell's environment is to be; `look` has it see first
        whether a shell may wait there.

        Raises:
            asyncssh.Error: The connection ended meanwhile.
            TimeoutError: It says nothing.
        """
        greeting = Greeting(look=look)
        listener = Listener(greeting)
        before, self._session = self._session, _Hearing(listener)
        if not await self._run(replace(start, command=greeting.command.encode())):
            return False
        async with asyncio.timeout(seconds):
            await listener.heard.wait()
        self.shell = greeting.waits and self.usable
        if self.shell:
            self._session = before
        return self.shell

    def keep(self) -> None:
        """Have the shell on it wait on, for another session than what it had."""
        self._session = asyncssh.SSHClientSession[bytes]()
        self.shell = True

    async def prepare(self, start: Start, purpose: Purpose) -> bool:
        """Have `start` wait for the command of `purpose`; False: that can't be had.

        Raises:
            asyncssh.Error: The connection ended meanwhile.
        """
        self.purpose = purpose
        return await self._run(start)

    def suits(self, start: Start) -> bool:
        """Whether that can be started here: a waiting shell has no terminal."""
        return not self.shell or (bool(start.waiting) and start.terminal is None)

    @property
    def usable(self) -> bool:
        """Nobody has closed it."""
        return self._send_state == "open" and self._recv_state == "open"

    async def start(self, session: Session, start: Start) -> None:
        """Start a command; its input follows without waiting for the server's answer.

        Raises:
            asyncssh.ChannelOpenError: The server does not do it, or nobody wants it.
            asyncssh.Error: The connection ended meanwhile.
        """
        if not self.usable:
            # nothing was asked of it yet
            raise asyncssh.ChannelOpenError(OPEN_CONNECT_FAILED, "it was closed")
        self._session = session
        session.connection_made(self)
        if self.shell or self.purpose is not None:
            session.waited = self.shell
            self.write(start.waiting if self.purpose is None else start.told)
            self._send_input(start)
            session.session_started()
            return
        if start.terminal is not None:
            await self._give_terminal(start.terminal)
        if not await self._run(start):
            self.close()
            raise asyncssh.ChannelOpenError(
                OPEN_REQUEST_SESSION_FAILED, "the server does not run it"
            )
        session.session_started()

    async def _run(self, start: Start) -> bool:
        """Ask for the command and send its input; True once the server runs it."""
        for name, value in start.environment:
            self._send_request(b"env", String(name), String(value))
        if start.agent:
            self._send_request(b"auth-agent-req@openssh.com")
        if start.command is None:
            answer = self._ask(b"shell")
        else:
            answer = self._ask(b"exec", String(start.command))
        self._send_input(start)
        if not await answer:
            return False
        await self._start_reading()
        return True

    def _send_input(self, start: Start) -> None:
        if start.stdin:
            self.write(start.stdin)
        if start.eof:
            self.write_eof()

    async def _give_terminal(self, terminal: Terminal) -> None:
        size = (terminal.cols, terminal.rows, 0, 0)
        given = await self._ask(
            b"pty-req",
            String(terminal.term),
            *(UInt32(number) for number in size),
            String(_NO_MODES),
        )
        if not given:
            self.close()
            raise asyncssh.ChannelOpenError(
                OPEN_REQUEST_PTY_FAILED, "the server gives it no terminal"
            )

    def _process_exit_status_request(self, packet: SSHPacket) -> bool:
        """Take all of the status: the library takes 8 bits, and Windows has 32."""
        status = packet.get_uint32()
        packet.check_end()
        if self._exit_status is not None or self._exit_signal is not None:
            raise asyncssh.ProtocolError("it ended twice")
        self._exit_status = status
        self._session.exit_status_received(status)
        return True

    def _ask(self, request: bytes, *args: bytes) -> asyncio.Future[bool]:
        answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        if self._send_chan is None:
            answer.set_result(False)
        else:
            self._request_waiters.append(answer)
            self._send_request(request, *args, want_reply=True)
        return answer
