"""A host of a test's own that things are kept on, and what is left of them there."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from fakes.links import Collector, find_host, make_limits, make_pool
from fakes.sshd import Sshd
from fakes.watch import alive, soon
from holdfast_daemon.kept.follower import Follower
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.kept.standing import Plan

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from holdfast_daemon.connection.pool import Pool
    from holdfast_daemon.kept.line import Line
    from holdfast_daemon.kept.standing import Kind, Standing
    from holdfast_daemon.streams import Stream

KINDS: tuple[Kind, ...] = ("script", "python", "tmux", "pipe")


def spare_fish(home: Path) -> None:
    """Keep fish from reading all manuals for completions, as in each new home."""
    made = home / ".local" / "share" / "fish" / "generated_completions"
    made.mkdir(parents=True, exist_ok=True)


class Kept:
    """One host, and a keeper for it."""

    def __init__(self, sshd: Sshd, keeper: Keeper, pool: Pool) -> None:
        self.sshd = sshd
        self.keeper = keeper
        self.pool = pool
        self.room = sshd.directory / ".cache" / "holdfast" / "kept"

    async def start(
        self,
        ident: str,
        kind: Kind = "auto",
        *,
        shell: str = "/bin/bash",
        cwd: str = "",
        env: dict[str, str] | None = None,
    ) -> tuple[Standing, str]:
        """Start a shell; return how it stands, and its nonce."""
        nonce = secrets.token_hex(16)
        plan = Plan(
            ident, nonce, kind=kind, shell=shell, cwd=cwd, env=env or {}, name="box"
        )
        async with asyncio.timeout(40):
            return await self.keeper.start(plan), nonce

    async def attach(
        self, ident: str, nonce: str, offset: int = 0, *, looking: bool = False
    ) -> tuple[Line, Collector]:
        """Attach with a collector of its own."""
        sink = Collector()
        async with asyncio.timeout(40):
            line = await self.keeper.attach(
                ident, nonce, offset, sink, input=not looking
            )
        return line, sink

    def number(self, ident: str, name: str) -> int:
        """Return the process that a file of it names."""
        return int((self.room / ident / name).read_text().split()[0])

    def processes(self) -> list[str]:
        """Return what runs here with this host's home directory."""
        found: list[str] = []
        mark = f"HOME={self.sshd.directory}".encode()
        for directory in Path("/proc").iterdir():
            if not directory.name.isdigit():
                continue
            with contextlib.suppress(OSError):
                if mark not in (directory / "environ").read_bytes().split(b"\0"):
                    continue
                line = (directory / "cmdline").read_bytes()
                if line and alive(int(directory.name)):
                    found.append(line.replace(b"\0", b" ").decode()[:200])
        return found


@contextlib.asynccontextmanager
async def kept_on(
    directory: Path,
    *,
    path: str = "",
    config: Path | None = None,
    sshd: Sshd | None = None,
    **limits: float,
) -> AsyncGenerator[Kept]:
    """Yield a host; whatever is kept there is wiped at the end, and nothing is left."""
    with contextlib.ExitStack() as stack:
        if sshd is None:
            given = f"HOME={directory}" + (f" PATH={path}" if path else "")
            sshd = stack.enter_context(Sshd(directory, options={"SetEnv": given}))
        host = await find_host(config or sshd.config)
        made = make_limits(**limits)
        pool = make_pool(**limits)
        kept = Kept(sshd, Keeper(pool, host, made), pool)
        try:
            yield kept
        finally:
            # a pool of its own: the test's may be in any state
            await pool.close()
            other = make_pool()
            keeper = Keeper(other, await find_host(sshd.config), made)
            for standing in await keeper.list():
                await keeper.wipe(standing.ident)
            await other.close()
        assert not kept.room.parent.exists(), list(kept.room.rglob("*"))
        sshd.stop()
        await soon(lambda: not kept.processes(), f"all gone: {kept.processes()}")


class Reading:
    """Everything of one thing, by a follower that asks where it stood."""

    def __init__(self, kept: Kept, ident: str, nonce: str) -> None:
        self.data = b""
        self.base = 0
        self.times_away = 0
        self._grown = asyncio.Event()
        self.follower = Follower(
            kept.keeper,
            ident,
            nonce,
            lambda: self.base + len(self.data),
            self,
            on_away=self._away,
            on_skipped=self._skipped,
        )
        self.follower.start()

    def received(self, stream: Stream, data: bytes) -> None:  # noqa: ARG002
        """Keep `data`."""
        self.data += data
        self._grown.set()

    def _away(self, why: str) -> None:  # noqa: ARG002
        self.times_away += 1

    def _skipped(self, offset: int) -> None:
        self.base = offset
        self.data = b""

    async def more(self, size: int, seconds: float = 40) -> None:
        """Wait until there are `size` bytes, or all there will be."""
        async with asyncio.timeout(seconds):
            while len(self.data) < size and self.follower.end is None:
                self._grown.clear()
                await self._grown.wait()
