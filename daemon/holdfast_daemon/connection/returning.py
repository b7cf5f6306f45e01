"""When one who comes back to a host by itself may knock there.

Nothing that was refused is offered again by itself: a server counts that, and bars us
or the account for it, and some ring a telephone each time.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast_daemon.connection import credential
from holdfast_daemon.errors import DaemonError, Reason

if TYPE_CHECKING:
    from collections.abc import Hashable

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits


class Returning:
    """What one who looks for a host again and again has met there.

    Where the login was refused, or needs a person, it waits until somebody is connected
    or asks for it, or there is something else to log in with: an agent has got another
    key, or the ssh configuration names one.
    """

    def __init__(self, pool: Pool, host: Host, limits: Limits) -> None:
        self._pool = pool
        self._host = host
        self._limits = limits
        self._refused: Hashable = None

    async def may(self) -> bool:
        """Whether to try now; a host that refused nothing always."""
        if self._refused is None:
            return True
        now = await self._pool.renewal.of(self._host, None)
        if self._pool.find(now) is not None:
            return True
        return await self._offers(now) != self._refused

    async def met(self, error: DaemonError) -> None:
        """Note why a try came to nothing."""
        refused = error.reason is Reason.AUTH_FAILED and error.metadata.get("tried")
        if refused or error.reason is Reason.LOGIN_NEEDED:
            now = await self._pool.renewal.of(self._host, None)
            self._refused = await self._offers(now)

    def free(self) -> None:
        """Try again: it was reached, or somebody asks for it now."""
        self._refused = None

    async def _offers(self, host: Host) -> Hashable:
        """Return what each host on the way would be offered; none of them is asked.

        Nor is the owner of a keyring: by name a secret is the same.
        """
        hop = host.proxy_jump
        before = await self._offers(hop) if hop is not None else None
        bare = replace(host, password_from="", passphrase_from="")
        try:
            found = await credential.gather(
                bare, os.environ, self._limits, attended=True
            )
        except DaemonError as error:
            return before, host.identity, error.message
        await found.close()
        keys = (o.pair.public_data if o.pair else o.label for o in found.offers)
        return before, host.identity, *keys
