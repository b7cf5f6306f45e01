"""A host that may keep no more waits for us; it must not wait in vain."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy, Way
from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from fakes.tools import Result

KIB = 1024
KEPT = 256 * KIB
SIZE = 24 * KEPT
COMMAND = f"head -c {SIZE} /dev/zero | tr '\\0' x | fold -w 127"
LINES = SIZE + (SIZE - 1) // 127
# far below the patience of a host that hears of nobody: two minutes
SECONDS = 40

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]


@contextlib.contextmanager
def world_behind(tmp_path: Path) -> Generator[tuple[Sshd, Proxy, Path]]:
    """Yield a host, the link to it, and an ssh configuration."""
    home = {"SetEnv": f"HOME={tmp_path}/sshd"}
    with Sshd(tmp_path / "sshd", options=home) as host, Proxy(host.port) as proxy:
        yield host, proxy, proxy.config(host, tmp_path / "config")


def kept_whole(host: Sshd, log: str) -> int:
    """Return up to where it keeps output while that is all it may keep; or -1."""
    (file,) = (host.directory / ".cache/holdfast/kept").glob(f"s*/{log}")
    low = file.with_name(file.name + ".low")
    begin = int(low.read_text()) if low.exists() else 0
    end = file.stat().st_size
    return end if end - begin >= KEPT else -1


async def test_a_run_goes_on_though_what_told_of_its_output_was_lost(
    tmp_path: Path,
) -> None:
    """SE-02, NF-09: it has all that its host may keep, and the host never hears so."""
    limits = f"{QUICK}kept_bytes = {KEPT}\n"
    os.mkfifo(tmp_path / "go")
    with (
        world_behind(tmp_path) as (host, proxy, config),
        served(config, limits=limits) as world,
    ):
        async with tools(world) as ssh:
            await ssh.told("ssh_session_open", target="box", session_name="s")
            told = await ssh.told(
                "ssh_session_run",
                session="s",
                command=f"read -r _ <{tmp_path}/go; {COMMAND}",
                wait_seconds=0,
            )
            job = told["job_id"]
            await ssh.read(job, wait_seconds=0)
            proxy.freeze(Way.UP)
            await asyncio.to_thread(let_go, tmp_path / "go")
            async with asyncio.timeout(SECONDS):
                while not 0 < kept_whole(host, "r/1/o") <= await reached(ssh, job):
                    await moment()
            proxy.rst()
            proxy.heal()
            async with asyncio.timeout(SECONDS):
                told = await ssh.ended(job)
            await ssh.told("ssh_session_close", session="s", force=True)
    assert (told["status"], told["exit_code"]) == ("exited", 0)
    assert told["next_offset"] == LINES


def let_go(fifo: Path) -> None:
    fifo.write_text("go\n")


async def reached(ssh: Tools, job: str) -> int:
    told: Result = await ssh.read(job, max_output_chars=0, tail_lines=1)
    return int(told["next_offset"])


async def test_a_shell_prints_more_than_its_host_may_keep(tmp_path: Path) -> None:
    """SE-02, SE-12: all of it comes, without the host's waiting for nobody."""
    limits = f"{QUICK}kept_bytes = {KEPT}\n"
    with (
        world_behind(tmp_path) as (_, _, config),
        served(config, limits=limits) as world,
    ):
        async with tools(world) as ssh:
            await ssh.told("ssh_session_open", target="box", session_name="s")
            async with asyncio.timeout(SECONDS):
                await ssh.told(
                    "ssh_session_write",
                    session="s",
                    input=f"{COMMAND}; echo o''ver\n",
                    until="over",
                    wait_seconds=SECONDS,
                )
            told = await ssh.told("ssh_session_read", session="s", view="screen")
            await ssh.told("ssh_session_close", session="s", force=True)
    assert "xover\n" in told["output"]
