"""How a host is named, and how long and with whose help it is looked for."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import Sshd
from fakes.tools import Tools, served, tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("ways_to_a_host"),
    pytest.mark.needs_sshd,
]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a server on the loopback addresses that this machine has."""
    addresses = ["127.0.0.1", "::1"] if has_ipv6() else ["127.0.0.1"]
    directory = tmp_path_factory.mktemp("both")
    options = {"SetEnv": f"HOME={directory}"}
    with Sshd(directory, addresses=addresses, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def world(both: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield a daemon whose ssh configuration holds keys for any name of the server."""
    config = tmp_path_factory.mktemp("ssh") / "config"
    config.write_text(
        f"{both.client_config()}Host *\n  IdentityFile {both.key}\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {both.known_hosts}\n"
    )
    with served(config) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, target="") as one:
        yield one


@pytest.mark.parametrize(
    ("form", "connect"),
    [
        ("{user}@127.0.0.1:{port}", {}),
        ("127.0.0.1:{port}", {}),
        ("{user}@127.0.0.1", {"port": "{port}"}),
        ("ssh://{user}@127.0.0.1:{port}", {}),
        ("ssh://127.0.0.1:{port}", {}),
        ("ssh://127.0.0.1:{port}/", {}),
        ("{user}@box", {}),
        ("ssh://box", {}),
    ],
)
async def test_every_form_of_a_target_reaches_the_server(
    ssh: Tools, world: World, both: Sshd, form: str, connect: dict[str, str]
) -> None:
    """AU-15: user@host, with a port, and as a URL; the command line takes it too."""
    await reaches(ssh, world, both, (form, connect), "127.0.0.1")


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback")
@pytest.mark.parametrize(
    ("form", "connect"),
    [
        ("[::1]:{port}", {}),
        ("{user}@[::1]:{port}", {}),
        ("ssh://{user}@[::1]:{port}", {}),
        ("ssh://[::1]:{port}", {}),
        ("::1", {"port": "{port}"}),
        ("[::1]", {"port": "{port}"}),
        ("{user}@::1", {"port": "{port}"}),
    ],
)
async def test_an_ipv6_address_reaches_the_server(
    ssh: Tools, world: World, both: Sshd, form: str, connect: dict[str, str]
) -> None:
    """AU-15: IPv6 literals, with and without brackets, user, port and URL."""
    await reaches(ssh, world, both, (form, connect), "::1")


async def reaches(
    ssh: Tools,
    world: World,
    sshd: Sshd,
    way: tuple[str, dict[str, str]],
    address: str,
) -> None:
    """Check that a target leads to the server at `address`, by both faces."""
    form, connect = way
    target = form.format(user=sshd.user, port=sshd.port)
    more = {name: value.format(port=sshd.port) for name, value in connect.items()}
    there = f"{address} {sshd.port}\n"
    command = "echo ${SSH_CONNECTION#* * }"
    told = await ssh.run(command, target=target, connect=more)
    assert told["stdout"] == there
    words = ["-p", more["port"]] if more else []
    done = await asyncio.to_thread(world.cli, "exec", *words, target, "--", command)
    assert done.stdout.decode() == there


@pytest.mark.parametrize(
    "target",
    [
        "[::1",
        "::1]:22",
        "[::1]22",
        "[::1]:0",
        "[::1]:65536",
        "[::1]:x",
        "box:",
        "@box",
        "ssh://",
        "ssh://box/etc",
        "http://box",
        "a b",
        "-box",
    ],
)
async def test_a_target_that_can_t_be_one_is_refused(ssh: Tools, target: str) -> None:
    """AU-15, bad input: named, before anything is looked up."""
    error = await ssh.refused("ssh_exec", target=target, command="true")
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", "target")
    assert error["ran"] == "no"


@pytest.mark.parametrize("where", ["call", "option", "client", "ssh config"])
async def test_connecting_and_running_have_limits_of_their_own(
    world: World, both: Sshd, where: str, tmp_path: Path
) -> None:
    """AU-11: a short limit to connect does not end a longer command, nor is it one's.

    The server is frozen, so it accepts and says nothing.
    """
    seconds = "1"
    connect: dict[str, Any] = {}
    env: dict[str, str] = {}
    if where == "call":
        connect = {"connect_timeout_seconds": seconds}
    elif where == "option":
        connect = {"options": {"ConnectTimeout": seconds}}
    elif where == "client":
        env = {"SSH_CONNECT_TIMEOUT_SEC": seconds}
    config = tmp_path / "config"
    text = both.client_config()
    more = f"  ConnectTimeout {seconds}\n" if where == "ssh config" else ""
    config.write_text(text + more)
    gate = tmp_path / "gate"
    with served(config) as one:
        async with tools(one, env=env) as ssh:
            job = await ssh.start(
                f"while ! test -e {gate}; do sleep 0.05; done; echo done",
                connect=connect,
                timeout_seconds=60,
            )
            # Who names a key gets a connection made with it: a new one.
            apart = {**connect, "identity_file": str(both.key)}
            os.kill(both.pid, signal.SIGSTOP)
            try:
                error = await ssh.refused(
                    "ssh_exec", command="true", timeout_seconds=60, connect=apart
                )
            finally:
                os.kill(both.pid, signal.SIGCONT)
            assert (error["reason"], error["ran"]) == ("CONNECT_TIMEOUT", "no")
            assert "1 s" in error["message"]
            gate.touch()
            told = await ssh.ended(job)
            assert (told["stdout"], told["exit_code"]) == ("done\n", 0)
            assert told["duration_ms"] > 1000


SPY = """#!/bin/sh
for word do printf '%s\\0' "$word"; done >> {seen}
exec {ssh} "$@"
"""


async def test_the_ssh_that_is_asked_is_chosen_by_the_environment(
    both: Sshd, tmp_path: Path
) -> None:
    """AU-12: HOLDFAST_SSH_BIN of the daemon; one that is no program is told."""
    seen, spy = tmp_path / "seen", tmp_path / "our-ssh"
    ssh_binary = shutil.which("ssh")
    assert ssh_binary is not None
    spy.write_text(SPY.format(seen=seen, ssh=ssh_binary))
    spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    try:
        world = World(root, ssh_config=both.config)
        world.start(HOLDFAST_SSH_BIN=str(spy))
        try:
            async with tools(world) as ssh:
                assert (await ssh.run("echo in"))["stdout"] == "in\n"
        finally:
            world.close()
        words = seen.read_text().split("\0")
        assert "-G" in words
        assert "box" in words
        world.start(HOLDFAST_SSH_BIN=str(tmp_path / "none"))
        try:
            async with tools(world) as ssh:
                error = await ssh.refused("ssh_exec", command="true")
        finally:
            world.close()
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert (error["reason"], error["ran"]) == ("BAD_CONFIGURATION", "no")
    assert "HOLDFAST_SSH_BIN" in error["message"]
    assert str(tmp_path / "none") in error["message"]
