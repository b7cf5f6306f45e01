"""Limits and identities that are looked up when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from fakes.asyncssh_server import LOOPBACK, Odd
from fakes.tools import QUICK, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = pytest.mark.xdist_group("limits_live")

FAST = f"{QUICK}config_check_seconds = 0.1\n"


def running_limit(world: World) -> Any:
    """Return `jobs_running` as people are shown it."""
    rows = world.cli_json("status", "--limits")["limits"]
    (value,) = [row["value"] for row in rows if row["name"] == "jobs_running"]
    return float(value)


async def test_a_limit_follows_the_configuration(sshd: Sshd) -> None:
    """IN-02: the buggy daemon showed the new limit and kept to the old one."""
    with served(sshd, limits=f"{FAST}jobs_running = 1\n") as world:
        async with tools(world) as ssh:
            first = await ssh.start("exec sleep 300")
            error = await ssh.refused("ssh_exec", command="echo second")
            assert (error["reason"], error["ran"]) == ("LIMIT_REACHED", "no")
            assert error["value"] == "1"
            assert running_limit(world) == 1
            world.configure(f"[limits]\n{FAST}jobs_running = 2\n")
            await soon(lambda: running_limit(world) == 2, "the edit is taken")
            assert (await ssh.run("echo second"))["stdout"] == "second\n"
            # And it is a limit: no third beside two that run.
            second = await ssh.start("exec sleep 300")
            error = await ssh.refused("ssh_exec", command="true")
            assert (error["reason"], error["value"]) == ("LIMIT_REACHED", "2")
            for job in (first, second):
                assert (await ssh.stop(job))["stopped"] is True


async def test_a_disconnect_finds_what_the_same_client_connected(sshd: Sshd) -> None:
    """AU-03: the buggy daemon left SSH_DEFAULT_USER out, and closed nothing."""
    async with Odd() as odd:
        host = (
            f'[hosts.odd]\nhost = "{LOOPBACK}"\nport = {odd.port}\n'
            'host_key_checking = "no"\n'
        )
        with served(sshd, more=host) as world:
            env = {"SSH_DEFAULT_USER": "bob"}
            async with tools(world, target="odd", env=env) as ssh:
                assert (await ssh.told("ssh_connect"))["connected"] is True
                closed = await ssh.told("ssh_disconnect", target="odd")
                assert closed["closed"] is True
                assert world.cli_json("status")["connections"] == []
                again = await ssh.told("ssh_disconnect", target="odd")
                assert again["closed"] is False
            assert odd.logins == ["bob"]


@pytest.mark.parametrize("who", ["itself", "another"])
async def test_a_forced_disconnect_ends_jobs_whatever_key_they_came_with(
    sshd: Sshd, who: str
) -> None:
    """AU-03, EX-01: the buggy daemon counted none, and left the job running."""
    env = {"SSH_PRIVATE_KEY": sshd.key.read_text()}
    with served(sshd) as world:
        async with (
            tools(world, env=env) as ssh,
            tools(world, env=env if who == "itself" else {}) as other,
        ):
            job = await ssh.start("exec sleep 20")
            error = await other.refused("ssh_disconnect", target="box")
            assert job in error["jobs"]
            told = await other.told("ssh_disconnect", target="box", force=True)
            assert (told["closed"], told["jobs_ended"]) == (True, 1)
            lost = await ssh.read(job)
            assert (lost["status"], lost["ok"]) == ("lost", False)
            assert "exit_code" not in lost
