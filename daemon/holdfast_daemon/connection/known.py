"""What known_hosts says of a host before it shows its key; for `holdfast doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from holdfast_daemon.hosts.trust import Trust

if TYPE_CHECKING:
    from holdfast_daemon.hosts.host import Host


class Known(NamedTuple):
    """The lines that speak of a host, in words."""

    lines: tuple[str, ...]

    def place_of(self, fingerprint: str) -> str:
        """Return the line that knows a key, or nothing."""
        return next((line for line in self.lines if fingerprint in line), "")


def known(host: Host) -> Known:
    """Read the known_hosts files of `host`. Blocks."""
    trust = Trust.load(host)
    return Known(
        tuple(
            " ".join(
                filter(
                    None,
                    (key.marker, key.key_type, key.fingerprint, f"({key.place})"),
                )
            )
            for key in (*trust.named, *trust.without_port)
        )
    )
