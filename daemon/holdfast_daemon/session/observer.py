"""A window of tmux in which a person sees a session, on a tmux server of our own.

The window runs `holdfast attach ID --watch`: it only looks. Names of hosts never reach
tmux, which would read some of their characters as its own; a session goes by its id.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SOCKET_NAME = "tmux.sock"
_SECONDS = 5.0
_PATH_BYTES = 100


class Mode(StrEnum):
    """How a person can look."""

    NONE = "none"
    TMUX = "tmux"


@dataclass(frozen=True, slots=True)
class View:
    """How a person sees a session.

    Attributes:
        mode: What was set up.
        command: The command line that shows it.
        warning: Why it is not what was asked for; empty when it is.
    """

    mode: Mode
    command: str
    warning: str = ""


class Observers:
    """All windows of this daemon."""

    def __init__(
        self,
        directory: Path,
        *,
        socket: Path,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = (),
    ) -> None:
        """Touch nothing yet.

        Args:
            directory: Private, 0700; tmux's socket lies there.
            socket: The daemon's, for the program that looks.
            env: The daemon's environment, where it is not this process's.
            program: The words of `holdfast`, where it is not the installed one.
        """
        self._socket = directory / SOCKET_NAME
        self._env = dict(os.environ if env is None else env)
        # Who has the daemon in a place of its own needs it named on the command line.
        named = "HOLDFAST_SOCKET" in self._env
        self._prefix = ("env", f"HOLDFAST_SOCKET={socket}") if named else ()
        self._env["HOLDFAST_SOCKET"] = str(socket)
        # Within tmux, tmux would speak to the server around it.
        for name in ("TMUX", "TMUX_PANE"):
            self._env.pop(name, None)
        self._program = tuple(program) or (_holdfast(self._env),)
        self._open: set[str] = set()

    def plain(self, ident: str) -> View:
        """Return how a person sees a session that has no window."""
        return View(Mode.NONE, self._command(ident))

    async def open(self, ident: str, *, cols: int, rows: int) -> View:
        """Open a window, or find the one that an earlier daemon opened; never fails."""
        tmux = await self._find()
        if tmux is None:
            return self._instead(ident, "tmux is not installed here")
        if len(os.fsencode(self._socket)) > _PATH_BYTES:
            return self._instead(ident, f"{self._socket} is too long for a socket")
        if await self._tmux(tmux, "has-session", "-t", f"={ident}"):
            told = await self._tmux(
                tmux,
                *("-f", os.devnull, "new-session", "-d", "-s", ident),
                *("-x", str(cols), "-y", str(rows), "--", *self._watch(ident)),
            )
            if told:
                return self._instead(ident, told)
        self._open.add(ident)
        # Not `=ID`, which zsh would take for the path of a command.
        attach = [tmux, "-S", str(self._socket), "attach-session", "-t", ident]
        return View(Mode.TMUX, shlex.join(attach))

    async def unseen(self, ident: str) -> bool:
        """Whether the window of a session is there, and no person looks at it."""
        tmux = await self._find()
        if ident not in self._open or tmux is None:
            return False
        words = ("display-message", "-p", "-t", f"={ident}:", "#{session_attached}")
        said, _ = await self._ask(tmux, *words)
        return said == "0"

    async def close(self, ident: str) -> None:
        """Close the window of a session, if it has one."""
        tmux = await self._find()
        if ident in self._open and tmux is not None:
            self._open.remove(ident)
            await self._tmux(tmux, "kill-session", "-t", f"={ident}")

    async def close_all(self) -> None:
        """Close every window, those of an earlier daemon too."""
        tmux = await self._find()
        if tmux is not None and await asyncio.to_thread(self._socket.exists):
            await self._tmux(tmux, "kill-server")
        self._open.clear()

    def _watch(self, ident: str) -> list[str]:
        return [*self._program, "attach", ident, "--watch"]

    def _instead(self, ident: str, why: str) -> View:
        warning = f"no tmux window: {why}; use the command instead"
        return View(Mode.NONE, self._command(ident), warning)

    def _command(self, ident: str) -> str:
        return shlex.join((*self._prefix, *self._watch(ident)))

    async def _find(self) -> str | None:
        path = self._env.get("PATH")
        return await asyncio.to_thread(shutil.which, "tmux", path=path)

    async def _tmux(self, tmux: str, *words: str) -> str:
        """Run tmux; return why it failed, nothing when it did not."""
        _, why = await self._ask(tmux, *words)
        return why

    async def _ask(self, tmux: str, *words: str) -> tuple[str, str]:
        """Run tmux; return what it says, and why it failed."""
        try:
            process = await asyncio.create_subprocess_exec(
                *(tmux, "-S", str(self._socket), *words),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=self._env,
                cwd="/",
            )
        except OSError as error:
            return "", f"tmux can't be started: {error.strerror}"
        try:
            async with asyncio.timeout(_SECONDS):
                said, trouble = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return "", f"tmux did not answer within {_SECONDS:g} s"
        if process.returncode == 0:
            return said.decode(errors="replace").strip(), ""
        return "", trouble.decode(errors="replace").strip() or "tmux failed"


def _holdfast(env: Mapping[str, str]) -> str:
    """Return the program beside this daemon, else the one on the PATH."""
    beside = Path(sys.executable).with_name("holdfast")
    if beside.exists():
        return str(beside)
    return shutil.which("holdfast", path=env.get("PATH")) or "holdfast"
