"""Somebody who uses a real client: a home, a project, and a daemon with its host."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from clients.kit import Done, Kit, run, running
from fakes.world import World, program

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

SHIM = program("holdfast-mcp")


class Person:
    """One person.

    Attributes:
        home: Where the clients keep what is theirs.
        project: The working directory of every client.
        more: Further environment of every client.
    """

    def __init__(self, kit: Kit, world: World, root: Path) -> None:
        self.world = world
        self.home = root / "home"
        self.project = self.home / "project"
        self.project.mkdir(parents=True)
        self.environment = kit.environment(self.home, world.environment)
        self.more: dict[str, str] = {}

    def tell(self, client: str, *words: str) -> None:
        """Let `holdfast mcp-config --write` tell a client of this world's daemon."""
        subprocess.run(
            [program("holdfast"), "--socket", str(self.world.socket), "mcp-config",
             client, "--write", *words],
            env=self.environment,
            cwd=self.project,
            check=True,
            capture_output=True,
            timeout=60,
        )  # fmt: skip

    def run(self, *words: str, seconds: float = 60) -> Done:
        """Run a client to its end."""
        return run(
            words,
            environment=self.environment | self.more,
            cwd=self.project,
            seconds=seconds,
        )

    def running(
        self, *words: str, stdin: int = subprocess.DEVNULL
    ) -> AbstractContextManager[subprocess.Popen[str]]:
        """Run a client until the block ends."""
        environment = self.environment | self.more
        return running(words, environment=environment, cwd=self.project, stdin=stdin)
