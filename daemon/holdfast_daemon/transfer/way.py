"""Which way a copy takes: by scripts in the host's shell, or without one by SFTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.transfer.means.stream import NoShell
from holdfast_daemon.transfer.plain.download import PlainDownload
from holdfast_daemon.transfer.plain.upload import PlainUpload
from holdfast_daemon.transfer.shell.download import Download
from holdfast_daemon.transfer.shell.upload import Upload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from holdfast_daemon.transfer.means.errand import CopyRequest, Means
    from holdfast_daemon.transfer.means.placing import Placing


class Work:
    """One copy, whichever way it goes."""

    def __init__(self, request: CopyRequest, means: Means) -> None:
        """Copy as `request` says."""
        self._request = request
        self._means = means
        self._work = (Upload if request.upload else Download)(request, means)

    async def run(self) -> None:
        """Copy it.

        Raises:
            DaemonError: Nothing was put in its place.
        """
        await self._either(lambda work: work.run())

    async def place(self, placing: Placing) -> None:
        """Put what has come in its place, where an earlier daemon may have begun to.

        Raises:
            DaemonError: It can't be put there.
        """
        await self._either(lambda work: work.place(placing))

    async def _either(self, do: Callable[[Upload | Download], Awaitable[None]]) -> None:
        try:
            await do(self._work)
        except NoShell:
            # Nothing was asked of the host yet.
            plain = PlainUpload if self._request.upload else PlainDownload
            self._work = plain(self._request, self._means)
            await do(self._work)

    async def drop(self) -> None:
        """Delete what was sent, or has come, and has no place."""
        await self._work.drop()
