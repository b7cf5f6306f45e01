"""A host as Windows is one: SFTP, and cmd.exe for a shell; or one that lies."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, Self

import asyncssh
from asyncssh import SFTPAttrs, SFTPName, SFTPServer

from fakes.foreign_host import LOOPBACK, client_files, cmd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from asyncssh import SSHServerChannel, SSHServerProcess

REGULAR, FOLDER, LINK = 0o100644, 0o040755, 0o120777


class Lies:
    """What a listing of a directory tells besides what is there.

    Attributes:
        names: Each with its mode and, where it is a link, its target.
        content: What a file of such a name holds.
    """

    def __init__(self) -> None:
        self.names: list[tuple[bytes, int, bytes]] = []
        self.below = b""
        self.content = b"xxxxx"


class SftpHost:
    """One such server; anybody may log in."""

    def __init__(
        self,
        lies: Lies | None = None,
        *,
        files: bool = True,
        serve: Callable[[SSHServerChannel[bytes]], SFTPServer] | None = None,
    ) -> None:
        """Serve files, with `lies` among them or by `serve`; or none at all."""
        self._lies = lies
        self._serve = serve
        self._files = files
        self.port = 0

    async def __aenter__(self) -> Self:
        """Listen."""
        self.key = asyncssh.generate_private_key("ssh-ed25519")
        lies, serve = self._lies, self._serve

        def served(channel: SSHServerChannel[bytes]) -> SFTPServer:
            if serve is not None:
                return serve(channel)
            return Fair(channel) if lies is None else _Lying(channel, lies)

        self._server = await asyncssh.create_server(
            _Login,
            LOOPBACK,
            0,
            server_host_keys=[self.key],
            server_version="OpenSSH_for_Windows_9.5",
            process_factory=_answer,
            sftp_factory=served if self._files else None,
            encoding=None,
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop listening."""
        self._server.close()
        await self._server.wait_closed()

    def client_files(self, directory: Path, alias: str = "box") -> Path:
        """Write known_hosts and an ssh configuration that knows it as `alias`."""
        return client_files(directory, self.key, self.port, alias)


class _Login(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:  # noqa: ARG002
        return False


def _answer(process: SSHServerProcess[bytes]) -> None:
    reply = cmd(process.command or "")
    process.stdout.write(reply.out)
    process.stderr.write(reply.err)
    process.exit(reply.code or 0)


class Fair(SFTPServer):
    """Serves what there is."""

    def map_path(self, path: bytes) -> bytes:
        # as on Windows: either slash, and a drive, before which one may stand
        bare = path.replace(b"\\", b"/").lstrip(b"/")
        if bare.startswith(b"C:"):
            path = bare[2:]
        return super().map_path(path)

    def reverse_map_path(self, path: bytes) -> bytes:
        return b"/C:" + super().reverse_map_path(path)

    def readlink(self, path: bytes) -> bytes:
        return os.readlink(self.map_path(path))  # noqa: PTH115  bytes

    def symlink(self, oldpath: bytes, newpath: bytes) -> None:
        # servers of that name, and no others, have the two the other way round
        super().symlink(newpath, oldpath)


class _Lying(Fair):
    def __init__(self, channel: SSHServerChannel[bytes], lies: Lies) -> None:
        super().__init__(channel)
        self._lies = lies
        self._odd = {name: (mode, to) for name, mode, to in lies.names}

    async def scandir(self, path: bytes) -> AsyncIterator[SFTPName]:
        async for found in super().scandir(path):
            yield found
        if path.endswith(self._lies.below):
            for name, (mode, _) in self._odd.items():
                yield SFTPName(name, attrs=self._about(mode))

    def _about(self, mode: int) -> SFTPAttrs:
        size = len(self._lies.content)
        return SFTPAttrs(permissions=mode, size=size, atime=5, mtime=5)

    def _lie(self, path: bytes) -> tuple[int, bytes] | None:
        for name, lie in self._odd.items():
            if path.endswith(b"/" + name):
                return lie
        return None

    def lstat(self, path: bytes) -> SFTPAttrs:
        lie = self._lie(path)
        if lie is not None:
            return self._about(lie[0])
        return SFTPAttrs.from_local(os.lstat(self.map_path(path)))

    def readlink(self, path: bytes) -> bytes:
        lie = self._lie(path)
        return super().readlink(path) if lie is None else lie[1]

    def open(self, path: bytes, pflags: int, attrs: SFTPAttrs) -> object:
        if self._lie(path) is None:
            return super().open(path, pflags, attrs)
        return _Said(self._lies.content, self._about(REGULAR))

    def read(self, file_obj: object, offset: int, size: int) -> bytes:
        if isinstance(file_obj, _Said):
            return file_obj.content[offset : offset + size]
        found = super().read(file_obj, offset, size)
        assert isinstance(found, bytes)
        return found

    def fstat(self, file_obj: object) -> SFTPAttrs:
        if isinstance(file_obj, _Said):
            return file_obj.attrs
        assert isinstance(file_obj, io.IOBase)
        return SFTPAttrs.from_local(os.fstat(file_obj.fileno()))

    def close(self, file_obj: object) -> None:
        if not isinstance(file_obj, _Said):
            super().close(file_obj)


class _Said:
    """An open file that nobody has."""

    def __init__(self, content: bytes, attrs: SFTPAttrs) -> None:
        self.content = content
        self.attrs = attrs
