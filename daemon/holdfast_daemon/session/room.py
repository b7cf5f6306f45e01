"""How many sessions there may be, on one host and in all. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast_daemon.errors import LimitError, Reason

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.limits import Limits
    from holdfast_daemon.session.session import Session


def check(
    living: Iterable[Session], making: Sequence[Hashable], host: Host, limits: Limits
) -> None:
    """See that one more may be opened on `host`; `making`: where others are just now.

    Raises:
        LimitError: A limit is met; it says which.
    """
    there = [one.host.account if one.host else None for one in living]
    on_host = there.count(host.account) + list(making).count(host.account)
    for count, name, where in (
        (on_host, "sessions_per_host", f" on {host.name}"),
        (len(there) + len(making), "sessions_total", ""),
    ):
        most = getattr(limits, name)
        if count >= most:
            raise LimitError(
                Reason.LIMIT_REACHED,
                f"{count} sessions are open{where}, and the limit {name} is"
                f" {most}; none was opened",
                hint="ssh_session_list shows them; ssh_session_close ends one; a"
                " person may raise the limit in [limits].",
                metadata={"limit": name, "value": str(most)},
            )
