"""What a client has read of a session, and what it has not, over restarts and kills."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "remote-home"
    path.mkdir()
    return path


@pytest.fixture
def host(tmp_path: Path, home: Path) -> Iterator[Sshd]:
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


async def patiently(ssh: Tools, tool: str, **arguments: Any) -> Result:
    """Call until the daemon is there again, and has found the session's host."""
    async with asyncio.timeout(40):
        while True:
            told = await ssh.call(tool, **arguments)
            if "isError" not in told:
                return dict(told["structuredContent"])
            error = told["structuredContent"]["error"]
            assert error["ran"] != "yes", error
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def session(ssh: Tools, name: str) -> AsyncGenerator[str]:
    """Open a session on the host, and end it there in the end."""
    await ssh.told(
        "ssh_session_open", target="box", session_name=name, durability="remote"
    )
    try:
        yield name
    finally:
        await patiently(ssh, "ssh_session_close", session=name, force=True)


async def say(ssh: Tools, name: str, word: str) -> str:
    """Have a word printed, and read on to it."""
    await patiently(
        ssh,
        "ssh_session_write",
        session=name,
        input=f"echo {word[:1]}''{word[1:]}\n",
        wait_seconds=0,
        max_output_chars=0,
    )
    told = await patiently(
        ssh, "ssh_session_read", session=name, wait_seconds=20, until=rf"(?m)^{word}$"
    )
    assert told["matched"] is True, told
    return str(told["output"])


def restart(world: World, how: str) -> None:
    """Stop the daemon as a person does, or as a crash does, and start another."""
    if how == "killed":
        world.kill()
    else:
        world.stop()
    world.start()


def written(world: World, cursor: int) -> bool:
    """Whether a reader's position is on disk."""
    records = [path.read_text() for path in world.state.glob("**/session.json")]
    return any(f": {cursor}" in record for record in records)


@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_a_client_reads_on_where_it_was_before_a_restart(
    host: Sshd, how: str
) -> None:
    """SE-09, NF-03: what happened since it last looked, and not all of it again."""
    with served(host) as world:
        async with tools(world) as ssh, tools(world) as other, session(ssh, "one"):
            await say(ssh, "one", "first")
            await say(other, "one", "second")
            told = await ssh.told("ssh_session_read", session="one")
            theirs = await other.told("ssh_session_read", session="one")
            await soon(lambda: written(world, told["next_offset"]), "it is on disk")
            await soon(lambda: written(world, theirs["next_offset"]), "theirs too")
            restart(world, how)
            said = await say(ssh, "one", "third")
            assert "second" not in said
            assert "first" not in said
            said = await say(other, "one", "fourth")
            assert "third" in said
            assert "second" not in said
            # who was not there before begins at the start
            async with tools(world) as late:
                told = await patiently(late, "ssh_session_read", session="one")
                assert "first" in told["output"]


async def test_an_ended_session_is_read_on_too(host: Sshd) -> None:
    """SE-09, SE-11: its last output is told once, also by another daemon."""
    with served(host) as world:
        async with tools(world) as ssh, session(ssh, "one"):
            await say(ssh, "one", "first")
            await ssh.told(
                "ssh_session_write", session="one", input="echo la''st; exit 3\n"
            )
            said = ""
            async with asyncio.timeout(40):
                while True:
                    told = await ssh.told(
                        "ssh_session_read", session="one", wait_seconds=1
                    )
                    said += told["output"]
                    if not told["running"] and not told["output"]:
                        break
            await soon(lambda: written(world, told["next_offset"]), "it is on disk")
            restart(world, "killed")
            told = await patiently(ssh, "ssh_session_read", session="one")
            assert (told["output"], told["exit_code"]) == ("", 3)


def readers(home: Path) -> list[int]:
    """Return the processes on the host that read kept output for somebody."""
    found: list[int] = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if not entry.name.isdigit():
                continue
            words = (entry / "cmdline").read_bytes().split(b"\0")
            kept = str((entry / "cwd").readlink()).startswith(f"{home}/.cache")
            if kept and words[0] == b"tail" and b"out" in words:
                found.append(int(entry.name))
    return found


def replaced(home: Path, old: list[int]) -> bool:
    """Whether somebody reads, and somebody else."""
    return len(now := readers(home)) == 1 and now != old


async def test_a_reader_that_is_killed_on_the_host_is_replaced(
    host: Sshd, home: Path
) -> None:
    """NF-05: nothing stalls, nothing is lost or told twice, no process stays."""
    with served(host) as world:
        async with tools(world) as ssh, session(ssh, "one"):
            said = await say(ssh, "one", "first")
            for word in ("second", "third"):
                old = readers(home)
                assert len(old) == 1
                os.kill(old[0], signal.SIGKILL)
                # what is typed in that moment may be lost with the channel
                await soon(partial(replaced, home, old), "another one reads")
                said += await say(ssh, "one", word)
            told = await ssh.told("ssh_session_read", session="one", offset=0)
            words = ("first", "second", "third")
            assert [said.count(f"\n{word}") for word in words] == [1, 1, 1]
            assert [told["output"].count(f"\n{word}") for word in words] == [1, 1, 1]
        await soon(lambda: not readers(home), "nobody reads any more")


async def test_what_was_read_and_is_not_back_yet_is_no_fault(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-20, SE-10: a killed daemon had told more than it had written down."""
    with (
        Proxy(host.port) as proxy,
        served(
            proxy.config(host, tmp_path / "config"),
            limits=f"{QUICK}flush_seconds = 5\n",
        ) as world,
    ):
        async with tools(world, "--no-autostart") as ssh:
            await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            await say(ssh, "s", "first")
            (record,) = (world.state / "sessions").glob("*/session.json")
            await soon(lambda: cursor(record) > size(record.parent), "it is noted")
            await asyncio.to_thread(proxy.freeze)
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            told = await ssh.told("ssh_session_read", session="s", wait_seconds=0)
            assert (told["output"], told["pending_output_chars"]) == ("", 0), told
            proxy.heal()
            assert "first" not in await say(ssh, "s", "second")
            await patiently(ssh, "ssh_session_close", session="s", force=True)


def cursor(record: Path) -> int:
    """Return how far somebody has read, as it is written down."""
    return max(json.loads(record.read_text())["readers"].values(), default=0)


def size(session: Path) -> int:
    """Return how much output is on disk."""
    return sum(path.stat().st_size for path in session.glob("output/*"))
