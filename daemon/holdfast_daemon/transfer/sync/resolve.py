"""Where a path of a host, and its home, really are: asked before they are touched."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING

from holdfast_daemon.connection.failure import channel_unanswered
from holdfast_daemon.exec.wording import for_shell
from holdfast_daemon.file.script import quote_path
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from holdfast_daemon.connection.lease import Lease
    from holdfast_daemon.limits import Limits

_MOST = 64 * 1024
# What is not there yet lies in the directory above it.
_ASK = (
    'd={path};CDPATH=;r=$(cd -P -- "$d" 2>/dev/null&&pwd -P)||r=$(cd -P --'
    ' "$(dirname -- "$d")" 2>/dev/null&&pwd -P)/$(basename -- "$d");'
    "h=$(cd -P ~ 2>/dev/null&&pwd -P);"
    'printf \'%s%s%s%s%s\' {mark} "$r" {mark} "$h" {mark}'
)


class _Said:
    """Keeps what the host prints, within bounds."""

    def __init__(self) -> None:
        self.data = b""

    def received(self, stream: Stream, data: bytes) -> None:
        """Take a piece."""
        if stream is Stream.OUT and len(self.data) < _MOST:
            self.data += data


async def resolved(lease: Lease, path: str, limits: Limits) -> tuple[str, str]:
    """Return `path` without links, of a host with a POSIX shell, and its home.

    What is unknown is `path` as it is, and an empty home.

    Raises:
        DaemonError: The host can't be asked; nothing was changed.
    """
    mark, said = secrets.token_hex(8), _Said()
    place = quote_path(f"./{path}" if path.startswith("-") else path)
    line = _ASK.format(path=place, mark=mark)
    channel = await lease.open(for_shell(line, await lease.facts()), said, eof=True)
    try:
        async with asyncio.timeout(limits.file_seconds):
            await channel.ended()
    except TimeoutError:
        host = lease.host
        raise channel_unanswered(host, limits.file_seconds, sent=True) from None
    finally:
        channel.close()
    parts = said.data.decode("utf-8", "replace").split(mark)
    found, home = parts[1:3] if len(parts) > 3 else ("", "")  # noqa: PLR2004
    return found if found.startswith("/") else path, home
