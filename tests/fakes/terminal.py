"""A person at a terminal: a program with a controlling terminal of its own."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import pty
import re
import struct
import sys
import termios
from typing import TYPE_CHECKING, Self

from fakes.forked import program, sit_down
from fakes.nursery import CLI

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

# Only the leader of a session can take a terminal as its controlling one.
_LEAD = (
    "import fcntl, os, sys, termios;"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    "os.execv(sys.argv[1], sys.argv[1:])"
)
_LOCAL_FLAGS = 3


class Terminal:
    """Types into a program and reads what it shows; every wait is bounded.

    Attributes:
        shown: All that was shown and not yet waited for.
        said: All that was ever shown.
    """

    def __init__(self, *, seconds: float = 40) -> None:
        self._seconds = seconds
        self._ours, self._theirs = pty.openpty()
        self.shown = b""
        self.said = b""
        self.process: asyncio.subprocess.Process | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        if process is not None and process.returncode is None:
            process.kill()
        for descriptor in (self._ours, self._theirs):
            with contextlib.suppress(OSError):
                os.close(descriptor)

    async def run(
        self, *command: str, env: Mapping[str, str], stdout: int | None = None
    ) -> None:
        """Start a program here; `stdout` may lead elsewhere."""
        env = {**env, "TERM": "vt220"}
        streams = [self._theirs, self._theirs if stdout is None else stdout]
        streams.append(self._theirs)
        if command[0] == program(CLI):
            self.process = await sit_down(CLI, *command[1:], env=env, streams=streams)
        if self.process is not None:
            return
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            _LEAD,
            *command,
            stdin=streams[0],
            stdout=streams[1],
            stderr=streams[2],
            env=env,
            start_new_session=True,
        )

    def type(self, text: str) -> None:
        """Press keys."""
        os.write(self._ours, text.encode())

    async def paste(self, data: bytes) -> None:
        """Press very many keys; more than fit wait until the program reads."""
        await asyncio.to_thread(self._write, data)

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._ours, data) :]

    def resize(self, cols: int, rows: int) -> None:
        """Change the size; the kernel tells the program in the foreground."""
        packed = struct.pack("HHHH", rows, cols, 0, 0)
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, packed)

    def mode(self) -> list[object]:
        """Return how the terminal is set."""
        return termios.tcgetattr(self._theirs)

    def hang_up(self) -> None:
        """Close the window: the kernel hangs up on the program."""
        for descriptor in (self._ours, self._theirs):
            os.close(descriptor)
        self._ours = self._theirs = -1

    async def until(self, pattern: str) -> re.Match[bytes]:
        """Wait until `pattern` is shown, and forget all up to it."""
        wanted = pattern.encode()
        async with asyncio.timeout(self._seconds):
            while True:
                if found := re.search(wanted, self.shown):
                    self.shown = self.shown[found.end() :]
                    return found
                data = await asyncio.to_thread(os.read, self._ours, 4096)
                self.shown += data
                self.said += data

    async def asked(self, pattern: str) -> None:
        """Wait until `pattern` is asked for and what is typed would not be seen."""
        await self.until(pattern)
        assert not self.echoes

    @property
    def echoes(self) -> bool:
        """Whether it shows what is typed."""
        return bool(termios.tcgetattr(self._theirs)[_LOCAL_FLAGS] & termios.ECHO)

    async def ended(self) -> int:
        """Return the exit code."""
        assert self.process is not None
        async with asyncio.timeout(self._seconds):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def sitting(*, seconds: float = 40) -> AsyncGenerator[Terminal]:
    """Yield a terminal whose program is gone at the end."""
    with Terminal(seconds=seconds) as one:
        try:
            yield one
        finally:
            process = one.process
            if process is not None:
                if process.returncode is None:
                    process.kill()
                await process.wait()
