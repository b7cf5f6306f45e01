"""An SSH server that asks for several things in turn, as sshd with PAM would.

A real sshd asks a person only by the machine's own PAM service and accounts, which no
test may touch; so this one stands in for it where questions are the point.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import asyncssh

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from asyncssh import SSHKey, SSHServerConnection

_SFTP_VERSION = 3
LOOPBACK = "127.0.0.1"
USER = "somebody"


def key_in(file: Path) -> SSHKey:
    """Write a new private key; return its public half."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(file))
    file.chmod(0o600)
    return key.convert_to_public()


@dataclass(frozen=True)
class Round:
    """One round of keyboard-interactive: what is asked, and what is right."""

    prompts: Sequence[tuple[str, bool]]
    answers: Sequence[str]
    name: str = ""
    instructions: str = ""


@dataclass(frozen=True)
class Step:
    """What lets in, or a step further: any one of these.

    Attributes:
        keys: Public keys it takes.
        password: The password it takes; empty: it takes none.
        rounds: Rounds of questions, all of which must be answered rightly.
    """

    keys: Sequence[SSHKey] = ()
    password: str = ""
    rounds: Sequence[Round] = ()


@dataclass
class Seen:
    """What happened at the server.

    Attributes:
        connections: How many there were.
        logins: How many got in.
        asked: How often a round of questions was begun.
        refused: How many channels were one too many.
        attempts: Passwords and answers that came, in order.
        offered: Keys that were offered, in order.
    """

    connections: int = 0
    logins: int = 0
    asked: int = 0
    refused: int = 0
    attempts: list[str] = field(default_factory=list[str])
    offered: list[str] = field(default_factory=list[str])


class Asking:
    """Lets in whoever does all `steps`; commands run by this machine's /bin/sh."""

    def __init__(
        self,
        *steps: Step,
        banner: str = "",
        expired: str = "",
        grace: float = 120.0,
        most_channels: int = 10,
    ) -> None:
        """Prepare.

        Args:
            steps: What is to be done, in turn.
            banner: Said to all before anything is asked.
            expired: The password is taken only with a new one, asked for by this text.
            grace: How long a login may take.
            most_channels: sshd's MaxSessions.
        """
        self.steps = steps
        self.banner = banner
        self.expired = expired
        self.grace = grace
        self.most_channels = most_channels
        self.seen = Seen()
        self.port = 0
        self.host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.changed = asyncio.Condition()
        self.connections: set[SSHServerConnection] = set()
        self._server: asyncssh.SSHAcceptor | None = None
        self._commands: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen."""
        self._server = await asyncssh.create_server(
            lambda: _Server(self),
            LOOPBACK,
            self.port,
            # no process factory: with one the library never asks about a channel
            server_host_keys=[self.host_key],
            encoding=None,
            login_timeout=self.grace,
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
        await self.cut()
        commands = list(self._commands)
        for command in commands:
            command.cancel()
        await asyncio.gather(*commands, return_exceptions=True)

    async def command(self, process: asyncssh.SSHServerProcess[bytes]) -> None:
        """Run what was asked for, until the server ends."""
        task = asyncio.create_task(_run(process))
        self._commands.add(task)
        task.add_done_callback(self._commands.discard)
        await task

    async def cut(self) -> None:
        """End every connection."""
        for connection in list(self.connections):
            connection.abort()
            await connection.wait_closed()

    def config(self, directory: Path, alias: str = "web1", extra: str = "") -> Path:
        """Write an ssh configuration that knows it as `alias`; return its path."""
        known = directory / f"known_hosts_{alias}"
        key = self.host_key.export_public_key().decode().strip()
        known.write_text(f"[{LOOPBACK}]:{self.port} {key}\n")
        file = directory / f"ssh_config_{alias}"
        file.write_text(
            f"Host {alias}\n  HostName {LOOPBACK}\n  Port {self.port}\n  User {USER}\n"
            f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile none\n"
            + (extra or "  IdentityFile none\n")
        )
        return file

    async def until(self, what: str, count: int) -> None:
        """Wait, bounded, until so many of a number in `seen` came."""
        async with asyncio.timeout(40), self.changed:
            await self.changed.wait_for(lambda: self.count(what) >= count)

    def count(self, what: str) -> int:
        """Return a number of `seen`, or the length of one of its lists."""
        value = getattr(self.seen, what)
        return len(value) if isinstance(value, list) else int(value)

    def tell(self) -> None:
        """Wake who waits for something to be seen."""

        async def notify() -> None:
            async with self.changed:
                self.changed.notify_all()

        self._told = asyncio.ensure_future(notify())


class _Process(asyncssh.SSHServerProcess[bytes]):
    """One channel, which tells its end."""

    def __init__(self, asking: Asking, ended: Callable[[], None]) -> None:
        super().__init__(asking.command, None, _SFTP_VERSION, allow_scp=False)
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended()


class _Server(asyncssh.SSHServer):
    """One connection: where it stands in the steps."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking
        self._done = 0
        self._round = 0
        self._channels = 0

    @property
    def _step(self) -> Step:
        return self._asking.steps[min(self._done, len(self._asking.steps) - 1)]

    def connection_made(self, conn: SSHServerConnection) -> None:
        self._asking.seen.connections += 1
        self._asking.connections.add(conn)
        self._conn = conn
        succeed = conn.send_userauth_success

        async def one_step_further() -> None:
            self._done += 1
            self._round = 0
            if self._done < len(self._asking.steps):
                conn.send_userauth_failure(True)
                return
            self._asking.seen.logins += 1
            self._asking.tell()
            await succeed()

        # The library's server knows no steps: a success of each is told as a partial
        # one but for the last.
        setattr(conn, "send_userauth_success", one_step_further)  # noqa: B010

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._asking.connections.discard(self._conn)

    def session_requested(self) -> bool | _Process:
        if self._channels >= self._asking.most_channels:
            self._asking.seen.refused += 1
            self._asking.tell()
            return False
        self._channels += 1
        return _Process(self._asking, self._channel_ended)

    def _channel_ended(self) -> None:
        self._channels -= 1

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        if self._asking.banner:
            self._conn.send_auth_banner(self._asking.banner)
        return True

    def public_key_auth_supported(self) -> bool:
        return bool(self._step.keys)

    def validate_public_key(
        self,
        username: str,  # noqa: ARG002
        key: SSHKey,
    ) -> bool:
        self._asking.seen.offered.append(key.get_fingerprint())
        return any(key.public_data == one.public_data for one in self._step.keys)

    def password_auth_supported(self) -> bool:
        return bool(self._step.password)

    def validate_password(
        self,
        username: str,  # noqa: ARG002
        password: str,
    ) -> bool:
        self._note(password)
        if password != self._step.password:
            return False
        if self._asking.expired:
            raise asyncssh.PasswordChangeRequired(self._asking.expired)
        return True

    def change_password(
        self,
        username: str,  # noqa: ARG002
        old_password: str,
        new_password: str,
    ) -> bool:
        self._note(old_password, new_password)
        return old_password == self._step.password

    def kbdint_auth_supported(self) -> bool:
        return bool(self._step.rounds)

    def get_kbdint_challenge(
        self,
        username: str,  # noqa: ARG002
        lang: str,  # noqa: ARG002
        submethods: str,  # noqa: ARG002
    ) -> Any:
        self._round = 0
        self._asking.seen.asked += 1
        self._asking.tell()
        return self._challenge()

    def validate_kbdint_response(
        self,
        username: str,  # noqa: ARG002
        responses: Sequence[str],
    ) -> Any:
        self._note(*responses)
        if list(responses) != list(self._step.rounds[self._round].answers):
            return False
        self._round += 1
        if self._round < len(self._step.rounds):
            return self._challenge()
        return True

    def _challenge(self) -> Any:
        asked = self._step.rounds[self._round]
        return asked.name, asked.instructions, "", list(asked.prompts)

    def _note(self, *texts: str) -> None:
        self._asking.seen.attempts += texts
        self._asking.tell()


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Run one command with its output passed on and its input closed."""
    shell = await asyncio.create_subprocess_exec(
        "/bin/sh",
        *(["-c", process.command] if process.command else []),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    passing = [
        asyncio.create_task(_pass_on(shell.stdout, process.stdout)),
        asyncio.create_task(_pass_on(shell.stderr, process.stderr)),
    ]
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await asyncio.gather(*passing)
            process.exit(await shell.wait())
    finally:
        if shell.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            # now they come to an end
            await asyncio.gather(*passing, return_exceptions=True)
            await shell.wait()


async def _pass_on(
    source: asyncio.StreamReader | None, target: asyncssh.SSHWriter[bytes]
) -> None:
    assert source is not None
    while data := await source.read(65536):
        target.write(data)
