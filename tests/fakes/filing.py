"""Hosts whose files are worked on, by an agent's tools: with all programs, and few."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from fakes.sshd import Sshd, sshd_binary
from fakes.tools import content, failure

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.tools import Result, Tools

# The kinds of hosts whose files are worked on.
HOSTS = ("all programs", "busybox only", "SFTP only")


def host_of_files(directory: Path, kind: str = "all programs", path: str = "") -> Sshd:
    """Return a host with an empty home, not started yet; skip where there is no sshd.

    `kind` is one of `HOSTS`; `path` is the PATH of its programs, if not the usual one.
    """
    if sshd_binary() is None:
        pytest.skip("no sshd here: run packaging/test-packages.sh")
    home = directory / "remote-home"
    home.mkdir()
    options = {"SetEnv": f"HOME={home}"}
    if kind == "busybox only":
        path = str(only_busybox(directory / "bin"))
    if path:
        options["SetEnv"] += f" PATH={path}"
    if kind == "SFTP only":
        options |= {
            "ForceCommand": "internal-sftp",
            "Subsystem": "sftp internal-sftp",
        }
    return Sshd(directory, options=options)


def only_busybox(directory: Path) -> Path:
    """Make a directory of programs that holds busybox and nothing else."""
    directory.mkdir()
    busybox = directory / "busybox"
    found = subprocess.run(
        ["which", "busybox"], check=True, capture_output=True, text=True
    )
    busybox.symlink_to(found.stdout.strip())
    listed = subprocess.run(
        ["busybox", "--list"], check=True, capture_output=True, text=True
    )
    for name in listed.stdout.split():
        if name != "busybox":
            (directory / name).symlink_to(busybox)
    return directory


class Desk:
    """One agent's file tools on one host, and a directory to work in."""

    def __init__(self, ssh: Tools, place: Path, target: str = "box") -> None:
        self.ssh = ssh
        self.place = place
        self.target = target

    async def call(self, tool: str, **arguments: Any) -> Result:
        """Call a tool; return its whole result."""
        return await self.ssh.call(tool, **{"target": self.target, **arguments})

    async def told(self, tool: str, **arguments: Any) -> Result:
        """Call a tool that answers."""
        return content(await self.call(tool, **arguments))

    async def refused(self, tool: str, **arguments: Any) -> Result:
        """Call a tool that refuses; return why."""
        return failure(await self.call(tool, **arguments))

    async def read(self, path: Path | str, **arguments: Any) -> Result:
        """Read a file."""
        return await self.told("ssh_file_read", path=str(path), **arguments)

    async def write(self, path: Path | str, text: str, **arguments: Any) -> Result:
        """Write a file."""
        return await self.told(
            "ssh_file_write", path=str(path), content=text, **arguments
        )

    async def edit(self, path: Path | str, *pairs: tuple[str, str]) -> Result:
        """Edit a file."""
        edits = [{"old": old, "new": new} for old, new in pairs]
        return await self.told("ssh_file_edit", path=str(path), edits=edits)
