"""Puts what was sent whole in its place on a host, by the renames that SFTP has."""

from __future__ import annotations

import contextlib
import secrets
from stat import S_ISGID
from typing import TYPE_CHECKING

from holdfast_daemon.connection.finishing import to_its_end
from holdfast_daemon.connection.sftp import SftpError
from holdfast_daemon.transfer.here.local_tree import kind_of
from holdfast_daemon.transfer.plain.tree import Listing, join, remove
from holdfast_daemon.transfer.tree.compare import Kind, Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.sftp import Attributes
    from holdfast_daemon.connection.sftp_files import SftpFiles
    from holdfast_daemon.transfer.means.errand import CopyRequest, Means
    from holdfast_daemon.transfer.means.placing import Placing
    from holdfast_daemon.transfer.plain.reach import PlainReach


class Landing:
    """Moves names from a staging directory to where they belong.

    Attributes:
        troubles: What could not be put, each with why.
        in_two: So many were replaced in two steps, for want of one.
    """

    def __init__(
        self,
        reach: PlainReach,
        stage: bytes,
        folder: bytes,
        tree: Tree,
        *,
        overwrite: bool,
    ) -> None:
        """Move what `tree` names from `stage` into `folder`."""
        self._reach = reach
        self._stage = stage
        self._folder = folder
        self._tree = tree
        self._overwrite = overwrite
        self._below: dict[bytes, list[bytes]] = {}
        for path in sorted(tree):
            self._below.setdefault(path.rpartition(b"/")[0], []).append(path)
        self.troubles: dict[bytes, str] = {}
        self.in_two = 0

    async def land(self, names: Sequence[bytes]) -> None:
        """Move `names`, and all below them."""
        await self._all([name for name in names if name in self._tree])

    async def _all(self, paths: Sequence[bytes]) -> None:
        folders = [p for p in paths if self._tree[p].kind is Kind.DIRECTORY]
        await self._reach.each([p for p in paths if p not in folders], self._file)
        for path in folders:
            await self._directory(path)

    async def _directory(self, path: bytes) -> None:
        why = await self._reach.steadily(lambda files: self._whole(files, path))
        if why is None:
            await self._all(self._below.get(path, []))
        elif why:
            self.troubles[path] = why

    async def _whole(self, files: SftpFiles, path: bytes) -> str | None:
        """Move a directory whole; None: there is one already, to go into."""
        source, to = join(self._stage, path), join(self._folder, path)
        there = await files.look(to)
        if there is None:
            try:
                await files.rename(source, to)
            except SftpError as error:
                return str(error)
            return ""
        kind = kind_of(there.mode)
        if kind is Kind.LINK:
            return "a link is in the way"
        if kind is not Kind.DIRECTORY:
            return "a file is in the way"
        gone = await files.look(source) is None  # put there before an answer was lost
        return "" if gone else None

    async def _file(self, path: bytes) -> None:
        why = await self._reach.steadily(lambda files: self._put(files, path))
        if why:
            self.troubles[path] = why

    async def _put(self, files: SftpFiles, path: bytes) -> str:
        """Put one name; return why it could not be."""
        source, to = join(self._stage, path), join(self._folder, path)
        try:
            there = await files.look(to)
            if not self._overwrite:
                # not every server minds, in a rename, what is there
                _refuse(there)
                await files.rename(source, to)
                return ""
            if there is not None and kind_of(there.mode) is Kind.DIRECTORY:
                return "a directory is in the way"
            if not await files.replace(source, to):
                await to_its_end(self._in_two(files, source, to, there is not None))
        except SftpError as error:
            return await self._why(files, source, to, error)
        return ""

    async def _why(
        self, files: SftpFiles, source: bytes, to: bytes, error: SftpError
    ) -> str:
        there = await files.look(to) is not None
        if await files.look(source) is None:
            return "" if there else "it went away"
        return "it is there by now" if there and not self._overwrite else str(error)

    async def _in_two(
        self, files: SftpFiles, source: bytes, to: bytes, there: bool
    ) -> None:
        """Replace a name where the server can't do it at once."""
        if there:
            aside = join(self._stage, b".aside-" + secrets.token_hex(8).encode())
            await files.rename(to, aside)
            try:
                await files.rename(source, to)
            except SftpError:
                await files.rename(aside, to)
                raise
            self.in_two += 1
        else:
            await files.rename(source, to)


def _refuse(there: Attributes | None) -> None:
    if there is not None:
        raise SftpError("it is there by now")


async def place(
    placing: Placing, request: CopyRequest, means: Means, reach: PlainReach
) -> None:
    """Put what is there whole in its place; what was put before stays.

    Raises:
        DaemonError: The host can't be had.
    """
    stage, most = join(placing.folder, placing.key), means.site.limits.copy_names
    if await reach.steadily(lambda files: files.look(stage)) is not None:
        listing = Listing(reach, stage, 2 * most)
        await listing.read()
        landing = Landing(
            reach, stage, placing.folder, listing.tree, overwrite=request.overwrite
        )
        await landing.land(placing.names)
        troubles = landing.troubles | listing.troubles
        if landing.in_two:
            means.notes.append(
                f"{landing.in_two} replaced in two steps, for this server has no way to"
                " do it in one: for a moment nothing was under the name"
            )
    else:  # it is removed once all has been put
        troubles = {
            name: "it is there no longer"
            for name in placing.names
            if await _missing(reach, join(placing.folder, name))
        }
    for path, why in troubles.items():
        means.trouble(path, why)
    means.tally.files -= len(troubles)
    group = 0 if request.preserve else await _handed_down(reach, placing.folder)
    for path, mode, modified in placing.folders:
        try:
            await _set(reach, join(placing.folder, path), mode | group, modified)
        except SftpError as error:
            means.unset(str(error))
    with contextlib.suppress(SftpError):
        await remove(reach, stage, 2 * most)


async def _set(reach: PlainReach, path: bytes, mode: int, modified: int | None) -> None:
    await reach.steadily(lambda files: files.set(path, mode, modified))


async def _handed_down(reach: PlainReach, folder: bytes) -> int:
    """Return what a directory hands down to those in it: that they are of its group."""
    about = await reach.steadily(lambda files: files.look(folder))
    return about.mode & S_ISGID if about is not None else 0


async def _missing(reach: PlainReach, path: bytes) -> bool:
    return await reach.steadily(lambda files: files.look(path)) is None
