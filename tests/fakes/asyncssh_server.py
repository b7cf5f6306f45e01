"""SSH and TCP servers that do on request what a real sshd will not."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Literal, Self

import asyncssh
from asyncssh.packet import UInt32

from fakes.foreign_host import broken_off
from holdfast_daemon.hosts.host import Host

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
    from pathlib import Path

    from asyncssh import SSHKey, SSHServerProcess

LOOPBACK = "127.0.0.1"
USER = "somebody"
Prompts = list[tuple[str, bool]]
Cut = Literal["", "login", "channel", "command"]


class Odd:
    """An asyncssh server with odd habits.

    Commands are words of a small language, one per behaviour: `exit N`, `signal NAME`,
    `print TEXT`, `nothing` (ends without a status), `hang`, `cut` (cuts the connection
    after some output and the end of its input), `cat`, `status N` (tells exit status N
    and stays open) and `status-eof N` (so too, but ends its output). The shell probe is
    answered as a POSIX shell would where `posix` is set.

    Attributes:
        cut: Where it cuts every connection: right after the login, when a channel is
            asked for, or when a command is; empty for nowhere.
        probes: How often the shell probe was asked.
        logins: Names that logged in, in order.
        attempts: Passwords offered, in order.
        opened: How many channels were asked for.
    """

    def __init__(
        self,
        *,
        password: str = "",
        prompts: Prompts | None = None,
        answers: Sequence[str] = (),
        refuse_channels: bool = False,
        open_channels: bool = True,
        host_key: SSHKey | None = None,
        port: int = 0,
        cut: Cut = "",
        posix: bool = False,
    ) -> None:
        self.password = password
        self.prompts = prompts
        self.answers = list(answers)
        self.refuse_channels = refuse_channels
        self.open_channels = open_channels
        self.host_key = host_key or asyncssh.generate_private_key("ssh-ed25519")
        self.port = port
        self.cut: Cut = cut
        self.posix = posix
        self.probes = 0
        self.logins: list[str] = []
        self.attempts: list[str] = []
        self.opened = 0
        self.connections: list[asyncssh.SSHServerConnection] = []
        self._never = asyncio.Event()
        self._server: asyncssh.SSHAcceptor | None = None

    async def __aenter__(self) -> Self:
        """Listen."""
        # With a process factory the library never asks whether to open a channel.
        plain = self.open_channels and not self.refuse_channels
        plain = plain and self.cut != "channel"
        self._server = await asyncssh.create_server(
            lambda: _Server(self),
            LOOPBACK,
            self.port,
            server_host_keys=[self.host_key],
            process_factory=self._run if plain else None,
            encoding=None,
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        self._never.set()
        await broken_off(self.connections)

    @property
    def known_hosts(self) -> str:
        """Its line of known_hosts."""
        key = self.host_key.export_public_key().decode().strip()
        return f"[{LOOPBACK}]:{self.port} {key}\n"

    def host(self, known_hosts: Path, **more: object) -> Host:
        """A `Host` that reaches it; writes its key to `known_hosts`."""
        known_hosts.write_text(self.known_hosts)
        fields: dict[str, object] = {
            "name": "odd",
            "hostname": LOOPBACK,
            "port": self.port,
            "user": USER,
            "identity_agent": "none",
            "user_known_hosts": (str(known_hosts),),
            **more,
        }
        return Host(**fields)  # type: ignore[arg-type]  # tests name any field

    async def _run(self, process: SSHServerProcess[bytes]) -> None:
        verb, _, rest = (process.command or "").partition(" ")
        if self.cut == "command":
            process.get_extra_info("connection").abort()
            return
        if verb == "printf":
            self.probes += 1
            if self.posix:
                await self._answer_probe(process)
                return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await self._do(process, verb, rest)

    async def _do(self, process: SSHServerProcess[bytes], verb: str, rest: str) -> None:
        if verb == "exit":
            process.exit(int(rest))
        elif verb == "signal":
            process.exit_with_signal(rest)
        elif verb == "print":
            process.stdout.write(rest.encode())
            process.exit(0)
        elif verb == "nothing":
            process.close()
        elif verb == "hang":
            await self._never.wait()
        elif verb == "cut":
            process.stdout.write(b"before the cut")
            await process.stdout.drain()
            # Its input has ended: so the client knows by now that it was started.
            await process.stdin.read()
            process.get_extra_info("connection").abort()
        elif verb in ("status", "status-eof"):
            await self._tell_status(process, int(rest), end=verb == "status-eof")
        elif verb == "cat":
            async for line in process.stdin:
                process.stdout.write(line)
            process.exit(0)
        else:
            process.stderr.write(b"unknown command\r\n")
            process.exit(1)

    async def _tell_status(
        self, process: SSHServerProcess[bytes], status: int, *, end: bool
    ) -> None:
        process.stdout.write(b"some output")
        await process.stdout.drain()
        if end:
            process.stdout.write_eof()
        # the library has no public way to tell a status and stay open
        tell = process.channel._send_request  # pyright: ignore[reportPrivateUsage]
        tell(b"exit-status", UInt32(status))
        await self._never.wait()

    async def _answer_probe(self, process: SSHServerProcess[bytes]) -> None:
        shell = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", process.command or "", stdout=asyncio.subprocess.PIPE
        )
        said, _ = await shell.communicate()
        process.stdout.write(said)
        process.exit(0)

    async def never(self) -> bool:
        """Wait until the server ends."""
        return await self._never.wait()


class _Server(asyncssh.SSHServer):
    def __init__(self, odd: Odd) -> None:
        self._odd = odd

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._odd.connections.append(conn)

    def auth_completed(self) -> None:
        if self._odd.cut == "login":
            self._connection.abort()

    def begin_auth(self, username: str) -> bool:
        if not self._odd.password and self._odd.prompts is None:
            self._odd.logins.append(username)
            return False
        return True

    def password_auth_supported(self) -> bool:
        return bool(self._odd.password)

    def validate_password(self, username: str, password: str) -> bool:
        self._odd.attempts.append(password)
        good = password == self._odd.password
        if good:
            self._odd.logins.append(username)
        return good

    def kbdint_auth_supported(self) -> bool:
        return self._odd.prompts is not None

    def get_kbdint_challenge(
        self,
        username: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
        submethods: str,  # noqa: ARG002
    ) -> tuple[str, str, str, Prompts] | bool:
        if self._odd.prompts is None:
            return False
        return "", "", "", self._odd.prompts

    def validate_kbdint_response(self, username: str, responses: Sequence[str]) -> bool:
        self._odd.attempts += responses
        good = list(responses) == self._odd.answers
        if good:
            self._odd.logins.append(username)
        return good

    def session_requested(self) -> bool | Awaitable[bool]:
        self._odd.opened += 1
        if self._odd.cut == "channel":
            self._connection.abort()
            return False
        return False if self._odd.refuse_channels else self._odd.never()


@contextlib.asynccontextmanager
async def raw_server(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncGenerator[int]:
    """Listen on a port of its own and give every connection to `handle`."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            tasks.add(task)
        try:
            await handle(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, LOOPBACK, 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and never say a word."""
    await reader.read()
    await asyncio.Event().wait()


async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept, and close at once."""


async def talk_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer as a web server would."""
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    await writer.drain()
