"""Keys and commands reach a kept shell by two ways, and keep their order."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, failure, served, tools
from fakes.watch import soon

pytestmark = pytest.mark.needs_sshd


def _typist(readers: Path) -> int:
    """Return the process that hands keys on."""
    (reader,) = readers.iterdir()
    keys = reader.read_text().split()[2]
    return int(Path(f"/proc/{keys}/task/{keys}/children").read_text().split()[0])


async def test_a_command_comes_behind_the_keys_that_were_typed_before_it(
    tmp_path: Path,
) -> None:
    """SE-03, SE-11: also where they are slow, and nobody waited for them."""
    options = {"SetEnv": f"HOME={tmp_path}/sshd"}
    room = tmp_path / "sshd" / ".cache" / "holdfast" / "kept"
    with (
        Sshd(tmp_path / "sshd", options=options) as host,
        served(host, limits=QUICK) as world,
    ):
        async with tools(world) as ssh:
            one = await ssh.told(
                "ssh_session_open", session_name="s", durability="remote", target="box"
            )
            await ssh.told("ssh_session_run", session="s", command="PS1='ready> '")
            # a prompt that comes late could be taken for the echo
            read = {"session": "s", "until": "ready> $", "wait_seconds": 20}
            assert (await ssh.told("ssh_session_read", **read))["matched"]
            typist = _typist(room / one["session_id"] / "out.readers")
            os.kill(typist, signal.SIGSTOP)
            await ssh.told(
                "ssh_session_write", session="s", input="echo 'ab\n", wait_seconds=0
            )
            asking = asyncio.create_task(
                ssh.call("ssh_session_run", session="s", command=f"touch {tmp_path}/x")
            )
            jobs = world.state / "jobs"
            known = len(list(jobs.glob("*")))
            await soon(lambda: len(list(jobs.glob("*"))) > known, "the run is begun")
            os.kill(typist, signal.SIGCONT)
            error = failure(await asking)
            assert (error["reason"], error["ran"]) == ("SESSION_BUSY", "no")
            assert "open quote" in error["message"]
            assert not (tmp_path / "x").exists()
            await ssh.told("ssh_session_close", session="s", force=True)
