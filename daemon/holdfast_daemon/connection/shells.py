"""What was found out about login shells, for the connections that follow."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from holdfast_daemon.connection.shell import ShellFacts
    from holdfast_daemon.hosts.host import Host

# Logins whose shell is remembered.
_KEPT = 1000


class Shells:
    """Remembers them by account and by what one logs in with.

    A server may bind a key to a command of its own: another key says nothing of what
    that one takes.
    """

    def __init__(self) -> None:
        self._facts: dict[tuple[Hashable, Hashable], ShellFacts] = {}

    def note(self, host: Host, facts: ShellFacts) -> None:
        """Keep what was found out, at the cost of what was longest ago."""
        self._facts.pop(_login(host), None)
        while len(self._facts) >= _KEPT:
            del self._facts[next(iter(self._facts))]
        self._facts[_login(host)] = facts

    def of(self, host: Host) -> ShellFacts | None:
        """Return what is known of it."""
        return self._facts.get(_login(host))

    def forget(self, account: Hashable) -> None:
        """Forget all of a `Host.account`, whoever logs in there."""
        self._facts = {k: v for k, v in self._facts.items() if k[0] != account}


def _login(host: Host) -> tuple[Hashable, Hashable]:
    return host.account, host.identity
