"""Sessions of any shell whose commands are framed, and the hosts they are on.

`beside`: a held session whose commands have a channel beside its terminal, the usual
way. `inband`: one on a server that opens no second channel, so that they are framed
within the terminal's stream. `remote`: one that is kept on the host, to compare.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from fakes.kept import spare_fish
from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, content, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from fakes.world import World

SHELLS = ("bash", "dash", "zsh", "fish", "ash")
POSIX = ("bash", "dash", "zsh", "ash")
WAYS = ("beside", "inband", "remote")
_SILENT = "does not say which one it is"
_LIMITS = QUICK + "session_turn_seconds = 45\n"
_ALONE = _LIMITS + "connections_per_host = 1\n"

every_way = pytest.mark.parametrize("sessions", WAYS, indirect=True)
held_ways = pytest.mark.parametrize("sessions", WAYS[:2], indirect=True)
roomy_ways = pytest.mark.parametrize("sessions", ["beside", "remote"], indirect=True)
every_shell = pytest.mark.parametrize("shell", SHELLS)
posix_shell = pytest.mark.parametrize("shell", POSIX)


@dataclass(frozen=True, slots=True)
class Place:
    """A host, a daemon that knows it, and the home directory there."""

    world: World
    home: Path


@contextlib.contextmanager
def place(root: Path, limits: str = _LIMITS, **options: str) -> Generator[Place]:
    """Run a host whose home is `root`, and a daemon that knows it."""
    options["SetEnv"] = f"HOME={root}"
    spare_fish(root)
    busybox = shutil.which("busybox")
    if busybox is not None:
        (root / "ash").symlink_to(busybox)
    with Sshd(root, options=options) as sshd, served(sshd, limits=limits) as world:
        yield Place(world, root)


class Session:
    """A session of one shell, reached one way."""

    def __init__(self, ssh: Tools, at: Place, ident: str, way: str) -> None:
        self.ssh = ssh
        self.at = at
        self.id = ident
        self.way = way

    async def run(self, command: str, **more: Any) -> Result:
        """Run a command to its end."""
        more = {"timeout_seconds": 20, "session": self.id, "command": command, **more}
        result = await self.ssh.call("ssh_session_run", **more)
        while self.way == "inband" and "isError" in result and _SILENT in str(result):
            # this machine stood still for so long
            result = await self.ssh.call("ssh_session_run", **more)
        return content(result)

    async def out(self, command: str) -> str:
        """Return what one that must succeed prints."""
        told = await self.run(command)
        assert (told["status"], told.get("exit_code")) == ("exited", 0), told
        return str(told["stdout"])

    def said(self, told: Result) -> tuple[str, str]:
        """Return its streams; where they come together, as one and nothing."""
        return told["stdout"], told["stderr"]


class Sessions:
    """Opens sessions of any shell."""

    def __init__(self, ssh: Tools, at: Place, way: str) -> None:
        self.ssh = ssh
        self.at = at
        self.way = way
        self.opened: list[str] = []

    async def open(self, shell: str, **more: Any) -> Session:
        """Open one."""
        program = str(self.at.home / "ash") if shell == "ash" else shutil.which(shell)
        if program is None or (shell == "ash" and not shutil.which("busybox")):
            pytest.skip(f"{shell} is not installed")
        told = await self.ssh.told(
            "ssh_session_open",
            target="box",
            shell=program,
            durability="remote" if self.way == "remote" else "held",
            **more,
        )
        self.opened.append(told["session_id"])
        return Session(self.ssh, self.at, told["session_id"], self.way)


@dataclass(frozen=True, slots=True)
class Hosts:
    """A server with room for many channels and one that opens one; an agent on each."""

    roomy: tuple[Tools, Place]
    alone: tuple[Tools, Place]

    @contextlib.asynccontextmanager
    async def reached(self, way: str) -> AsyncGenerator[Sessions]:
        """Yield what opens sessions that way; they are closed in the end."""
        ssh, at = self.alone if way == "inband" else self.roomy
        one = Sessions(ssh, at, way)
        yield one
        for ident in one.opened:
            await ssh.told("ssh_session_close", session=ident, force=True)


@contextlib.asynccontextmanager
async def both_hosts(directory: Path) -> AsyncGenerator[Hosts]:
    """Run both; the daemon of the second may log in to it once."""
    for name in ("roomy", "alone"):
        (directory / name).mkdir()
    with (
        place(directory / "roomy") as roomy,
        place(directory / "alone", _ALONE, MaxSessions="1") as alone,
    ):
        async with tools(roomy.world) as many, tools(alone.world) as few:
            yield Hosts((many, roomy), (few, alone))
