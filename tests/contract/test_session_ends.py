"""How sessions and their commands end: by a signal, by a key, and told as it was."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from fakes.kept import spare_fish
from fakes.tools import served_at_home, tools
from fakes.watch import in_front, soon

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
@pytest.mark.parametrize(("force", "signal"), [(True, "KILL"), (False, "HUP")])
async def test_a_closed_session_tells_the_signal(
    world: World, durability: str, *, force: bool, signal: str
) -> None:
    """SE-08, SE-11: a shell that was killed has a signal and no exit code."""
    async with tools(world) as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", durability=durability, shell="dash"
        )
        session = opened["session_id"]
        await ssh.told("ssh_session_run", session=session, command="true")
        closed = await ssh.told("ssh_session_close", session=session, force=force)
        assert (closed["was_running"], closed["termination_signal"]) == (True, signal)
        told = await ssh.told("ssh_session_read", session=session)
        for one in (closed, told):
            assert (one["running"], one["exit_reason"]) == (False, "closed")
            if durability == "remote":
                assert one["signal"] == signal
            else:
                # sshd hangs up on what it is told to kill
                assert one["signal"] in {signal, "HUP"}
            assert "exit_code" not in one


async def test_a_code_of_its_own_stays_one(world: World) -> None:
    """SE-11: 137 by `exit 137` is an exit code; only what was sent is a signal."""
    async with tools(world) as ssh:
        opened = await ssh.told(
            "ssh_session_open", target="box", durability="remote", shell="bash"
        )
        session = opened["session_id"]
        await ssh.told("ssh_session_write", session=session, input="exit 137\n")
        told = await ssh.told("ssh_session_read", session=session, wait_seconds=10)
        while told["running"]:
            told = await ssh.told("ssh_session_read", session=session, wait_seconds=1)
        assert (told["exit_reason"], told["exit_code"]) == ("exited", 137)
        assert "signal" not in told


@pytest.mark.parametrize("shell", ["bash", "zsh", "dash", "ash", "fish"])
async def test_a_typed_ctrl_c_ends_the_command(
    world: World, tmp_path: Path, shell: str
) -> None:
    """SE-14, EX-15: in each kind of shell the job ends, and the session is free."""
    spare_fish(tmp_path)
    if shell == "ash":
        (tmp_path / "ash").symlink_to(shutil.which("busybox") or "")
        shell = str(tmp_path / "ash")
    async with tools(world) as ssh:
        await ssh.told(
            "ssh_session_open",
            target="box",
            session_name="one",
            durability="remote",
            shell=shell,
        )
        nap = tmp_path / "nap"
        nap.symlink_to(shutil.which("sleep") or "")
        begun = await ssh.told(
            "ssh_session_run",
            session="one",
            command=f"echo on; {nap} 300",
            wait_seconds=0,
        )
        await ssh.until(begun["job_id"], "on\n")
        # zsh loses the signal of a key that comes while it puts one into the foreground
        await soon(lambda: in_front(nap), "it is in the foreground")
        await ssh.told("ssh_session_write", session="one", input="\x03")
        job = await ssh.ended(begun["job_id"])
        assert job["status"] in {"exited", "signalled"}
        assert job.get("exit_code") != 0
        after = await ssh.told("ssh_session_run", session="one", command="echo free")
        assert (after["stdout"], after["exit_code"]) == ("free\n", 0)
        await ssh.told("ssh_session_close", session="one", force=True)
