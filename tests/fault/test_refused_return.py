"""What comes back to its host by itself leaves one alone that refused the login."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from fakes.sshd import Agent, Sshd, keygen
from fakes.tools import QUICK, served, tools
from fakes.watch import moment, soon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.tools import Tools

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(120)]

# Longer than the first five pauses between two looks for a host.
WHILE = 4.0
REFUSED = "Connection closed by authenticating user"


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "sshd" / "home"
    home.mkdir(parents=True)
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


def knocks(host: Sshd) -> int:
    """Return how many logins began."""
    return host.log.count("Connection from ")


async def cut_off(host: Sshd, authorized: str) -> None:
    """Let in only those from now on, end all connections, and see one refused."""
    before = host.log.count(REFUSED)
    host.authorized_keys.write_text(authorized)
    host.drop_connections()
    await soon(lambda: host.log.count(REFUSED) > before, "a login is refused")


async def back(ssh: Tools) -> str:
    """Return the session once it is attached: nobody connects meanwhile."""
    async with asyncio.timeout(60):
        while True:
            (row,) = (await ssh.told("ssh_session_list"))["sessions"]
            if "note" not in row:
                return str(row["session_id"])
            await moment()


async def test_a_refused_login_is_tried_again_by_nobody(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-09, AU-05: the same key was offered twice a minute, till servers barred us."""
    with served(host, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            opened = await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            job = await ssh.start("sleep 1000", durable=True)
            let_in = host.authorized_keys.read_text()
            keygen(tmp_path / "another")
            before = knocks(host)
            await cut_off(host, (tmp_path / "another.pub").read_text())
            await asyncio.sleep(WHILE)
            # the session's and the command's, where they did not share one
            assert knocks(host) - before <= 2, host.log.text
            # whose call it is may try, each time
            error = await ssh.refused("ssh_exec", command="true")
            assert error["reason"] == "AUTH_FAILED"
            assert knocks(host) - before <= 3
            host.authorized_keys.write_text(let_in)
            await ssh.run("true")
            assert await back(ssh) == opened["session_id"]
            await ssh.stop(job)
            assert (await ssh.ended(job))["status"] == "cancelled"
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_who_uses_a_session_has_its_host_tried(host: Sshd) -> None:
    """NF-09: a call may log in at any time, and need not be one to the host itself."""
    with served(host, limits=QUICK) as world:
        async with tools(world, "--no-autostart") as ssh:
            await ssh.told(
                "ssh_session_open", target="box", session_name="s", durability="remote"
            )
            let_in = host.authorized_keys.read_text()
            await cut_off(host, "")
            host.authorized_keys.write_text(let_in)
            run = await ssh.told("ssh_session_run", session="s", command="echo back")
            assert run["stdout"] == "back\n"
            await ssh.told("ssh_session_close", session="s", force=True)


async def test_another_key_in_the_agent_is_offered(host: Sshd, tmp_path: Path) -> None:
    """NF-09, AU-02: what comes back need not wait for a call once there is one."""
    config = tmp_path / "config"
    other = keygen(tmp_path / "other")
    with Agent(tmp_path / "agent") as agent:
        agent.add(host.key)
        text = host.client_config().replace("IdentitiesOnly yes", "IdentitiesOnly no")
        text = text.replace(f"IdentityFile {host.key}", "IdentityFile none")
        config.write_text(f"{text}  IdentityAgent {agent.socket}\n")
        with served(config, limits=QUICK) as world:
            async with tools(world, "--no-autostart") as ssh:
                opened = await ssh.told(
                    "ssh_session_open",
                    target="box", session_name="s", durability="remote",
                )  # fmt: skip
                await cut_off(host, (tmp_path / "other.pub").read_text())
                agent.add(other)
                assert await back(ssh) == opened["session_id"]
                await ssh.told("ssh_session_close", session="s", force=True)
