"""After a stop nothing of ours runs: neither here nor on the hosts."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import descendants
from fakes.tools import QUICK, served, tools
from fakes.watch import alive, soon, started_by
from fakes.world import program

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from fakes.tools import Tools
    from fakes.world import World

pytestmark = [pytest.mark.xdist_group("stop_orphans"), pytest.mark.needs_sshd]

# Carries the connection, notes its process, and leaves a child that outlives it.
PROXY = """
import os, socket, subprocess, sys, threading
note, host, port = sys.argv[1:]
child = subprocess.Popen(["sleep", "1000"])
with open(note, "a") as file:
    file.write(f"{os.getpid()} {child.pid}\\n")
link = socket.create_connection((host, int(port)))
def up():
    while data := os.read(0, 65536):
        link.sendall(data)
threading.Thread(target=up, daemon=True).start()
while data := link.recv(65536):
    os.write(1, data)
"""
# What commands do with the signals that come when they are left alone.
HABITS = {
    "plain": "exec sleep 1000",
    "with children": "sleep 1000 & sleep 1000 & wait",
    "ignores INT and TERM": "trap '' INT TERM; sleep 1000; sleep 1000",
    "a pipeline": "sleep 1000 | cat | cat",
}


class Tree:
    """A daemon with a proxied host, and all that it started."""

    def __init__(self, world: World, directory: Path) -> None:
        self.world = world
        self.note = directory / "proxies"
        self.mark = directory / "mark"
        self.mark.mkdir()

    def proxies(self) -> list[int]:
        if not self.note.exists():
            return []
        return [int(word) for word in self.note.read_text().split()]

    def command(self, name: str) -> str:
        """Return a command that is known by its working directory."""
        return f"echo up; {HABITS[name]}"

    def remote(self) -> list[int]:
        """Return the processes that stand in our directory on the host."""
        found: list[int] = []
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            try:
                place = (process / "cwd").readlink()
            except OSError:
                continue
            if place == self.mark and alive(int(process.name)):
                found.append(int(process.name))
        return found

    async def fill(self, ssh: Tools) -> None:
        """Start a command of each habit over a proxied and over a plain connection."""
        jobs = [
            await ssh.start(self.command(name), target=target, cwd=str(self.mark))
            for target in ("box", "proxied")
            for name in HABITS
        ]
        for job in jobs:
            await ssh.until(job, "up")
        assert len(self.remote()) >= 2 * len(HABITS)
        assert self.proxies()
        assert all(map(alive, self.proxies()))


@pytest.fixture
def tree(sshd: Sshd, tmp_path: Path) -> Iterator[Tree]:
    script = tmp_path / "proxy.py"
    script.write_text(PROXY)
    words = [sys.executable, str(script), str(tmp_path / "proxies")]
    command = f"  ProxyCommand {shlex.join(words)} %h %p\n"
    config = tmp_path / "ssh_config"
    config.write_text(
        sshd.client_config() + sshd.client_config("proxied", extra=command)
    )
    with served(config, limits=f"{QUICK}stop_seconds = 5\n") as world:
        one = Tree(world, tmp_path)
        yield one
    for pid in (*one.remote(), *filter(alive, one.proxies())):
        os.kill(pid, signal.SIGKILL)


async def test_a_stop_leaves_no_process_here_or_there(tree: Tree, sshd: Sshd) -> None:
    """PK-05: proxies and their children, commands of every habit, connections."""
    async with tools(tree.world, target="") as ssh:
        await tree.fill(ssh)
        ours = descendants(tree.world.pid)
        assert ours
        before = len(descendants(sshd.pid))
        assert before
        assert await asyncio.to_thread(tree.world.stop) == 0
    await soon(lambda: not any(map(alive, ours)), "the daemon's children ended")
    await soon(lambda: not any(map(alive, tree.proxies())), "the proxies ended")
    await soon(lambda: not tree.remote(), "the commands ended")
    await soon(lambda: not descendants(sshd.pid), "the connections ended")
    assert not started_by(str(tree.world.root))
    assert not tree.world.socket.exists()


async def test_what_asked_to_outlive_a_hang_up_does_and_that_is_told(
    tree: Tree,
) -> None:
    """PK-05, EX-01: as with ssh and nohup; the job is lost, and never a success."""
    async with tools(tree.world) as ssh:
        command = "trap '' HUP; echo up; sleep 1000; sleep 1000"
        job = await ssh.start(command, cwd=str(tree.mark))
        await ssh.until(job, "up")
        assert await asyncio.to_thread(tree.world.stop) == 0
        await asyncio.to_thread(tree.world.start)
        told = await ssh.read(job, offset=0)
    assert (told["status"], told["ok"], told["stdout"]) == ("lost", False, "up\n")
    assert "exit_code" not in told
    assert "may still run on the host" in told["note"]
    assert tree.remote()


async def test_a_disconnect_leaves_no_proxy(tree: Tree, sshd: Sshd) -> None:
    """PK-05: nor does a connection that is closed while the daemon goes on."""
    async with tools(tree.world, target="proxied") as ssh:
        await ssh.told("ssh_connect")
        proxies = tree.proxies()
        assert proxies
        assert (await ssh.told("ssh_disconnect", target="proxied"))["closed"] is True
        await soon(lambda: not any(map(alive, proxies)), "the proxy ended")
        # `ssh -G` and the like are gone, too.
        await soon(lambda: not descendants(tree.world.pid), "nothing is left over")


async def test_a_stop_in_mid_login_leaves_no_proxy(tree: Tree, sshd: Sshd) -> None:
    """PK-05: a proxy that never brings a connection ends with the daemon."""
    os.kill(sshd.pid, signal.SIGSTOP)
    try:
        async with tools(tree.world, target="proxied") as ssh:
            call = {"name": "ssh_connect", "arguments": {"target": "proxied"}}
            await ssh.wire.start("tools/call", call)
            await soon(tree.proxies, "the proxy runs")
            assert await asyncio.to_thread(tree.world.stop) == 0
    finally:
        os.kill(sshd.pid, signal.SIGCONT)
    await soon(lambda: not any(map(alive, tree.proxies())), "the proxy ended")


def test_a_killed_command_line_leaves_nothing(tree: Tree) -> None:
    """PK-05: neither a proxy nor a command waits for who will not come back."""
    command = "echo up; exec sleep 1000"

    async def work() -> None:
        process = await asyncio.create_subprocess_exec(
            program("holdfast"), "exec", "--cwd", str(tree.mark), "proxied", "--",
            command,
            env=tree.world.environment,
            stdout=asyncio.subprocess.PIPE,
            stdin=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert process.stdout is not None
        assert await process.stdout.readline() == b"up\n"
        process.kill()
        await process.communicate()

    asyncio.run(work())
    deadline = soon(lambda: not tree.remote(), "the command ended")
    asyncio.run(deadline)
