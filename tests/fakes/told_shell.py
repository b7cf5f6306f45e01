"""One kept shell on a real host, and the commands that it is told."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.kept import Kept, kept_on, spare_fish
from fakes.links import Collector
from fakes.watch import soon
from holdfast_daemon.kept import wrapper
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.kept.run_line import RunEnd, RunLine


def tellers(room: Path) -> set[int]:
    """Return the processes that tell what is kept in `room` something, or wait to."""
    found: dict[int, int] = {}
    for process in Path("/proc").iterdir():
        # others may end just then
        with contextlib.suppress(OSError):
            called = (process / "cmdline").read_bytes().startswith(b"/bin/sh\0-c\0")
            if called and (process / "cwd").readlink() == room:
                told = (process / "stat").read_text().rpartition(") ")[2]
                found[int(process.name)] = int(told.split()[1])
    # and not what they begin themselves
    return {pid for pid, parent in found.items() if parent not in found}


class Session:
    """One kept shell that is told commands."""

    def __init__(self, kept: Kept, runs: Runs, family: wrapper.Family) -> None:
        self.kept = kept
        self.runs = runs
        self.family: wrapper.Family = family
        self.number = 0
        self.nonce = ""

    async def start(self, command: str) -> tuple[RunLine, Collector]:
        """Tell it the next command."""
        self.number += 1
        self.nonce = new_nonce()
        sink = Collector()
        line = await self.runs.start(
            "sone", self.number, self.nonce, self.family, command, sink
        )
        return line, sink

    @property
    def room(self) -> Path:
        """Where it is kept."""
        return self.kept.room / "sone"

    async def ahead(self) -> int:
        """Have its next command waited for on the host; return who does so there."""
        before = tellers(self.room)
        self.runs.prepare("sone", self.number + 1)
        found = await soon(lambda: tellers(self.room) - before, "one waits")
        return found.pop()

    def readers(self) -> list[str]:
        """Return who reads what its last command prints, by process."""
        found = (self.room / f"r/{self.number}/o.readers").iterdir()
        return [reader.name for reader in found]

    async def run(self, command: str) -> tuple[RunEnd, bytes, bytes]:
        """Run one to its end."""
        line, sink = await self.start(command)
        async with asyncio.timeout(40):
            end = await line.ended()
        line.forget()
        return end, sink.out, sink.err

    async def out(self, command: str) -> bytes:
        """Return what one that must succeed prints."""
        end, out, err = await self.run(command)
        assert (end.exit_code, end.lost, err) == (0, None, b""), (command, end, err)
        return out

    async def code(self, command: str) -> int | None:
        """Return its exit code."""
        return (await self.run(command))[0].exit_code

    def terminal(self) -> bytes:
        """Return all that its terminal printed so far."""
        return (self.kept.room / "sone" / "out").read_bytes()


@contextlib.asynccontextmanager
async def session(
    home: Path,
    shell: str,
    files: dict[str, str] | None = None,
    *,
    kept_bytes: int = 64 * 1024 * 1024,
    channels_waiting_seconds: float = 60,
) -> AsyncGenerator[Session]:
    """Yield a session in `shell`, its home directory with `files`."""
    program = shutil.which("busybox" if shell == "ash" else shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "ash":
        (home / "ash").symlink_to(program)
        program = str(home / "ash")
    spare_fish(home)
    for name, text in (files or {}).items():
        (home / name).write_text(text)
    async with kept_on(
        home,
        kept_bytes=kept_bytes,
        channels_waiting_seconds=channels_waiting_seconds,
    ) as kept:
        standing, _ = await kept.start("sone", shell=program)
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        yield Session(kept, runs, family)
