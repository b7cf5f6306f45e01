"""What ended on a host goes from there, though the link is cut just then."""

from __future__ import annotations

import asyncio
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(90)]

# far below the time after which what nobody looks at is taken for abandoned
SECONDS = 40.0
SOON = "reap_seconds = 0.2\n"


class Wiping:
    """Holds up who wipes a directory on the host."""

    def __init__(self, directory: Path) -> None:
        self._held, self._asked = directory / "held", directory / "asked"
        self._killed, self._freed = directory / "killed", directory / "freed"
        rm = directory / "bin" / "rm"
        rm.parent.mkdir()
        rm.write_text(
            f'#!/bin/sh\nif [ -e "{self._held}" ] && [ "$1" = -rf ]; then\n'
            f'  : >"{self._asked}"\n'
            f'  until [ -e "{self._freed}" ]; do sleep 0.02; done\n'
            f'  [ ! -e "{self._killed}" ] || {{ kill -s KILL "$PPID"; exit 1; }}\n'
            f'fi\nexec {shutil.which("rm")} "$@"\n'
        )
        rm.chmod(0o755)
        self.path = f"{rm.parent}:{os.environ['PATH']}"

    def hold(self) -> None:
        """From now on."""
        self._held.touch()

    async def asked(self) -> None:
        """Wait until somebody wipes."""
        await soon(self._asked.exists, "the host is asked to forget it")

    def free(self) -> None:
        """Let it go on; the next one may."""
        self._held.unlink()
        self._freed.touch()

    def end(self) -> None:
        """Kill it; the next one may."""
        self._killed.touch()
        self.free()


@dataclass
class Scene:
    """A host behind a bad network."""

    proxy: Proxy
    wiping: Wiping
    config: Path
    kept: Path

    def rooms(self) -> list[str]:
        """Return what is kept there."""
        return [path.name for path in self.kept.glob("[js]*")]

    async def close(self, ssh: Tools) -> None:
        """Close a session, as far as that its host is about to forget it."""
        await ssh.told("ssh_session_open", target="box", session_name="s")
        assert len(self.rooms()) == 1
        self.wiping.hold()
        told = await ssh.told("ssh_session_close", session="s", force=True)
        assert told["closed"]
        await self.wiping.asked()

    async def close_and_cut(self, ssh: Tools) -> None:
        """Close a session; its host goes away while it is being forgotten there."""
        await self.close(ssh)
        await self.cut()

    async def cut(self) -> None:
        """Have the host go away while something is being forgotten there."""
        self.proxy.refuse()
        await asyncio.to_thread(self.proxy.rst)
        self.wiping.end()

    async def run_to_its_end(self, ssh: Tools) -> str:
        """Run a durable command, as far as that its host is about to forget it."""
        self.wiping.hold()
        told = await ssh.run("exit 3", durable=True)
        assert told["exit_code"] == 3
        await self.wiping.asked()
        return str(told["job_id"])

    async def forgotten(self) -> None:
        """Wait until nothing is kept there."""
        await soon(lambda: not self.kept.parent.exists(), "nothing is kept", SECONDS)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    wiping, home = Wiping(tmp_path), tmp_path / "sshd"
    given = {"SetEnv": f"HOME={home} PATH={wiping.path}"}
    with Sshd(home, options=given) as sshd, Proxy(sshd.port) as proxy:
        config = proxy.config(sshd, tmp_path / "config")
        yield Scene(proxy, wiping, config, home / ".cache" / "holdfast" / "kept")


@pytest.fixture
def world(scene: Scene) -> Iterator[World]:
    with served(scene.config, limits=f"{QUICK}jobs_kept = 10\n{SOON}") as one:
        yield one


async def test_a_host_that_went_away_is_told_again_once_it_is_back(
    scene: Scene, world: World
) -> None:
    """SE-08, NF-09: what was closed is not kept until it is taken for abandoned."""
    async with tools(world) as ssh:
        await scene.close_and_cut(ssh)
        knocks = len(scene.proxy.accepted)
        await soon(lambda: len(scene.proxy.accepted) > knocks, "it is tried again")
        assert len(scene.rooms()) == 1
        scene.proxy.heal()
        await scene.forgotten()


@pytest.mark.parametrize("way", ["stopped", "killed"])
async def test_the_next_daemon_tells_a_host_what_the_last_one_could_not(
    scene: Scene, world: World, way: str
) -> None:
    """SE-08, NF-20: its record says so."""
    async with tools(world, "--no-autostart") as ssh:
        await scene.close_and_cut(ssh)
        async with asyncio.timeout(SECONDS):
            await asyncio.to_thread(world.stop if way == "stopped" else world.kill)
        assert len(scene.rooms()) == 1
        scene.proxy.heal()
        await asyncio.to_thread(world.start)
        await scene.forgotten()
        told = await ssh.told("ssh_session_list", include_exited=True)
        assert [one["running"] for one in told["sessions"]] == [False]


async def test_who_disconnects_right_after_a_close_leaves_nothing_on_the_host(
    scene: Scene, world: World
) -> None:
    """SE-08: what is due there is done first, and needs no force."""
    async with tools(world) as ssh:
        await scene.close(ssh)
        leaving = asyncio.create_task(ssh.told("ssh_disconnect", target="box"))
        # it is refused within that where nobody waits
        await asyncio.wait({leaving}, timeout=0.5)
        scene.wiping.free()
        await leaving
        assert not scene.kept.parent.exists()


async def test_who_disconnects_is_not_connected_again_for_it(
    scene: Scene, world: World
) -> None:
    """SE-08, NF-09: it waits for the next one who connects there."""
    async with tools(world) as ssh:
        await scene.close_and_cut(ssh)
        scene.proxy.heal()
        await ssh.told("ssh_disconnect", target="box", force=True)
        await ssh.told("ssh_connect", target="box")
        await scene.forgotten()


async def test_a_host_forgets_a_durable_command_once_somebody_is_connected_again(
    scene: Scene, world: World
) -> None:
    """NF-10: its directory does not wait for the next daemon."""
    async with tools(world) as ssh:
        await scene.run_to_its_end(ssh)
        await scene.cut()
        assert len(scene.rooms()) == 1
        scene.proxy.heal()
        await ssh.told("ssh_connect", target="box")
        await scene.forgotten()


async def test_a_job_goes_when_its_host_forgot_it_and_does_not_come_back(
    scene: Scene, world: World
) -> None:
    """NF-10, issue 6 point 8: its record would stay on this machine's disk."""
    async with tools(world) as ssh:
        record = world.state / "jobs" / await scene.run_to_its_end(ssh)
        for _ in range(11):
            await ssh.run("true")
        scene.wiping.free()
        await scene.forgotten()
        async with asyncio.timeout(60):
            # where its link was lost on the way, it is told over the next one
            while record.exists():
                await ssh.run("true")
        for _ in range(3):
            last = (await ssh.run("true"))["job_id"]
            file = world.state / "jobs" / last / "job.json"
            await soon(file.exists, "what was noted by then is written")
        assert not record.exists()
