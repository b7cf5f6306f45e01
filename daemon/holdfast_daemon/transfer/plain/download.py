"""Copies files of a host that has SFTP and no shell to this machine.

The host adds up no checksum: that size and time are the same before and after tells
that a file was not changed, and a file is known again by its name, size and time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.errors import InputError
from holdfast_daemon.file import sensitive
from holdfast_daemon.file.fault import fault
from holdfast_daemon.file.script import sftp_path, shown
from holdfast_daemon.transfer.here.holes import resize
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.here.place import set_about
from holdfast_daemon.transfer.here.source import digest
from holdfast_daemon.transfer.means.apart import apart, taken
from holdfast_daemon.transfer.means.errand import (
    PIECE_BYTES,
    CopyRequest,
    Means,
    local,
    secret,
)
from holdfast_daemon.transfer.plain.reach import PlainReach
from holdfast_daemon.transfer.plain.tree import Listing, entry_of, join
from holdfast_daemon.transfer.plain.upload import UNVERIFIED
from holdfast_daemon.transfer.shell.download import Download, close
from holdfast_daemon.transfer.shell.landing import put
from holdfast_daemon.transfer.shell.origin import Found, called
from holdfast_daemon.transfer.tree.compare import Entry, Kind

if TYPE_CHECKING:
    from holdfast_daemon.connection.sftp_files import SftpFile, SftpFiles
    from holdfast_daemon.transfer.means.errand import Unit
    from holdfast_daemon.transfer.means.reach import Reach
    from holdfast_daemon.transfer.tree.compare import Tree
    from holdfast_daemon.transfer.tree.plan import Plan

_TRIES = 3
_FATAL = (28, 30, 122)  # no space, read-only, quota
# For names whose host tells no modes.
_FILE, _FOLDER = 0o644, 0o755


class PlainDownload(Download):
    """One such copy."""

    def __init__(self, request: CopyRequest, means: Means) -> None:
        """Copy as `request` says."""
        super().__init__(request, means)
        self._plain = PlainReach(means.site, means.tally)
        self._parts = b".parts"

    async def run(self) -> None:
        """Copy it.

        Raises:
            DaemonError: Nothing was put in its place.
        """
        try:
            await self._run()
        finally:
            await self._plain.release()

    # what there is

    async def _look(self, given: str) -> Found:
        path = sftp_path(given, "sources")
        try:
            return await self._source_of(given, path)
        except SftpError as error:
            raise fault(("none", shown(path), str(error)), write=False) from None

    async def _source_of(self, given: str, path: bytes) -> Found:
        plain = self._plain
        about = await plain.steadily(lambda files: files.look(path, follow=True))
        if about is None:
            raise SftpError("No such file or directory")
        real = await plain.steadily(lambda files: files.real(path))
        told, entry = shown(real), _bare(entry_of(about))
        if entry.kind not in (Kind.FILE, Kind.DIRECTORY):
            raise fault(("kind", told, "special file"), write=False)
        if entry.kind is Kind.DIRECTORY and not self._request.recursive:
            raise InputError(
                "sources",
                f"{told} is a directory",
                hint="Set recursive to copy it with all that is in it.",
            )
        if sensitive.holds_secrets(told):
            raise secret(told, write=False)
        name, last = called(given, real), posixpath.basename(real)
        if name.endswith(b"\\" + last):  # a path in the words of Windows
            name = last
        tree: Tree = {name: entry}
        if entry.kind is Kind.DIRECTORY:
            most = self._means.site.limits.copy_names
            listing = Listing(plain, real, most)
            await listing.read()
            for inner, why in listing.troubles.items():
                self._means.trouble(join(real, inner) if inner else real, why)
            for odd in listing.odd:
                self._means.trouble(odd, "that is no name")
            tree |= {join(name, p): _bare(e) for p, e in listing.tree.items()}
        return Found(name, posixpath.dirname(real) or b"/", last, tree)

    # what comes

    def _units(self, todo: Plan, staged: Tree) -> list[Unit]:
        while any(one.name == self._parts for one in self._found):
            self._parts += b"_"
        return super()._units(todo, staged)

    def _many(self, one: Found, heap: list[bytes], tree: Tree) -> Unit:  # noqa: ARG002  each knows its own
        async def work(reach: Reach) -> None:
            async def fetch(path: bytes) -> None:
                await self._one(path, tree[path])(reach)

            await self._plain.each(heap, fetch)

        return work

    def _one(self, path: bytes, entry: Entry) -> Unit:
        async def work(reach: Reach) -> None:
            try:
                await self._fetch(reach, path, entry)
            except SftpError as error:
                self._means.trouble(path, str(error))
            except OSError as error:
                if error.errno in _FATAL:
                    raise local(error, shown(path), write=True) from None
                self._means.trouble(path, error.strerror or str(error))

        return work

    async def _fetch(self, reach: Reach, path: bytes, entry: Entry) -> None:
        """Fetch one file, from where it was cut off on."""
        tally = self._means.tally
        tally.now = shown(path)
        for _ in range(_TRIES):
            part = self._part(path, entry)
            file, at = await taken(close, self._open, part, entry)
            try:
                if await self._bring(reach, path, entry, file, at):
                    await apart(self._keep, part, path)
                    return
            finally:
                await apart(os.close, file)
            # It was changed meanwhile: once more, as it is now.
            now = await self._again(path)
            tally.total += now.size - entry.size
            entry = now
        self._changed(path)

    def _part(self, path: bytes, entry: Entry) -> bytes:
        """Return the name of what has come of a file as it is now."""
        told = repr((path, entry.size, entry.modified)).encode()
        return join(self._parts, hashlib.sha256(told).hexdigest()[:32].encode())

    def _keep(self, part: bytes, path: bytes) -> None:
        """Give what is whole its name in the staging directory."""
        with (
            self._stage.above(part) as (folder, name),
            self._stage.above(path, make=True) as (above, last),
        ):
            os.rename(name, last, src_dir_fd=folder, dst_dir_fd=above)

    def _full(self, path: bytes) -> bytes:
        one = self._source(path)
        return join(one.folder, one.inner(path))

    async def _again(self, path: bytes) -> Entry:
        """Return what a file is by now."""
        full = self._full(path)
        about = await self._plain.steadily(lambda files: files.look(full))
        if about is None or kind_of(about.mode) is not Kind.FILE:
            raise SftpError("it is no file any more")
        return _bare(entry_of(about))

    async def _bring(
        self,
        reach: Reach,  # noqa: ARG002  that is the way by a shell
        path: bytes,
        entry: Entry,
        file: int,
        at: int,
    ) -> bool:
        """Bring a file from `at` on; return whether it stayed as it was."""
        tally, full = self._means.tally, self._full(path)
        known, running = False, hashlib.sha256()

        async def attempt(files: SftpFiles) -> bool:
            nonlocal at, known, running
            host = await files.open(full, "rb")
            try:
                if not await _same(host, entry):
                    return False
                if not known:
                    at = await self._agreed(host, file, at)
                    # of another file nothing stays where zeros will not be written
                    await apart(resize, file, at)
                    running = await apart(digest, file, at)
                    tally.find(at)
                    known = True
                pieces = host.draw(at, entry.size)
                async with contextlib.aclosing(pieces):
                    async for piece in pieces:
                        await put(file, [piece], at, running)
                        at += len(piece)
                        tally.move(len(piece))
                        await self._means.rate.take(len(piece))
                return at == entry.size and await _same(host, entry)
            finally:
                await host.leave()

        if not await self._plain.steadily(attempt):
            tally.take_back(at if known else 0)
            return False
        await apart(resize, file, at)
        await apart(set_about, file, self._mode(path, entry), entry.modified)
        self._note(UNVERIFIED.format(was="came"))
        self._means.sha256 = running.hexdigest()
        tally.files += 1
        return True

    async def _agreed(self, host: SftpFile, file: int, at: int) -> int:
        """Return `at` where the last of what is there is what the host has."""
        begin = max(0, at - PIECE_BYTES)
        theirs = b"".join([piece async for piece in host.draw(begin, at)])
        if theirs != await asyncio.to_thread(os.pread, file, at - begin, begin):
            return 0
        if at:
            self._note(
                "went on with what an earlier call had brought: size and time of the"
                " file are the same, and the last of it was compared"
            )
        return at

    def _note(self, note: str) -> None:
        if note not in self._means.notes:
            self._means.notes.append(note)


async def _same(host: SftpFile, entry: Entry) -> bool:
    about = await host.about()
    return (about.size, about.modified) == (entry.size, entry.modified)


def _bare(entry: Entry) -> Entry:
    """Return an entry with a mode, also of a host that tells none."""
    if entry.mode or entry.kind is Kind.LINK:
        return entry
    return replace(entry, mode=_FOLDER if entry.kind is Kind.DIRECTORY else _FILE)
