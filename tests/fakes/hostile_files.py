"""A host that serves files by SFTP only, and tells lies about their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import asyncssh

from fakes.foreign_host import broken_off, client_files

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

_FILE, _FOLDER = 0o100644, 0o040755


class HostileHost:
    """Anybody may log in; `names` are told beside the real ones of every directory.

    Attributes:
        root: The directory it serves as `/`.
        names: What it tells of files that are not there, and serves with `content`.
        endless: Every directory holds one more.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.names: Sequence[bytes] = ()
        self.content = b"from the host"
        self.endless = False
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        self.open: list[asyncssh.SSHServerConnection] = []
        self._server = await asyncssh.create_server(
            lambda: _Login(self),
            "127.0.0.1",
            0,
            server_host_keys=[self.key],
            server_version="OpenSSH_for_Windows_9.5",
            sftp_factory=lambda channel: _Files(channel, self),
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening and end every connection."""
        self._server.close()
        await self._server.wait_closed()
        await broken_off(self.open)

    def client_files(self, directory: Path) -> Path:
        """Write known_hosts and an ssh configuration that knows it as `box`."""
        return client_files(directory, self.key, self.port)


class _Login(asyncssh.SSHServer):
    def __init__(self, host: HostileHost) -> None:
        self._host = host

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._host.open.append(conn)

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return False


class _Files(asyncssh.SFTPServer):
    def __init__(
        self, channel: asyncssh.SSHServerChannel[bytes], host: HostileHost
    ) -> None:
        self._host = host
        super().__init__(channel, chroot=str(host.root).encode())

    async def scandir(self, path: bytes) -> AsyncIterator[asyncssh.SFTPName]:
        """Tell of what is there, and of what is not."""
        if self._host.endless:
            yield _name(b"deeper", _FOLDER)
            return
        async for name in super().scandir(path):
            yield name
        for lie in self._host.names:
            yield _name(lie, _FILE)

    def map_path(self, path: bytes) -> bytes:
        """Serve a lie's content from one file; directories without end are one."""
        if self._host.endless and path.endswith(b"deeper"):
            return super().map_path(b"/")
        if any(lie and path.endswith(lie) for lie in self._host.names):
            (self._host.root / "lie").write_bytes(self._host.content)
            return super().map_path(b"/lie")
        return super().map_path(path)


def _name(name: bytes, mode: int) -> asyncssh.SFTPName:
    attributes = asyncssh.SFTPAttrs(permissions=mode, size=13, mtime=1, atime=1)
    return asyncssh.SFTPName(name, attrs=attributes)
