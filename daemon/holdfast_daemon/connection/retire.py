"""Which connections were made with a key that a person does not trust any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from holdfast_daemon.connection.entry import Entry
    from holdfast_daemon.hosts.host import Host

WHY = "its host key is not trusted any more"


class Retired(NamedTuple):
    """How many connections were closed, and how many end with what runs on them."""

    closed: int
    ending: int


def outdated(entries: Iterable[Entry], host: Host, fingerprint: str) -> Iterator[Entry]:
    """Yield open connections to the server of `host`, made with another key than this.

    Whoever logged in; behind another jump host the same address is another server.
    """
    for entry in entries:
        link = entry.link
        if link is None or not entry.ready or entry.host.server != host.server:
            continue
        if link.host_key_fingerprint != fingerprint:
            yield entry
