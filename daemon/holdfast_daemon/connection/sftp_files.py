"""Files of a host by SFTP, as copies need them: looked at, read, written, put in place.

Paths are whole ones, as bytes. Nothing here follows a link unless it says so.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import asyncssh

from holdfast_daemon.connection.sftp import (
    SftpError,
    SftpGone,
    answers,
    as_bytes,
    attributes,
    no_sftp,
    session,
)
from holdfast_daemon.errors import DaemonError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from asyncssh import SFTPClient, SFTPClientFile

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.sftp import Attributes

# What one request asks for of the usual server, and so many at once.
_BLOCK = 255 * 1024
_AHEAD = 16
_READ_ONLY = 1
# For a server to take leave of a session.
_PARTING_SECONDS = 2.0


class SftpFiles:
    """One SFTP session; every refusal is an `SftpError`, a lost one an `SftpGone`.

    Attributes:
        over: It was lost.
    """

    def __init__(self, stack: AsyncExitStack, client: SFTPClient, idle: float) -> None:
        """Speak through `client`; an answer that takes `idle` s does not come."""
        self._stack = stack
        self._client = client
        self._idle = idle
        self.over = False

    async def close(self) -> None:
        """End the session."""
        with contextlib.suppress(asyncssh.Error, OSError, TimeoutError):
            async with asyncio.timeout(_PARTING_SECONDS):
                await self._stack.aclose()

    async def real(self, path: bytes) -> bytes:
        """Return a path without links and dots."""
        async with self._speaking():
            return as_bytes(await self._client.realpath(path))

    async def look(self, path: bytes, *, follow: bool = False) -> Attributes | None:
        """Return what a name is; None: there is none."""
        try:
            async with self._speaking():
                ask = self._client.stat if follow else self._client.lstat
                return attributes(await ask(path))
        except SftpError as error:
            if "No such file" in str(error):
                return None
            raise

    async def list(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """Return what a directory holds, whatever the names are."""
        async with self._speaking():
            found = await self._client.readdir(path)
        rows = [(as_bytes(one.filename), attributes(one.attrs)) for one in found]
        return [row for row in rows if row[0] not in (b".", b"..")]

    async def target(self, path: bytes) -> bytes:
        """Return where a link leads."""
        async with self._speaking():
            return as_bytes(await self._client.readlink(path))

    async def make_folder(self, path: bytes, mode: int) -> None:
        """Make a directory."""
        async with self._speaking():
            await self._client.mkdir(path, asyncssh.SFTPAttrs(permissions=mode))

    async def set(self, path: bytes, mode: int | None, modified: int | None) -> None:
        """Set permissions and time of what is no link."""
        attrs = asyncssh.SFTPAttrs(permissions=mode, atime=modified, mtime=modified)
        async with self._speaking():
            await self._client.setstat(path, attrs)

    async def link(self, path: bytes, target: bytes) -> None:
        """Make a symbolic link."""
        async with self._speaking():
            await self._client.symlink(target, path)

    async def remove(self, path: bytes, *, folder: bool = False) -> None:
        """Delete a name; a directory only where it is empty."""
        async with self._speaking():
            await (self._client.rmdir if folder else self._client.remove)(path)

    async def rename(self, path: bytes, to: bytes) -> None:
        """Give another name, which must not be there."""
        async with self._speaking():
            await self._client.rename(path, to)

    async def replace(self, path: bytes, to: bytes) -> bool:
        """Put a name in the place of another at once; False: the server has no way."""
        async with self._speaking():
            try:
                await self._client.posix_rename(path, to)
            except asyncssh.SFTPOpUnsupported:
                return False
        return True

    async def open(self, path: bytes, mode: str) -> SftpFile:
        """Open a file: `rb`, `r+b`, or `xb` for one that must not be there."""
        async with self._speaking():
            own = asyncssh.SFTPAttrs(permissions=0o600)
            file = await self._client.open(path, mode, own)
        return SftpFile(file, self)

    async def hindrance(self, path: bytes) -> str:
        """Return why nothing can be written at `path`, as far as the server tells."""
        try:
            async with self._speaking():
                about = await self._client.statvfs(path)
        except SftpError:
            return ""
        if about.flags & _READ_ONLY:
            return "Read-only file system"
        room = about.bavail * about.frsize
        return "No space left on device" if room < _BLOCK else ""

    @contextlib.asynccontextmanager
    async def _speaking(self) -> AsyncGenerator[None]:
        """Tell what was refused, what was lost, and what did not come."""
        try:
            async with asyncio.timeout(self._idle):
                with answers():
                    yield
        except TimeoutError:
            self.over = True
            raise SftpGone(f"nothing came for {self._idle:g} s") from None
        except SftpGone:
            self.over = True
            raise

    speaking = _speaking


class SftpFile:
    """An open file of a host."""

    def __init__(self, file: SFTPClientFile, files: SftpFiles) -> None:
        self._file = file
        self._files = files

    async def pour(
        self, at: int, pieces: AsyncIterator[bytes], done: Callable[[int], None]
    ) -> None:
        """Write `pieces` from `at` on; `done` hears up to where all was taken."""
        ahead: deque[tuple[int, asyncio.Task[int]]] = deque()
        try:
            async for piece in pieces:
                for begin in range(0, len(piece), _BLOCK):
                    block = piece[begin : begin + _BLOCK]
                    if len(ahead) >= _AHEAD:
                        await self._taken(ahead, done)
                    writing = asyncio.create_task(self._file.write(block, at))
                    at += len(block)
                    ahead.append((at, writing))
            while ahead:
                await self._taken(ahead, done)
        finally:
            if isinstance(pieces, AsyncGenerator):
                await pieces.aclose()
            await _ended([writing for _, writing in ahead])

    async def _taken(
        self, ahead: deque[tuple[int, asyncio.Task[int]]], done: Callable[[int], None]
    ) -> None:
        async with self._files.speaking():
            await ahead[0][1]
        done(ahead.popleft()[0])

    async def draw(self, at: int, end: int) -> AsyncGenerator[bytes]:
        """Yield what it holds from `at` to `end`; it ends early where the file does."""
        ahead: deque[tuple[int, asyncio.Task[bytes]]] = deque()
        try:
            while at < end or ahead:
                while at < end and len(ahead) < _AHEAD:
                    count = min(_BLOCK, end - at)
                    reading = asyncio.create_task(self._block(count, at))
                    ahead.append((count, reading))
                    at += count
                async with self._files.speaking():
                    data = await ahead[0][1]
                count, _ = ahead.popleft()
                if len(data) > count:
                    raise SftpGone("more came than was asked for")
                if data:
                    yield data
                if len(data) < count:
                    return
        finally:
            await _ended([reading for _, reading in ahead])

    async def _block(self, count: int, at: int) -> bytes:
        return as_bytes(await self._file.read(count, at))

    async def about(self) -> Attributes:
        """Return what it is by now."""
        async with self._files.speaking():
            return attributes(await self._file.stat())

    async def cut_to(self, size: int) -> None:
        """Make it so long."""
        async with self._files.speaking():
            await self._file.truncate(size)

    async def close(self) -> None:
        """Let go of it; what was written is with the server by then."""
        async with self._files.speaking():
            await self._file.close()

    async def leave(self) -> None:
        """Let go of it, whatever has happened."""
        with contextlib.suppress(SftpError, SftpGone, asyncssh.Error, OSError):
            await self.close()


async def _ended(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Leave none behind."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def sftp_files(link: Link, *, idle: float, patience: float) -> SftpFiles:
    """Open a session on `link`; end it with `close`.

    Raises:
        DaemonError: The host has no SFTP server, or none that answers in time.
        SftpGone: The connection was lost.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(patience):
                client = await stack.enter_async_context(session(link))
        except DaemonError as error:
            if link.closed:
                raise SftpGone(link.reason or error.message) from None
            raise
        except TimeoutError:
            why = f"nothing answered for {patience:g} s"
            raise no_sftp(link, why) from None
        return SftpFiles(stack.pop_all(), client, idle)
    raise AssertionError  # an exit stack swallows nothing
