"""Takes any word of a server as a sign that it is there, as ssh does.

The library counts unanswered keepalives until one is answered. Over a slow link that
answer may wait for minutes behind what we sent, while the server speaks all the time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asyncssh import SSHClientConnection


def heed(connection: SSHClientConnection) -> None:
    """Count its missed keepalives anew with each word (ssh_config(5), ServerAlive…)."""
    # the library has no public name for either
    told: Any = connection
    begin_anew = told._reset_keepalive_timer  # noqa: SLF001

    def heard() -> None:
        told._keepalive_count = 0  # noqa: SLF001
        begin_anew()

    told._reset_keepalive_timer = heard  # noqa: SLF001
