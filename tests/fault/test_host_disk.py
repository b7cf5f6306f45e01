"""A session's host whose disk is full: nothing hangs, and nothing is made up."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, failure, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("host_disk"),
    pytest.mark.usefixtures("terminals"),
]

SIZE = 1024 * 1024


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home directory on a disk of 1 MiB."""
    place = tmp_path_factory.mktemp("disk") / "home"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(words, check=False).returncode != 0:
        pytest.skip("only root can mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(
    home: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Tools]:
    directory = tmp_path_factory.mktemp("sshd")
    with (
        Sshd(directory, options={"SetEnv": f"HOME={home}"}) as sshd,
        served(sshd, limits=QUICK) as world,
    ):
        async with tools(world) as one:
            yield one


def holders(home: Path) -> list[str]:
    """What keeps shells there."""
    words = ["ps", "-eo", "args"]
    told = subprocess.run(words, check=True, capture_output=True, text=True)
    lines = told.stdout.splitlines()
    return [line for line in lines if str(home) in line and " hold " in line]


def fill(home: Path) -> None:
    """Leave no room on the host's disk."""
    with contextlib.suppress(OSError), (home / "filler").open("ab", 0) as file:
        while file.write(bytes(4096)):
            continue


async def refused(ssh: Tools, home: Path, tool: str, **arguments: Any) -> Result:
    """Call with a full disk; again where what was cleared away made some room."""
    fill(home)
    reply = await ssh.call(tool, **arguments)
    for _ in range(20):
        if reply.get("isError"):
            break
        fill(home)
        reply = await ssh.call(tool, **arguments)
    error = failure(reply)
    assert (error["reason"], error["ran"]) == ("NOT_KEPT", "no")
    assert "disk" in error["message"]
    return error


async def test_a_command_that_fills_the_disk_does_not_hang(
    ssh: Tools, home: Path
) -> None:
    """SE-11, SE-14: its end can't be told, so it is lost; its shell is as it was."""
    opened = await ssh.told("ssh_session_open", target="box", durability="remote")
    session = opened["session_id"]
    words = "X=kept; dd if=/dev/zero of=~/big bs=4k 2>/dev/null; echo full"
    told = await ssh.told(
        "ssh_session_run", session=session, command=words, wait_seconds=40
    )
    assert told["status"] == "lost", told
    assert "exit_code" not in told
    assert "disk was full" in told["note"]
    (home / "big").unlink()
    told = await ssh.told("ssh_session_run", session=session, command='echo "$X"')
    assert (told["stdout"], told["exit_code"]) == ("kept\n", 0)
    await ssh.told("ssh_session_close", session=session)


async def test_one_that_ended_is_not_ended_by_force(ssh: Tools, home: Path) -> None:
    """SE-14: its limit passes before that is known, and its shell is left alone."""
    opened = await ssh.told("ssh_session_open", target="box", durability="remote")
    session = opened["session_id"]
    words = "X=kept; dd if=/dev/zero of=~/big bs=4k 2>/dev/null; echo full"
    told = await ssh.told(
        "ssh_session_run", session=session, command=words, timeout_seconds=2
    )
    assert "exit_code" not in told, told
    (home / "big").unlink()
    told = await ssh.told("ssh_session_run", session=session, command='echo "$X"')
    assert (told["stdout"], told["exit_code"]) == ("kept\n", 0)
    await ssh.told("ssh_session_close", session=session)


async def test_nothing_runs_where_nothing_can_be_kept(ssh: Tools, home: Path) -> None:
    """SE-14: a full disk is told before anything runs, and it goes on after it."""
    opened = await ssh.told("ssh_session_open", target="box", durability="remote")
    session = opened["session_id"]
    await ssh.told("ssh_session_run", session=session, command="true")
    await refused(ssh, home, "ssh_session_run", session=session, command="true")
    await refused(ssh, home, "ssh_exec", command="true", durable=True)
    remote = {"target": "box", "durability": "remote"}
    await refused(ssh, home, "ssh_session_open", **remote)
    held = await ssh.told("ssh_session_open", target="box", durability="auto")
    assert held["durability"] == "held"
    told = await ssh.told(
        "ssh_session_run", session=held["session_id"], command="echo on"
    )
    assert told["stdout"] == "on\n"
    await ssh.told("ssh_session_close", session=held["session_id"])
    (home / "filler").unlink()
    told = await ssh.told("ssh_session_run", session=session, command="echo again")
    assert (told["stdout"], told["exit_code"]) == ("again\n", 0)
    await ssh.told("ssh_session_close", session=session)
    await soon(lambda: not holders(home), "nothing runs that nobody could end")


async def test_output_that_was_lost_is_said_to_be(ssh: Tools, home: Path) -> None:
    """SE-02: where the disk has room again before the end, the hole is shown."""
    opened = await ssh.told("ssh_session_open", target="box", durability="remote")
    session = opened["session_id"]
    words = (
        "dd if=/dev/zero of=~/big bs=4k 2>/dev/null; head -c 100000 /dev/zero | tr"
        " '\\0' x; sleep 1.5; rm ~/big; echo end"
    )
    told = await ssh.told(
        "ssh_session_run", session=session, command=words, wait_seconds=40
    )
    assert told["exit_code"] == 0, told
    assert "some output was lost here" in told["stdout"]
    assert told["stdout"].endswith("end\n")
    assert not (home / "big").exists()
    await ssh.told("ssh_session_close", session=session)


async def test_a_disk_that_is_full_for_a_new_script_is_no_end_of_what_runs(
    home: Path, tmp_path: Path
) -> None:
    """NF-20, NF-10: the daemon is upgraded then; all goes on once there is room."""
    room, gate = home / ".cache" / "holdfast" / "kept", tmp_path / "gate"
    host = Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"})
    with host as sshd, served(sshd, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = {"session_name": "up", "durability": "remote"}
            await ssh.told("ssh_session_open", target="box", **opened)
            await ssh.told("ssh_session_run", session="up", command="kept=42")
            command = f"until [ -e {gate} ]; do sleep 0.05; done; exit 4"
            job = await ssh.run(command, durable=True, wait_seconds=0)
        await asyncio.to_thread(world.kill)
        # the next version has a script of its own
        for script in room.glob("holder-*.sh"):
            script.unlink()
        fill(home)
        await asyncio.to_thread(world.start)
        async with tools(world, "--no-autostart") as ssh:
            written = {"session": "up", "input": "\n"}
            async with asyncio.timeout(60):
                error = await ssh.refused("ssh_session_write", **written)
                while "can't keep a shell" not in error["message"]:
                    await moment()
                    error = await ssh.refused("ssh_session_write", **written)
            assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "no"), error
            (home / "filler").unlink()
            async with asyncio.timeout(90):
                asked = {"session": "up", "command": "echo $kept"}
                while (told := await ssh.call("ssh_session_run", **asked)).get(
                    "isError"
                ):
                    assert failure(told)["reason"] == "CONNECTION_LOST", told
            assert told["structuredContent"]["stdout"] == "42\n"
            gate.touch()
            ended = await ssh.ended(job["job_id"])
            assert (ended["status"], ended["exit_code"]) == ("exited", 4), ended
            closed = {"session": "up", "force": True}
            while (await ssh.call("ssh_session_close", **closed)).get("isError"):
                await moment()
