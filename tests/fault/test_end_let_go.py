"""A shell on a host that is left alone while it is being ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on
from fakes.links import make_limits
from holdfast_daemon.errors import LinkError, Ran
from holdfast_daemon.exec.site import Site
from holdfast_daemon.kept.keeper import Keeper
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.secrets import Redactor
from holdfast_daemon.session import remote
from holdfast_daemon.session.remote import Key, RemoteShell
from holdfast_daemon.session.shell import Plan

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.kept.standing import Standing
    from holdfast_daemon.session.shell import ShellEnd

MIB = 1024 * 1024

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]


class Heard:
    """Hears what becomes of it."""

    def __init__(self) -> None:
        self.said = b""
        self.more = asyncio.Event()
        self.over: ShellEnd | None = None

    def printed(self, data: bytes) -> None:
        """Its terminal printed something."""
        self.said += data
        self.more.set()

    def away(self, why: str) -> None:
        """It is let go of."""

    def back(self) -> None:
        """It is there again."""

    def ended(self, end: ShellEnd) -> None:
        """It is over."""
        self.over = end

    async def until(self, word: bytes) -> None:
        """Wait for what it prints."""
        async with asyncio.timeout(40):
            while word not in self.said:
                self.more.clear()
                await self.more.wait()


async def test_its_end_is_not_known_and_who_ended_it_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-11, PK-05: it minds no hang-up; nobody who waits for its end is cancelled."""
    asked = asyncio.Event()

    class Telling(Keeper):
        """Tells when its host has done so."""

        async def end(self, ident: str, *, force: bool) -> Standing:
            told = await super().end(ident, force=force)
            asked.set()
            return told

    monkeypatch.setattr(remote, "Keeper", Telling)
    spool = Spool(
        tmp_path / "spool", limit_bytes=MIB, segment_bytes=MIB, backlog_bytes=MIB
    )
    heard = Heard()
    async with kept_on(tmp_path / "sshd") as kept:
        limits = make_limits(stop_grace_seconds=2)
        site = Site(kept.keeper.host, kept.pool, limits, Redactor())
        shell = RemoteShell(
            site, Key("sone", "x" * 32), heard, spool, on_skipped=lambda _: None
        )
        await shell.open(Plan(shell="/bin/bash"), name="", owner="")
        await shell.write(b"trap '' HUP; echo tra''pped\n")
        await heard.until(b"trapped")
        ending = asyncio.create_task(shell.end(force=False))
        async with asyncio.timeout(40):
            await asked.wait()
        await shell.rest("somebody disconnected")
        with pytest.raises(LinkError) as told:
            await ending
        assert told.value.ran is Ran.UNKNOWN
        assert heard.over is None
        assert (await kept.keeper.look("sone")).state == "running"
        # who ends it again does so
        assert await shell.end(force=False) == "KILL"
        assert heard.over is not None
        await shell.leave()
    await spool.remove()
