"""A transfer of an earlier daemon: waits for its host, or says why it ends."""

from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

from holdfast_daemon.connection.state import Backoff
from holdfast_daemon.errors import LinkError

if TYPE_CHECKING:
    from holdfast_daemon.errors import DaemonError
    from holdfast_daemon.exec.site import Site

_log = logging.getLogger(__name__)

_FIRST = 0.2
_MOST = 30.0


async def reached(site: Site) -> None:
    """Return when the host can be reached; it may be away for longer than we were.

    Raises:
        DaemonError: It can't, or was not for too long.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + site.limits.copy_resume_seconds
    backoff = Backoff(_FIRST, _MOST, random.random)
    while True:
        try:
            lease = await site.lease()
        except LinkError as error:
            pause = backoff.failed()
            if loop.time() + pause > deadline:
                raise
            _log.info("a transfer waits for %s: %s", site.host.name, error.message)
            await site.pool.pauses.rest(pause)
        else:
            lease.release()
            return


def not_resumed(error: DaemonError, kept: str) -> str:
    """Return what a job says that was not gone on with; `kept` is what there is."""
    return (
        "the daemon ended while it ran, and it was not gone on with:"
        f" {error.reason.value}: {error.message}; {kept} once that is mended"
    )
