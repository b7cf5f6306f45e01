"""UpdateHostKeys: learns the other keys of a host that is known by one of them.

As ssh does it, but nothing is ever taken away: a key the host no longer has stays in
the file, as nobody knows what else it is good for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from holdfast_daemon.hosts import known_file
from holdfast_daemon.hosts.known_hosts import (
    REVOKED,
    KnownHosts,
    hashed,
    is_hashed,
    matches,
    written,
)
from holdfast_daemon.hosts.trust import files, is_allowed, names
from holdfast_daemon.hosts.verdict import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.hosts.host import Host
    from holdfast_daemon.hosts.verdict import Verdict

_SIMPLE = 2  # a name, or a name and an address
# Between reading what is known and adding to it.
_LOCK = threading.Lock()


def is_wanted(host: Host) -> bool:
    """Whether the person's configuration has further keys learnt."""
    own = bool(host.user_known_hosts) and not host.guard_known_hosts
    return host.update_host_keys == "yes" and own and not host.pinned_fingerprint


def applies(host: Host, verdict: Verdict) -> bool:
    """Whether the host is known well enough: by a plain line of the person's own."""
    if verdict.status is not Status.KNOWN or verdict.authority or not verdict.known:
        return False
    line, name = verdict.known[0], names(host)[0]
    if line.file not in host.user_known_hosts or not matches(line.patterns, name):
        return False
    if is_hashed(line.patterns):
        return True
    wild = any(character in line.patterns for character in "*?!")
    return not wild and len(line.patterns.split(",")) <= _SIMPLE


def learn(host: Host, blobs: Sequence[bytes]) -> Sequence[bytes]:
    """Write down keys that the host has proved to hold; return the new ones. Blocks.

    Raises:
        OSError: They could not be written.
    """
    with _LOCK:
        fresh = _fresh(host, blobs)
        name = names(host)[0]
        lines = [
            written(hashed(name) if host.hash_known_hosts else name, blob)
            for blob in fresh
        ]
        if lines:
            known_file.append(host.user_known_hosts[0], lines)
        return fresh


def _fresh(host: Host, blobs: Sequence[bytes]) -> Sequence[bytes]:
    name, wanted = names(host)[0], set(blobs)
    known: set[bytes] = set()
    for line in KnownHosts.read(files(host)).keys:
        if matches(line.patterns, name):
            known.add(line.blob)
        elif line.blob in wanted and line.marker != REVOKED:
            return []  # it goes by another name too: what is whose, a person knows
    return [blob for blob in blobs if blob not in known and is_allowed(host, blob)]
