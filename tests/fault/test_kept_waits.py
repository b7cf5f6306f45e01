"""Both sides of what is kept on a host: neither waits in vain, or goes on too early."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from fakes.kept import Kept, Reading, kept_on
from fakes.links import Collector
from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, served, tools
from fakes.watch import soon
from holdfast_daemon.kept import run_line, wrapper
from holdfast_daemon.kept.runs import Program, Runs, new_nonce

if TYPE_CHECKING:
    from pathlib import Path

KIB = 1024
KEPT = 256 * KIB
PRINTED = 16 * KEPT
# far below the patience of a host that hears of nobody: two minutes
SECONDS = 40

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


def flood(size: int = PRINTED) -> str:
    return f"head -c {size} /dev/zero | tr '\\0' x | fold -w 127"


class Refusal:
    """While it is on nothing is written down on the host: as with a full disk."""

    def __init__(self, directory: Path) -> None:
        self._flag = directory / "full"
        self._refused = directory / "refused"
        mv = directory / "bin" / "mv"
        mv.parent.mkdir()
        mv.write_text(
            f'#!/bin/sh\nif [ -e "{self._flag}" ]; then'
            f' cat "$2" >>"{self._refused}"; exit 1; fi\n'
            f'exec {shutil.which("mv")} "$@"\n'
        )
        mv.chmod(0o755)
        self.path = f"{mv.parent}:{os.environ['PATH']}"

    def begin(self) -> None:
        self._flag.touch()

    def end(self) -> None:
        self._flag.unlink()

    def told(self) -> int:
        """Return the largest number that could not be written down."""
        if not self._refused.exists():
            return -1
        # a moment is none of them
        numbers = [int(line) for line in self._refused.read_text().split()]
        return max((n for n in numbers if n < PRINTED), default=-1)


def log_of(home: Path, name: str) -> Path:
    (found,) = (home / ".cache/holdfast/kept").glob(f"*/{name}")
    return found


def bare_kept(host: Kept) -> Runs:
    asking = host.keeper.asking
    return Runs(asking.pool, asking.host, asking.limits)


class Safe(Collector):
    """Keeps everything, at once for good."""

    async def saved(self) -> bool:
        """Say so."""
        return True


async def test_a_command_goes_on_though_its_host_could_not_write_down_what_is_safe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-02, NF-09: what was told to a full disk is told again."""
    monkeypatch.setattr(run_line, "_LOOK_SECONDS", 0.3)
    home = tmp_path / "home"
    home.mkdir()
    refusal = Refusal(tmp_path)
    async with kept_on(home, path=refusal.path, kept_bytes=KEPT) as kept:
        runs, sink, nonce = bare_kept(kept), Safe(), new_nonce()
        gate = f"until [ -e {home}/go ]; do sleep 0.02; done"
        await runs.begin("jone", nonce, Program(f"{gate}; {flood()}"))
        line = await runs.follow("jone", 1, nonce, (0, 0), sink, saved=sink.saved)
        refusal.begin()
        (home / "go").touch()
        log = log_of(home, "r/1/o")
        await soon(
            lambda: KEPT <= log.stat().st_size <= refusal.told(), "it was told in vain"
        )
        refusal.end()
        async with asyncio.timeout(SECONDS):
            end = await line.ended()
        line.forget()
        assert (end.exit_code, end.lost) == (0, None)
        assert len(sink.out) == PRINTED + (PRINTED - 1) // 127


async def test_a_shell_goes_on_though_its_host_could_not_write_down_what_is_safe(
    tmp_path: Path,
) -> None:
    """SE-02, NF-09: the daemon hears that it failed, and tries again."""
    refusal = Refusal(tmp_path)
    home = tmp_path / "sshd"
    given = {"SetEnv": f"HOME={home} PATH={refusal.path}"}
    limits = f"{QUICK}kept_bytes = {KEPT}\n"
    with Sshd(home, options=given) as host, served(host, limits=limits) as world:
        async with tools(world) as ssh:
            await ssh.told("ssh_session_open", target="box", session_name="s")
            refusal.begin()
            typed = f"{flood()}; echo o''ver\n"
            await ssh.told("ssh_session_write", session="s", input=typed)
            log = log_of(home, "out")
            await soon(
                lambda: KEPT <= log.stat().st_size < refusal.told() + KEPT // 8,
                "it was told in vain",
            )
            refusal.end()
            told = await ssh.told(
                "ssh_session_read", session="s", until="over", wait_seconds=SECONDS
            )
            assert told["matched"], told
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_a_shell_on_a_host_without_a_channel_to_spare_goes_on(
    tmp_path: Path,
) -> None:
    """SE-02, SE-21: what its host waits for comes by one more connection."""
    home = tmp_path / "sshd"
    given = {"SetEnv": f"HOME={home}", "MaxSessions": "1"}
    limits = (
        f"{QUICK}kept_bytes = {KEPT}\n"
        "connections_per_host = 1\nchannels_per_connection = 1\n"
    )
    with Sshd(home, options=given) as host, served(host, limits=limits) as world:
        async with tools(world) as ssh:
            await ssh.told("ssh_session_open", target="box", session_name="s")
            typed = f"{flood()}; echo o''ver\n"
            async with asyncio.timeout(SECONDS):
                await ssh.told(
                    "ssh_session_write",
                    session="s",
                    input=typed,
                    until="over",
                    wait_seconds=SECONDS,
                )
            told = await ssh.told("ssh_session_read", session="s", view="screen")
            assert "xover\n" in told["output"]
            # that one is nobody else's, so it stays stoppable too
            told = await ssh.refused("ssh_exec", command="sleep 60", wait_seconds=0)
            assert told["reason"] == "LIMIT_REACHED"
            told = await ssh.told("ssh_session_close", session="s")
            assert told["closed"]


async def test_a_reader_who_had_nothing_to_say_for_long_is_waited_for(
    tmp_path: Path,
) -> None:
    """SE-06, SE-09: a slow link after a quiet hour: nothing of a flood is dropped."""
    cap, home = 6 * KIB * KIB, tmp_path / "home"
    with (
        Sshd(home, options={"SetEnv": f"HOME={home}"}) as sshd,
        Proxy(sshd.port) as proxy,
    ):
        config = proxy.config(sshd, tmp_path / "config")
        async with kept_on(
            home, sshd=sshd, config=config, kept_bytes=cap, kept_patience_seconds=30
        ) as kept:
            _, nonce = await kept.start("sone", "script")
            reading = Reading(kept, "sone", nonce)
            await reading.follower.attached()
            room = kept.room / "sone"
            (room / "seen").write_text(f"{int(time.time()) - 3600}\n")
            proxy.throttle(256 * KIB)
            await reading.follower.write(b"seq -f line-%.0f-end 1 1000000; exit 2\n")
            out = room / "out"
            await soon(lambda: out.stat().st_size >= cap, "it may keep no more")
            await reading.more(len(reading.data) + 128 * KIB)
            assert not (room / "out.low").exists()
            assert out.stat().st_size < 2 * cap
            proxy.heal()
            await reading.follower.close()


async def test_a_command_whose_shell_is_killed_while_its_output_waits_comes_to_an_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-09: who was to write down how it ended was killed too; nobody waits for it."""
    monkeypatch.setattr(run_line, "_LOOK_SECONDS", 0.3)
    safe = asyncio.Event()

    async def saved() -> bool:
        return await safe.wait()

    async with kept_on(tmp_path, kept_bytes=KEPT) as kept:
        standing, _ = await kept.start("sone")
        runs, sink, nonce = bare_kept(kept), Collector(), new_nonce()
        family = wrapper.family(standing.shell)
        await runs.prime("sone", family)
        line = await runs.start("sone", 1, nonce, family, flood(), sink, saved=saved)
        log = log_of(tmp_path, "r/1/o")
        await soon(lambda: log.stat().st_size >= KEPT, "it may keep no more")
        await kept.keeper.end("sone", force=True)
        safe.set()
        async with asyncio.timeout(SECONDS):
            end = await line.ended()
        assert (end.exit_code, end.gone) == (None, False)
        assert end.lost


async def test_who_comes_late_to_have_a_command_forgotten_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-10: its line waits only so long, as while a disk refuses; others tell it."""
    monkeypatch.setattr(run_line, "_KEEP_SECONDS", 0.01)
    async with kept_on(tmp_path) as kept:
        runs, sink, nonce = bare_kept(kept), Safe(), new_nonce()
        await runs.begin("jone", nonce, Program("echo on"))
        line = await runs.follow("jone", 1, nonce, (0, 0), sink, saved=sink.saved)
        async with asyncio.timeout(SECONDS):
            assert (await line.ended()).exit_code == 0
        log = log_of(tmp_path, "r/1/o")
        readers = log.with_name("o.readers")
        await soon(lambda: not [*readers.iterdir()], "nobody reads it")
        assert line.forget() is False
        assert log.exists()
