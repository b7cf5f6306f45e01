"""What a login that is given up, or a link that is lost, must not leave behind."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.links import find_host, make_pool, run
from fakes.sshd import Agent, Sshd
from fakes.watch import alive, soon
from holdfast_daemon.connection import login as logins
from holdfast_daemon.connection import maker
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts import known_file
from holdfast_daemon.hosts.host import Overrides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from holdfast_daemon.connection.login import Login

pytestmark = pytest.mark.needs_sshd

# Goes on after its input has ended, as some programs of cloud providers do.
RELAY = """\
import os, socket, sys, threading, time
with open(sys.argv[3], "w") as file:
    file.write(str(os.getpid()))
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
threading.Thread(target=up, daemon=True).start()
try:
    while data := s.recv(65536):
        os.write(1, data)
except ConnectionResetError:
    pass
socket.socket(fileno=os.dup(1)).shutdown(socket.SHUT_WR)
time.sleep(60)
"""


def open_at(sshd: Sshd) -> int:
    """Return how many connections the server has now."""
    table = Path(f"/proc/{sshd.pid}/task/{sshd.pid}/children")
    return len(table.read_text().split())


async def test_a_proxy_command_ends_with_its_connection(
    sshd: Sshd, tmp_path: Path
) -> None:
    """AU-07: it was ended by a close only, and stayed when its link was lost."""
    if shutil.which("python3") is None:
        pytest.skip("no python3 on the PATH")
    relay, told = tmp_path / "relay.py", tmp_path / "pid"
    relay.write_text(RELAY)
    file = tmp_path / "config"
    command = f"  ProxyCommand python3 '{relay}' %h %p '{told}'\n"
    file.write_text(sshd.client_config(extra=command))
    async with make_pool() as pool:
        async with await pool.lease(await find_host(file)) as lease:
            assert (await run(lease, "echo through"))[1] == b"through\n"
            pid = int(told.read_text())
            assert alive(pid)
            await asyncio.to_thread(sshd.drop_connections)
            await lease.link.wait_closed()
        await soon(lambda: not alive(pid), "the program has ended")


async def test_a_login_that_is_given_up_at_its_end_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09: cancelled while its key was written down, it stayed, nobody's own."""
    began, go = threading.Event(), threading.Event()
    append = known_file.append

    def slowly(path: str, lines: Sequence[str]) -> None:
        began.set()
        assert go.wait(20)
        append(path, lines)

    monkeypatch.setattr(known_file, "append", slowly)
    with Sshd(tmp_path / "fresh") as sshd:
        sshd.known_hosts.write_text("")
        over = Overrides(host_key_checking="accept-new")
        host = await find_host(sshd.config, overrides=over)
        async with make_pool() as pool:
            asking = asyncio.create_task(pool.lease(host))
            assert await asyncio.to_thread(began.wait, 20)
            await soon(lambda: sshd.logins == 1, "it is logged in")
            assert open_at(sshd) == 1
            assert await pool.disconnect(host, force=True)
            go.set()
            with pytest.raises(DaemonError):
                await asking
            assert not pool.list()
            await soon(lambda: open_at(sshd) == 0, "the server sees it end")


async def test_a_login_that_ends_as_it_is_disconnected_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09: done, but not yet handed over, it was neither closed nor ever used."""
    log_in = logins.log_in
    closing: list[asyncio.Task[bool]] = []

    async def meanwhile(*given: Any) -> Login:
        monkeypatch.setattr(maker, "log_in", log_in)
        login = await log_in(*given)
        # It runs after this login has ended, and before anybody is told.
        closing.append(asyncio.create_task(pool.disconnect(host, force=True)))
        return login

    with Sshd(tmp_path / "fresh") as sshd:
        host = await find_host(sshd.config)
        async with make_pool() as pool:
            monkeypatch.setattr(maker, "log_in", meanwhile)
            asking = asyncio.create_task(pool.lease(host))
            async with await asking as lease:
                assert await closing[0]
                assert (await run(lease, "echo in"))[1] == b"in\n"
                assert sshd.logins == 2
                await soon(lambda: open_at(sshd) == 1, "the server sees the other end")
            assert [row.state for row in pool.list()] == ["ready"]


async def test_an_agent_variable_that_is_not_set_is_no_other_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: IdentityAgent $NAME without NAME offered the keys of any other agent."""
    monkeypatch.delenv("HF_WORK_AGENT", raising=False)
    with (
        Sshd(tmp_path / "sshd") as sshd,
        Agent(tmp_path / "agent") as agent,
    ):
        agent.add(sshd.key)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(agent.socket))
        extra = "  IdentityAgent $HF_WORK_AGENT\n"
        text = sshd.client_config(extra=extra).replace(str(sshd.key), "none")
        sshd.config.write_text(text.replace("IdentitiesOnly yes", "IdentitiesOnly no"))
        async with make_pool() as pool:
            with pytest.raises(DaemonError) as caught:
                await pool.lease(await find_host(sshd.config))
            assert caught.value.reason is Reason.AUTH_FAILED
            assert "HF_WORK_AGENT" in caught.value.hint
            assert sshd.logins == 0
            monkeypatch.setenv("HF_WORK_AGENT", str(agent.socket))
            async with await pool.lease(await find_host(sshd.config)) as lease:
                assert (await run(lease, "echo in"))[1] == b"in\n"


async def test_a_jump_host_is_named_by_tokens(sshd: Sshd, tmp_path: Path) -> None:
    """AU-07: ProxyJump takes %h, %n, %p and %r as ssh does."""
    with Sshd(tmp_path / "bastion", alias="gate-box") as bastion:
        file = tmp_path / "both"
        jump = sshd.client_config(extra="  ProxyJump %r@gate-%n\n")
        file.write_text(bastion.client_config() + jump)
        before = bastion.logins
        host = await find_host(file)
        async with make_pool() as pool, await pool.lease(host) as lease:
            assert (await run(lease, "echo in"))[1] == b"in\n"
        assert bastion.logins == before + 1
