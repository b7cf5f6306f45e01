"""SSH servers of systems without a POSIX shell: Windows, network gear.

What they say is copied from the real ones: cmd.exe, Windows PowerShell 5.1, IOS, JunOS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import asyncssh
from asyncssh.packet import UInt32

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asyncssh import SSHKey, SSHServerChannel

LOOPBACK = "127.0.0.1"


async def broken_off(open_ones: Sequence[asyncssh.SSHServerConnection]) -> None:
    """End connections at once, and return when they have ended."""
    for connection in open_ones:
        connection.abort()
    for connection in open_ones:
        await connection.wait_closed()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a host answers to one command.

    Attributes:
        code: Its exit status; None: it tells none.
        stays: It never ends.
    """

    out: bytes = b""
    err: bytes = b""
    code: int | None = 0
    stays: bool = False


def cmd(line: str) -> Reply:
    """Answer as cmd.exe does."""
    verb, _, rest = line.partition(" ")
    if verb == "echo":
        return Reply(f"{rest}\r\n".encode("cp437"))
    if verb == "exit":
        return Reply(code=int(rest) % (1 << 32))
    if verb == "wsl":  # speaks UTF-16 wherever its output goes
        return Reply("Ubuntu läuft\r\nDebian\r\n".encode("utf-16-le"))
    if verb == "ping":
        return Reply(b"Pinging\r\n", stays=True)
    said = (
        f"'{verb}' is not recognized as an internal or external command,\r\n"
        "operable program or batch file.\r\n"
    )
    return Reply(err=said.encode(), code=1)


def german_cmd(line: str) -> Reply:
    """Answer as cmd.exe of a German Windows does, in its code page."""
    if line.startswith("echo"):
        return cmd(line)
    said = (
        'Der Befehl "printf" ist entweder falsch geschrieben oder\r\n'
        "konnte nicht gefunden werden. Überprüfen Sie ihn.\r\n"
    )
    return Reply(err=said.encode("cp850"), code=1)


def powershell(line: str) -> Reply:
    """Answer as Windows PowerShell does."""
    verb, _, rest = line.partition(" ")
    if verb == "Write-Output":
        return Reply(f"{rest}\r\n".encode())
    if verb == "exit":
        return Reply(code=int(rest) % (1 << 32))
    said = (
        f"{verb} : The term '{verb}' is not recognized as the name of a cmdlet,"
        " function, script file, or operable program.\r\n"
        f"At line:1 char:1\r\n+ {line[:60]}\r\n+ ~~~~~~\r\n"
        f"    + CategoryInfo          : ObjectNotFound: ({verb}:String) [],"
        " CommandNotFoundException\r\n"
        "    + FullyQualifiedErrorId : CommandNotFoundException\r\n \r\n"
    )
    return Reply(err=said.encode(), code=1)


def ios(line: str) -> Reply:
    """Answer as IOS does: no status, everything on one stream."""
    if line == "show version":
        return Reply(b"\r\nCisco IOS Software, Version 15.2\r\n", code=None)
    return Reply(
        b'\r\nLine has invalid autocommand "%s"' % line.encode()
        if line.startswith("reload")
        else b"         ^\r\n% Invalid input detected at '^' marker.\r\n",
        code=None,
    )


def junos(line: str) -> Reply:
    """Answer as JunOS does."""
    if line == "show version":
        return Reply(b"Hostname: edge\nModel: mx240\n")
    return Reply(err=b"error: unknown command: printf\nunknown command.\n", code=1)


@dataclass
class ForeignHost:
    """One such server; anybody may log in.

    Attributes:
        version: What it calls itself.
        once: It ends the connection with its first command.
        commands: It runs commands; else it only has an interactive login.
        logins: How often somebody logged in.
        asked: Every command it was sent.
    """

    speak: Callable[[str], Reply]
    version: str = "OpenSSH_for_Windows_9.5"
    once: bool = False
    commands: bool = True
    logins: int = 0
    asked: list[str] = field(default_factory=list[str])
    port: int = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.open: list[asyncssh.SSHServerConnection] = []
        self._server = await asyncssh.create_server(
            lambda: _Login(self),
            LOOPBACK,
            self.port,
            server_host_keys=[self.key],
            server_version=self.version,
            encoding=None,
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        self._server.close()
        await self._server.wait_closed()
        await broken_off(self.open)

    @property
    def probes(self) -> int:
        """How often it was asked what it is."""
        return sum(bool(re.match(r"printf 'holdfast:", line)) for line in self.asked)

    def client_files(self, directory: Path, alias: str = "box") -> Path:
        """Write known_hosts and an ssh configuration that knows it as `alias`."""
        return client_files(directory, self.key, self.port, alias)


def client_files(directory: Path, key: SSHKey, port: int, alias: str = "box") -> Path:
    """Write known_hosts and a configuration for a server that asks for no login."""
    directory.mkdir(parents=True, exist_ok=True)
    known = directory / "known_hosts"
    public = key.export_public_key().decode().strip()
    known.write_text(f"[{LOOPBACK}]:{port} {public}\n")
    config = directory / "config"
    config.write_text(
        f"Host {alias}\n  HostName {LOOPBACK}\n  Port {port}\n  User admin\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
        "  IdentityFile none\n  IdentityAgent none\n"
    )
    return config


class _Login(asyncssh.SSHServer):
    def __init__(self, host: ForeignHost) -> None:
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn
        self._host.open.append(conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        self._host.logins += 1
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return _Command(self._host, self._connection)


class _Command(asyncssh.SSHServerSession[bytes]):
    def __init__(
        self, host: ForeignHost, connection: asyncssh.SSHServerConnection
    ) -> None:
        self._host = host
        self._connection = connection
        self._line = ""

    def connection_made(self, chan: SSHServerChannel[bytes]) -> None:
        self._channel = chan

    def shell_requested(self) -> bool:
        return True

    def exec_requested(self, command: str) -> bool:
        self._line = command
        self._host.asked.append(command)
        return self._host.commands

    def eof_received(self) -> bool:
        # Not before: what a client still sends would be answered by a reset, which
        # costs it what it has not read yet.
        self._answer()
        return True

    def _answer(self) -> None:
        reply = self._host.speak(self._line)
        self._channel.write(reply.out)
        self._channel.write_stderr(reply.err)
        if reply.stays:
            return
        if reply.code is not None:
            # the library's own way has room for eight bits only
            tell = self._channel._send_request  # pyright: ignore[reportPrivateUsage]
            tell(b"exit-status", UInt32(reply.code))
        self._channel.close()
        if self._host.once:
            self._connection.close()
