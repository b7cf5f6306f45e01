"""Deletes the socket that a host's sshd leaves where a forward listened."""

from __future__ import annotations

import asyncio
import logging
import shlex
from typing import TYPE_CHECKING

from holdfast_daemon.connection import tunnel
from holdfast_daemon.connection.tunnel import Place, Unreached
from holdfast_daemon.errors import DaemonError
from holdfast_daemon.exec.wording import for_shell
from holdfast_daemon.forward.guest import Nobody

if TYPE_CHECKING:
    from holdfast_daemon.connection.link import Link
    from holdfast_daemon.streams import Stream

_log = logging.getLogger(__name__)

_SECONDS = 3.0
# A socket of the account that nobody listens on; Linux lists those that are in use.
_RM = (
    "[ -S {0} ]&&[ -O {0} ]&&! grep -qF -- {0} /proc/net/unix 2>/dev/null&&rm -f -- {0}"
)


class _Deaf:
    def received(self, stream: Stream, data: bytes) -> None:
        """Need nothing of it."""


async def clear(link: Link, path: str) -> None:
    """Delete a socket at `path`, where a forward listened, if nobody serves it now.

    What can't be found out, or deleted, stays: whoever listens there next says so.
    """
    try:
        async with asyncio.timeout(_SECONDS):
            if not await _served(link, path):
                await _delete(link, path)
    except (DaemonError, TimeoutError) as error:
        _log.info("the socket %s may be left on its host: %s", path, error)


async def _served(link: Link, path: str) -> bool:
    try:
        found = await tunnel.open_tunnel(link, Place(path=path), Nobody())
    except Unreached as error:
        return error.prohibited  # then it can't be told
    found.close()
    return True


async def _delete(link: Link, path: str) -> None:
    facts = await link.facts()
    if facts.confined or not (facts.family == "posix" or facts.wraps):
        return
    line = for_shell(_RM.format(shlex.quote(path)), facts)
    channel = await link.open(line, _Deaf(), eof=True)
    try:
        await channel.ended()
    finally:
        channel.close()
