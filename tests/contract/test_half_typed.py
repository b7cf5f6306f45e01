"""A line that somebody began to type, and a command that comes behind it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.kept import kept_on, spare_fish
from fakes.links import Collector
from fakes.tools import served_at_home, tools
from holdfast_daemon.errors import Ran, StateError
from holdfast_daemon.kept.runs import Runs, new_nonce

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with served_at_home(tmp_path) as one:
        yield one


@pytest.mark.parametrize("durability", ["held", "remote"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "fish"])
async def test_half_a_line_is_not_entered(
    world: World, tmp_path: Path, shell: str, durability: str
) -> None:
    """SE-03, SE-14: Enter is sent only by who sends it; a command enters no other's."""
    spare_fish(tmp_path)
    async with tools(world) as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", durability=durability, shell=shell
        )
        session = opened["session_id"]
        await ssh.told("ssh_session_run", session=session, command="true")
        await ssh.told(
            "ssh_session_write", session=session, input=f"mkdir {tmp_path}/half "
        )
        ran = await ssh.told("ssh_session_run", session=session, command="echo hello")
        assert not (tmp_path / "half").exists()
        assert (ran["stdout"], ran["exit_code"]) == ("hello\n", 0)


@pytest.mark.parametrize("crash", [False, True])
async def test_half_a_line_before_the_first_command(
    world: World, tmp_path: Path, *, crash: bool
) -> None:
    """SE-03, SE-06: the shell is told of us in its place, and by the next daemon."""
    async with tools(world, "--no-autostart") as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", durability="remote", shell="bash"
        )
        session = opened["session_id"]
        await ssh.told(
            "ssh_session_write",
            session=session,
            input=f"mkdir {tmp_path}/half ",
            until="half",
            wait_seconds=20,
        )
        if crash:
            world.kill()
            world.start()
    async with tools(world, "--no-autostart") as ssh:
        ran = await ssh.told("ssh_session_run", session=session, command="echo hello")
        assert not (tmp_path / "half").exists()
        assert (ran["stdout"], ran["exit_code"]) == ("hello\n", 0)


async def test_half_a_line_without_a_terminal(tmp_path: Path) -> None:
    """SE-03: where it can't be taken away, no command is told, and that is said."""
    async with kept_on(tmp_path) as kept:
        await kept.start("sone", kind="pipe", shell="/bin/sh")
        asking = kept.keeper.asking
        runs = Runs(asking.pool, asking.host, asking.limits)
        for number in (1, 2):
            with pytest.raises(StateError, match="half a line") as told:
                await runs.start(
                    "sone",
                    number,
                    new_nonce(),
                    "sh",
                    "echo 1",
                    Collector(),
                    half="half",
                )
            assert told.value.ran is Ran.NO
        sink = Collector()
        async with asyncio.timeout(40):
            line = await runs.start("sone", 3, new_nonce(), "sh", "echo 3", sink)
            assert (await line.ended()).exit_code == 0
        line.forget()
        assert sink.out == b"3\n"


async def test_an_open_quote_before_the_first_command(world: World) -> None:
    """SE-02: the command is refused, and the next one runs once that is given up."""
    async with tools(world, "--results", "structured") as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", durability="remote", shell="bash"
        )
        session = opened["session_id"]
        await ssh.told(
            "ssh_session_write", session=session, input="echo 'half\n", until="> "
        )
        error = await ssh.refused(
            "ssh_session_run", session=session, command="echo never"
        )
        assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no"), error
        assert "open quote" in error["message"]
        await ssh.told("ssh_session_write", session=session, input="\x03", until=r"\^C")
        ran = await ssh.told("ssh_session_run", session=session, command="echo hello")
        assert (ran["stdout"], ran["exit_code"]) == ("hello\n", 0)
