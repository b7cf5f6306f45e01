"""Commands that are stopped before the shell of their session comes to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.tools import Tools, content, failure, served_at_home, tools
from fakes.watch import moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd

ways = pytest.mark.parametrize("way", ["held", "remote"])


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "sshd"


@pytest.fixture
def world(home: Path) -> Iterator[World]:
    with served_at_home(home) as one:
        yield one


@pytest_asyncio.fixture
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one
        await one.told("ssh_session_close", session="s", force=True)


async def _open(ssh: Tools, way: str) -> None:
    await ssh.told(
        "ssh_session_open",
        session_name="s", durability=way, target="box", shell="bash",
    )  # fmt: skip


def _slow_start(home: Path) -> None:
    """Have its login shell busy for a while, and show whether it was let be."""
    wait = f"mkfifo {home}/go; read hf_x <{home}/go"
    (home / ".bash_profile").write_text(f"{wait}\ntouch {home}/whole\n")


def _go_on(home: Path) -> None:
    with (home / "go").open("w") as fifo:
        fifo.write("go\n")


async def _starts_whole(ssh: Tools, home: Path) -> None:
    """Let the shell start; it does, and what was stopped before has not run."""
    _go_on(home)
    told = await ssh.told("ssh_session_run", session="s", command="echo on")
    assert told["stdout"] == "on\n"
    assert (home / "whole").exists()
    assert not (home / "ran").exists()


@ways
async def test_its_time_is_over_before_the_shell_has_started(
    ssh: Tools, home: Path, way: str
) -> None:
    """SE-14: nothing of it runs, and what the shell does instead is let be."""
    _slow_start(home)
    await _open(ssh, way)
    reply = await ssh.call(
        "ssh_session_run",
        session="s", command=f"touch {home}/ran", timeout_seconds=0.5,
    )  # fmt: skip
    error = failure(reply)
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    assert "within its 0.5 s" in error["message"]
    await _starts_whole(ssh, home)


@ways
async def test_it_is_stopped_before_the_shell_has_started(
    world: World, ssh: Tools, home: Path, way: str
) -> None:
    """SE-14, JB-03: the same by hand."""
    _slow_start(home)
    await _open(ssh, way)
    asking = asyncio.create_task(
        ssh.call("ssh_session_run", session="s", command=f"touch {home}/ran")
    )
    async with tools(world) as other:
        while not (found := await other.told("ssh_job_list", running_only=True))[
            "jobs"
        ]:
            await moment()
        told = await other.told("ssh_job_stop", job_id=found["jobs"][0]["job_id"])
    assert told["status"] == "cancelled"
    told = content(await asking)
    assert (told["status"], "exit_code" in told) == ("cancelled", False)
    assert "nothing ran" in told["note"]
    await _starts_whole(ssh, home)


@ways
async def test_its_time_is_over_while_a_program_has_the_terminal(
    ssh: Tools, home: Path, way: str
) -> None:
    """SE-14: the program, which is somebody else's, is not interrupted for it."""
    await _open(ssh, way)
    await ssh.told("ssh_session_run", session="s", command="true")
    program = f"trap 'touch {home}/hurt' INT TERM\necho ready\nread x\necho \"<$x>\"\n"
    (home / "program").write_text(program)
    await ssh.told(
        "ssh_session_write",
        session="s", input=f"sh {home}/program\n", until="ready", wait_seconds=20,
    )  # fmt: skip
    reply = await ssh.call(
        "ssh_session_run",
        session="s", command=f"touch {home}/ran", timeout_seconds=0.3,
    )  # fmt: skip
    error = failure(reply)
    assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
    told = await ssh.told(
        "ssh_session_write",
        session="s", input="fine\n", until="<fine>", wait_seconds=20,
    )  # fmt: skip
    assert "<fine>" in told["output"]
    told = await ssh.told("ssh_session_run", session="s", command="echo on")
    assert told["stdout"] == "on\n"
    assert not (home / "hurt").exists()
    assert not (home / "ran").exists()
