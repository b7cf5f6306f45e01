"""Files that an agent's ssh_copy takes to a host or from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fakes.tools import content, failure
from fakes.watch import weight

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.tools import Result, Tools

WAYS = ("upload", "download")


class Ways:
    """A place here and one on the host, both of which a test can look at.

    Attributes:
        source: The directory whose files are copied.
        destination: The directory they go to.
    """

    def __init__(
        self, ssh: Tools | None, place: Path, way: str, target: str = "box"
    ) -> None:
        self._ssh = ssh
        self.way = way
        self.target = target
        self.source = place / "source"
        self.destination = place / "destination"
        self.source.mkdir()
        self.destination.mkdir()

    @property
    def ssh(self) -> Tools:
        """Whose tools they are."""
        assert self._ssh is not None
        return self._ssh

    @ssh.setter
    def ssh(self, ssh: Tools) -> None:
        self._ssh = ssh

    def filled(self, *names: str, **arguments: Any) -> dict[str, Any]:
        """Return the arguments of a call; names are below the source."""
        sources = [str(self.source / name) for name in names]
        return {
            "target": self.target,
            "direction": self.way,
            "sources": sources,
            "destination": f"{self.destination}/",
            **arguments,
        }

    async def copy(self, *names: str, **arguments: Any) -> Result:
        """Copy; it must be done."""
        return content(
            await self.ssh.call("ssh_copy", **self.filled(*names, **arguments))
        )

    async def refused(self, *names: str, **arguments: Any) -> Result:
        """Copy; it must fail; return why."""
        return failure(
            await self.ssh.call("ssh_copy", **self.filled(*names, **arguments))
        )

    def left(self) -> list[str]:
        """Return what lies in the destination, hidden names too."""
        return sorted(one.name for one in self.destination.iterdir())

    def arrived(self) -> int:
        """Return how many bytes lie in the destination, in hidden parts too."""
        return weight(self.destination)
