"""A whole directory of a host by SFTP: listed, read, written, deleted."""

from __future__ import annotations

import asyncio
import contextlib
import stat
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncssh

from holdfast_daemon.connection.finishing import to_its_end
from holdfast_daemon.connection.sftp import (
    SftpError,
    as_bytes,
    attributes,
    no_sftp,
    refusals,
    session,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from asyncssh import SFTPClient

    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.connection.sftp import Attributes

# Ends the name of what is replaced, for as long as that takes.
ASIDE = b".old"
# Asked for at once; the library cuts it into what the server takes.
_PIECE = 1024 * 1024
# How often it is looked whether the server has answered anything, at most.
_LOOK_SECONDS = 1.0
_LOOKS = 4


class SftpTree:
    """Names are relative to `root`, as bytes; links are never followed below it.

    Attributes:
        idle: A server that was asked and answers nothing for so many seconds is given
            up: all that is asked of it then fails.
        stood_still: It was.
    """

    def __init__(self, client: SFTPClient, root: bytes, idle: float) -> None:
        """Work below `root`."""
        self._client = client
        self.root = root
        self.idle = idle
        self.stood_still = False
        # The library tells nobody what is unanswered: it has no public name for it.
        self._handler: Any = getattr(client, "_handler", None)

    async def watch(self) -> None:
        """Give the server up once it has stood still."""
        loop = asyncio.get_running_loop()
        seen: tuple[int, ...] = ()
        since = loop.time()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self.idle / _LOOKS))
            now = self._unanswered()
            if not now or now != seen:
                seen, since = now, loop.time()
            elif loop.time() - since >= self.idle:
                self.stood_still = True
                why = f"the host's SFTP server said nothing for {self.idle:g} s"
                channel = self._handler._writer.channel  # noqa: SLF001  see above
                lost = asyncssh.SFTPConnectionLost(why)
                await self._handler._cleanup(lost)  # noqa: SLF001
                channel.abort()
                return

    def _unanswered(self) -> tuple[int, ...]:
        """Return what differs whenever something was asked, or was answered."""
        asked = getattr(self._handler, "_requests", None)
        number = getattr(self._handler, "_next_pktid", 0)
        return (number, len(asked)) if asked else ()

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

    async def home(self) -> str:
        """Return the directory the account begins in, without links; empty: unknown."""
        try:
            with refusals():
                found = as_bytes(await self._client.realpath(b"."))
        except SftpError:
            return ""
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

        `part`: what it is called beside its place until then. Nobody else reads that.
        """
        where = self._at(path)
        draft = where.rpartition(b"/")[0] + b"/" + part
        own = asyncssh.SFTPAttrs(permissions=0o600)
        try:
            with refusals():
                async with self._client.open(draft, "xb", own) as file:
                    async for piece in pieces:
                        await file.write(piece)
            await self.set(draft[len(self.root.rstrip(b"/")) + 1 :], mode, modified)
            with refusals():
                try:
                    await self._client.posix_rename(draft, where)
                except asyncssh.SFTPOpUnsupported:
                    await to_its_end(self._in_two(draft, where))
        except BaseException:
            with contextlib.suppress(asyncssh.Error, OSError):
                await self._client.remove(draft)
            raise

    async def _in_two(self, draft: bytes, where: bytes) -> None:
        """Replace a file where the server can't do it at once."""
        if not await self._may_go(where):
            await self._client.rename(draft, where)
            return
        aside = draft + ASIDE
        await self._client.rename(where, aside)
        try:
            await self._client.rename(draft, where)
        except asyncssh.SFTPError as error:
            try:
                await self._client.rename(aside, where)
            except asyncssh.SFTPError:
                name = aside.rpartition(b"/")[2].decode("utf-8", "replace")
                why = f"{error.reason}; what was there is called {name} now"
                raise asyncssh.SFTPFailure(why) from None
            raise
        with contextlib.suppress(asyncssh.SFTPError):
            await self._client.remove(aside)

    async def _may_go(self, where: bytes) -> bool:
        """Say whether there is something that makes way for a file."""
        try:
            about = await self._client.lstat(where)
        except asyncssh.SFTPError:
            return False
        return not stat.S_ISDIR(about.permissions or 0)

    async def set(self, path: bytes, mode: int | None, modified: int) -> None:
        """Set permissions and time."""
        with refusals():
            await self._client.setstat(
                self._at(path),
                asyncssh.SFTPAttrs(permissions=mode, atime=modified, mtime=modified),
            )

    async def make_directory(self, path: bytes, mode: int | None) -> None:
        """Make a directory with `mode` less the host's mask; None: as the host will."""
        with refusals():
            attrs = asyncssh.SFTPAttrs(permissions=mode)
            await self._client.mkdir(self._at(path), attrs)

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
async def sftp_tree(
    link: Link, root: bytes, *, idle: float, patience: float
) -> AsyncGenerator[SftpTree]:
    """Open a session for the directory `root`, and close it at the end of the block.

    Args:
        link: The connection.
        root: The directory.
        idle: As of `SftpTree`.
        patience: Seconds for the server to begin.

    Raises:
        DaemonError: The host has no SFTP server, or none that answers in time.
    """
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(patience):
                client = await stack.enter_async_context(session(link))
        except TimeoutError:
            why = f"nothing answered for {patience:g} s"
            raise no_sftp(link, why) from None
        tree = SftpTree(client, root, idle)
        watching = asyncio.create_task(tree.watch())
        try:
            yield tree
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
