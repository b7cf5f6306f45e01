"""SFTP on a connection, for hosts where no command can work on files."""

from __future__ import annotations

import contextlib
import stat
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import asyncssh
from asyncssh.packet import PacketDecodeError

from holdfast_daemon.errors import DaemonError, Ran, Reason, StateError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from asyncssh import SFTPAttrs, SFTPClient

    from holdfast_daemon.connection.link import Link

# Names as bytes: nothing is lost, whatever the host calls its files.
_ERRORS = (
    (asyncssh.SFTPNoSuchFile, "No such file or directory"),
    (asyncssh.SFTPNoSuchPath, "No such file or directory"),
    (asyncssh.SFTPPermissionDenied, "Permission denied"),
    (asyncssh.SFTPNoSpaceOnFilesystem, "No space left on device"),
    (asyncssh.SFTPQuotaExceeded, "Disk quota exceeded"),
    (asyncssh.SFTPWriteProtect, "Read-only file system"),
    (asyncssh.SFTPNotADirectory, "Not a directory"),
)


_GONE = (
    asyncssh.SFTPConnectionLost,
    asyncssh.SFTPNoConnection,
    asyncssh.SFTPBadMessage,
)
_LOST = (asyncssh.DisconnectError, asyncssh.ChannelOpenError, ConnectionError)


class SftpError(Exception):
    """What the host's SFTP server refused, in the words of its system."""


class SftpGone(Exception):  # noqa: N818  a state first, an error second
    """The session ended, or stood still, before what was asked for was done."""


class Attributes(NamedTuple):
    """What is known of a file; `mode` with its type."""

    mode: int
    size: int
    uid: int
    gid: int
    modified: int


class Sftp:
    """One SFTP session; every refusal is an `SftpError`, a lost one an `SftpGone`.

    Attributes:
        changing: The host was asked to change a file that is there.
    """

    def __init__(self, client: SFTPClient) -> None:
        """Speak through `client`."""
        self._client = client
        self.changing = False

    async def real(self, path: bytes) -> bytes:
        """Return a path without links and dots."""
        with answers():
            return as_bytes(await self._client.realpath(path))

    async def stat(self, path: bytes) -> Attributes:
        """Return what `path` is, links followed."""
        with answers():
            return attributes(await self._client.stat(path))

    async def read(self, path: bytes, most: int) -> bytes:
        """Return the first `most` bytes of a file."""
        with answers():
            async with self._client.open(path, "rb") as file:
                return as_bytes(await file.read(most))

    async def list(self, path: bytes) -> list[tuple[bytes, Attributes]]:
        """Return what a directory holds."""
        with answers():
            found = await self._client.readdir(path)
        rows = [(as_bytes(one.filename), attributes(one.attrs)) for one in found]
        return [row for row in rows if row[0] not in (b".", b"..")]

    async def append(self, path: bytes, data: bytes) -> None:
        """Add to a file, which is made where it is not there."""
        with answers():
            async with self._client.open(path, "ab") as file:
                self.changing = True
                await file.write(data)

    async def make_directories(self, path: bytes) -> None:
        """Make a directory and those above it."""
        with answers():
            await self._client.makedirs(path, exist_ok=True)

    async def swap(
        self,
        data: bytes,
        draft: bytes,
        path: bytes,
        mode: int | None,
        *,
        owner: tuple[int, int] | None = None,
        fresh: bool = False,
    ) -> bool:
        """Write `draft`, and put it in the place of `path`; else nothing is left.

        `mode`: nobody else reads it before it has that. `owner`: user and group that it
        should have; returns whether it has them. `fresh`: nothing is replaced.
        """
        kept = True
        own = asyncssh.SFTPAttrs(permissions=None if mode is None else 0o600)
        try:
            with answers():
                async with self._client.open(draft, "xb", own) as file:
                    await file.write(data)
                    with contextlib.suppress(asyncssh.SFTPError):
                        await file.fsync()  # not every server can
                if owner is not None:
                    kept = await self._give(draft, *owner)
                if mode is not None:
                    await self._client.chmod(draft, mode)
                self.changing = True
                if fresh:
                    await self._client.rename(draft, path)
                else:
                    await self._client.posix_rename(draft, path)
        except BaseException:
            with contextlib.suppress(asyncssh.SFTPError, *_LOST):
                await self._client.remove(draft)
            raise
        return kept

    async def _give(self, path: bytes, uid: int, gid: int) -> bool:
        """Give a file to somebody; return whether it is theirs."""
        about = attributes(await self._client.stat(path))
        if (about.uid, about.gid) == (uid, gid):
            return True
        for who in (uid, about.uid):
            with contextlib.suppress(asyncssh.SFTPError):
                await self._client.chown(path, who, gid)
                return who == uid
        return False


@contextlib.contextmanager
def refusals() -> Generator[None]:
    """Tell what the server refused in its system's words."""
    try:
        yield
    except asyncssh.SFTPError as error:
        for kind, words in _ERRORS:
            if isinstance(error, kind):
                raise SftpError(words) from None
        raise SftpError(error.reason or "it gave no reason") from None


@contextlib.contextmanager
def answers() -> Generator[None]:
    """Tell what the server refused, and as an `SftpGone` that it went away."""
    try:
        with refusals():
            try:
                yield
            except _GONE as error:
                raise SftpGone(error.reason or "the connection was lost") from None
    except _LOST as error:
        raise SftpGone(str(error) or "the connection was lost") from None
    except PacketDecodeError as error:
        raise SftpGone(f"the host's answer can't be read: {error}") from None


@asynccontextmanager
async def sftp(link: Link) -> AsyncGenerator[Sftp]:
    """Open a session on `link`, and close it at the end of the block.

    Raises:
        DaemonError: The host has no SFTP server.
        SftpGone: The connection was lost before it told.
    """
    async with AsyncExitStack() as stack:
        try:
            client = await stack.enter_async_context(session(link))
        except DaemonError as error:
            if link.closed:
                raise SftpGone(link.reason or error.message) from None
            raise
        yield Sftp(client)


@asynccontextmanager
async def session(link: Link) -> AsyncGenerator[SFTPClient]:
    """Open what the library knows of a session, and close it at the end of the block.

    Raises:
        DaemonError: The host has no SFTP server.
    """
    try:
        client = await link.connection.start_sftp_client(path_encoding=None)
    except (asyncssh.Error, OSError) as error:
        raise no_sftp(link, str(error)) from None
    link.proven = True
    try:
        yield client
    finally:
        client.exit()


def no_sftp(link: Link, why: str) -> DaemonError:
    """Return the error for a host that has neither shell nor SFTP."""
    return StateError(
        Reason.UNSUPPORTED,
        f"{link.host.shown} has neither a POSIX shell nor SFTP: its files can't be"
        f" worked on ({why})",
        hint="Use commands in the host's own words (ssh_exec).",
        ran=Ran.NO,
    )


def as_bytes(value: bytes | str) -> bytes:
    """Return a name as the host has it."""
    return value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value


def attributes(attrs: SFTPAttrs) -> Attributes:
    """Return what the library read of a file."""
    kinds = {1: stat.S_IFREG, 2: stat.S_IFDIR, 3: stat.S_IFLNK}
    mode = attrs.permissions or 0
    if not stat.S_IFMT(mode):
        mode |= kinds.get(attrs.type, 0)
    return Attributes(
        mode, attrs.size or 0, attrs.uid or 0, attrs.gid or 0, int(attrs.mtime or 0)
    )
