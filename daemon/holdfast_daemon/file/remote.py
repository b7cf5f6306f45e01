"""Files by SFTP, on hosts without a POSIX shell: the same requests and answers.

Reduced, and said so: nothing is searched there, and an owner may not be kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import posixpath
import secrets
import stat
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from holdfast_daemon.connection.sftp import SftpError, SftpGone, sftp
from holdfast_daemon.errors import LinkError, Ran, Reason
from holdfast_daemon.file import editing, reading, sensitive
from holdfast_daemon.file.fault import failed, fault
from holdfast_daemon.file.listing import Entry, Listing
from holdfast_daemon.file.script import sftp_path, shown
from holdfast_daemon.file.writing import Mode, WriteAnswer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from holdfast_daemon.connection.sftp import Attributes, Sftp
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.exec.site import Site
    from holdfast_daemon.file.editing import Edit
    from holdfast_daemon.file.listing import ListRequest
    from holdfast_daemon.file.reading import ReadAnswer, ReadRequest
    from holdfast_daemon.file.writing import WriteRequest

_BY_SFTP = "by SFTP: this host has no POSIX shell"
_OWNER_LOST = f"{_BY_SFTP}; the file's owner could not be kept"
_KINDS = {
    stat.S_IFDIR: "directory",
    stat.S_IFIFO: "FIFO",
    stat.S_IFBLK: "block device",
    stat.S_IFCHR: "character device",
    stat.S_IFSOCK: "socket",
}


@asynccontextmanager
async def _session(site: Site, path: str) -> AsyncGenerator[Sftp]:
    sftp_path(path)
    clock = asyncio.timeout(site.limits.file_seconds)
    opened: Sftp | None = None
    try:
        async with (
            clock,
            await site.pool.lease(site.host) as lease,
            sftp(lease.link) as session,
        ):
            opened = session
            yield session
    except SftpGone as error:
        changing = opened is not None and opened.changing
        told = "whether it was done is not known" if changing else "nothing was changed"
        raise LinkError(
            Reason.CONNECTION_LOST,
            f"the connection to {site.host.shown} was lost: {error}; {told}",
            hint="Look at the file before it is tried again." if changing else "",
            ran=Ran.UNKNOWN if changing else Ran.NO,
        ) from None
    except SftpError as error:
        raise failed(path, str(error), sudo=True) from None
    except TimeoutError:
        if not clock.expired():
            raise
        raise LinkError(
            Reason.CONNECT_TIMEOUT,
            f"{site.host.shown} did not answer within {site.limits.file_seconds:g} s",
            hint="Look at the file before it is tried again.",
            ran=Ran.UNKNOWN,
        ) from None


async def _look(session: Sftp, path: str, *, write: bool) -> tuple[bytes, Attributes]:
    """Return what a regular file is really called, and what it is."""
    found = await session.stat(sftp_path(path))
    real = await session.real(sftp_path(path))
    kind = _KINDS.get(stat.S_IFMT(found.mode))
    if kind is not None:
        raise fault(("kind", shown(real), kind), write=write)
    return real, found


async def read(site: Site, request: ReadRequest) -> ReadAnswer:
    """Read a file."""
    reading.check(request)
    async with _session(site, request.path) as session:
        name, found = await _look(session, request.path, write=False)
        real = shown(name)
        if not request.force and sensitive.holds_secrets(real):
            raise sensitive.refusal(real, write=False)
        most = site.limits.file_edit_bytes
        if found.size > most:
            raise fault(("large", real, str(found.size)), write=False)
        body = await session.read(sftp_path(request.path), most)
    return reading.of_whole(request, real, body)


async def write(site: Site, request: WriteRequest) -> WriteAnswer:
    """Write a file."""
    path = sftp_path(request.path)
    async with _session(site, request.path) as session:
        before: Attributes | None = None
        try:
            name, before = await _look(session, request.path, write=True)
        except SftpError as error:
            if "No such file" not in str(error):
                raise
            if request.make_parents and posixpath.dirname(path):
                await session.make_directories(posixpath.dirname(path))
            name = await session.real(path)
        real = shown(name)
        if sensitive.lets_in(real):
            raise sensitive.refusal(real, write=True)
        if before is not None and request.mode is Mode.CREATE:
            raise fault(("exists", real), write=True)
        if before is None and request.expected:
            raise fault(("gone", real), write=True)
        append = before is not None and request.mode is Mode.APPEND
        old, most = b"", site.limits.file_edit_bytes
        if before is not None:
            old = await _held(session, request, real, before, most)
        if append:
            await _add(session, name, request.data, real)
            kept = True
        else:
            kept = await _put(session, name, request, before)
    whole, size = request.data, len(request.data)
    if append and before is not None:
        whole, size = old + whole, before.size + size
    # what is behind a part of the file is no SHA-256 of it
    digest = hashlib.sha256(whole).hexdigest() if len(whole) == size else ""
    note = _BY_SFTP if kept else _OWNER_LOST
    return WriteAnswer(real, len(request.data), before is None, digest, size, note)


async def _held(
    session: Sftp, request: WriteRequest, real: str, before: Attributes, most: int
) -> bytes:
    """Return what is in a file, where that matters and it is small enough to fetch.

    Raises:
        DaemonError: It holds something else than was expected, or can't be compared.
    """
    if not request.expected and request.mode is not Mode.APPEND:
        return b""
    if before.size > most:
        if request.expected:
            raise fault(("large", real, str(before.size)), write=True)
        return b""
    held = await session.read(sftp_path(request.path), before.size + 1)
    now = hashlib.sha256(held).hexdigest()
    if request.expected not in ("", now):
        raise fault(("changed", real, now), write=True)
    return held


async def _add(session: Sftp, name: bytes, data: bytes, real: str) -> None:
    try:
        await session.append(name, data)
    except SftpError as error:
        if not session.changing:  # it could not even be opened
            raise
        raise fault(("half", real, str(error)), write=True) from None


async def _put(
    session: Sftp, name: bytes, request: WriteRequest, before: Attributes | None
) -> bool:
    """Write it; return whether it is whose it was."""
    fresh = before is None and request.mode is Mode.CREATE
    asked = request.permissions
    try:
        return await _swap(
            session, name, request.data, before, permissions=asked, fresh=fresh
        )
    except SftpError:
        if fresh and await _there(session, name):
            raise fault(("exists", shown(name)), write=True) from None
        raise


async def _there(session: Sftp, name: bytes) -> bool:
    try:
        await session.stat(name)
    except SftpError:
        return False
    return True


async def _swap(
    session: Sftp,
    real: bytes,
    data: bytes,
    before: Attributes | None,
    *,
    permissions: str = "",
    fresh: bool = False,
) -> bool:
    owner = None if before is None else (before.uid, before.gid)
    mode = None if before is None else stat.S_IMODE(before.mode)
    if permissions:
        mode = int(permissions, 8)
    name = f".holdfast.{secrets.token_hex(12)}".encode()
    draft = posixpath.join(posixpath.dirname(real), name)
    return await session.swap(data, draft, real, mode, owner=owner, fresh=fresh)


async def edit(site: Site, path: str, edits: Sequence[Edit]) -> WriteAnswer:
    """Edit a file."""
    limits = site.limits
    async with _session(site, path) as session:
        name, before = await _look(session, path, write=True)
        real = shown(name)
        if sensitive.lets_in(real):
            raise sensitive.refusal(real, write=True)
        if before.size > limits.file_edit_bytes:
            raise fault(("large", real, str(before.size)), write=True)
        body = await session.read(sftp_path(path), limits.file_edit_bytes)
        if sensitive.is_key(body):
            raise sensitive.refusal(real, write=True)
        edited = await asyncio.to_thread(editing.apply, body, edits, real)
        if await session.read(sftp_path(path), limits.file_edit_bytes) != body:
            raise _changed(real)
        kept = await _swap(session, name, edited, before)
    digest = hashlib.sha256(edited).hexdigest()
    note = _BY_SFTP if kept else _OWNER_LOST
    return WriteAnswer(real, len(edited), False, digest, len(edited), note)


def _changed(real: str) -> DaemonError:
    return fault(("changed", real, ""), write=True)


async def listing(site: Site, request: ListRequest) -> Listing:
    """List a directory."""
    most = site.limits.file_entries
    entries: list[Entry] = []
    async with _session(site, request.path) as session:
        top = await session.real(sftp_path(request.path))
        if not stat.S_ISDIR((await session.stat(top)).mode):
            raise fault(("nodir", shown(top), "file"), write=False)
        waiting, amiss = [(b"", 1)], 0
        while waiting and len(entries) <= most:
            below, depth = waiting.pop(0)
            try:
                rows = await session.list(posixpath.join(top, below))
            except SftpError:
                if not below:
                    raise
                # one that is closed, or gone meanwhile, hides no other
                amiss += 1
                continue
            for name, found in rows:
                if name.startswith(b".") and not request.hidden:
                    continue
                path = posixpath.join(below, name)
                owner = f"{found.uid}:{found.gid}"
                entries.append(
                    Entry(shown(path), found.mode, found.size, owner, found.modified)
                )
                if stat.S_ISDIR(found.mode) and depth < request.depth:
                    waiting.append((path, depth + 1))
    entries.sort(key=lambda one: one.path)
    note = f"{_BY_SFTP}; {amiss} directories could not be read" if amiss else _BY_SFTP
    return Listing(shown(top), tuple(entries[:most]), len(entries) > most, note)
