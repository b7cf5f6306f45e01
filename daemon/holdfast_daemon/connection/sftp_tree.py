"""A whole directory of a host by SFTP: listed, read, written, deleted."""

from __future__ import annotations

import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncssh

from holdfast_daemon.connection.sftp import (
    SftpError,
    as_bytes,
    attributes,
    refusals,
    session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncssh import SFTPClient

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.sftp import Attributes

# Asked for at once; the library cuts it into what the server takes.
_PIECE = 1024 * 1024


class SftpTree:
    """Names are relative to `root`, as bytes; links are never followed below it."""

    def __init__(self, client: SFTPClient, root: bytes) -> None:
        """Work below `root`."""
        self._client = client
        self.root = root

    def _at(self, path: bytes) -> bytes:
        return self.root.rstrip(b"/") + b"/" + path if path else self.root

    async def real(self) -> str:
        """Return the root without links; the server may not know what is not there."""
        try:
            with refusals():
                found = as_bytes(await self._client.realpath(self.root))
        except SftpError:
            found = self.root
        return found.decode("utf-8", "replace")

    async def kind(self) -> int | None:
        """Return the mode of the root itself, links followed; None: there is none."""
        try:
            with refusals():
                return (await self._client.stat(self.root)).permissions or 0
        except SftpError as error:
            if "No such file" in str(error):
                return None
            raise

    async def list(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """Return what a directory holds: names that can be names, and no others."""
        with refusals():
            found = await self._client.readdir(self._at(path))
        rows = [(as_bytes(one.filename), attributes(one.attrs)) for one in found]
        return [row for row in rows if row[0] not in (b"", b".", b"..")]

    async def target(self, path: bytes) -> bytes:
        """Return where a link leads."""
        with refusals():
            return as_bytes(await self._client.readlink(self._at(path)))

    async def read(self, path: bytes) -> AsyncGenerator[bytes]:
        """Yield what a file holds."""
        with refusals():
            async with self._client.open(self._at(path), "rb") as file:
                while data := await file.read(_PIECE):
                    yield as_bytes(data)

    async def write(
        self,
        path: bytes,
        pieces: AsyncIterator[bytes],
        mode: int,
        modified: int,
        part: bytes,
    ) -> None:
        """Put a file in its place once it is whole; else nothing of it is left.

        `part`: what it is called beside its place until then.
        """
        where = self._at(path)
        draft = where.rpartition(b"/")[0] + b"/" + part
        try:
            with refusals():
                async with self._client.open(draft, "xb") as file:
                    async for piece in pieces:
                        await file.write(piece)
            await self.set(draft[len(self.root.rstrip(b"/")) + 1 :], mode, modified)
            with refusals():
                try:
                    await self._client.posix_rename(draft, where)
                except asyncssh.SFTPOpUnsupported:
                    with contextlib.suppress(asyncssh.SFTPError):
                        await self._client.remove(where)
                    await self._client.rename(draft, where)
        except BaseException:
            with contextlib.suppress(asyncssh.Error, OSError):
                await self._client.remove(draft)
            raise

    async def set(self, path: bytes, mode: int | None, modified: int) -> None:
        """Set permissions and time."""
        with refusals():
            await self._client.setstat(
                self._at(path),
                asyncssh.SFTPAttrs(permissions=mode, atime=modified, mtime=modified),
            )

    async def make_directory(self, path: bytes) -> None:
        """Make a directory."""
        with refusals():
            await self._client.mkdir(self._at(path))

    async def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        with refusals():
            await self._client.symlink(target, self._at(path))

    async def remove(self, path: bytes, *, directory: bool) -> None:
        """Delete a name; a directory only where it is empty."""
        with refusals():
            if directory:
                await self._client.rmdir(self._at(path))
            else:
                await self._client.remove(self._at(path))


@asynccontextmanager
async def sftp_tree(link: Link, root: bytes) -> AsyncGenerator[SftpTree]:
    """Open a session for the directory `root`, and close it at the end of the block.

    Raises:
        DaemonError: The host has no SFTP server.
    """
    async with session(link) as client:
        yield SftpTree(client, root)
