"""The short diagnosis inside each connection error, as agents and people get it."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.asyncssh_server import hang_up, mute, raw_server, talk_http
from fakes.examined import block
from fakes.sshd import Agent, Sshd, fingerprint, free_port, keygen
from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("diagnosis_told"),
    pytest.mark.needs_sshd,
]

# What an agent is given to read at most, whatever went wrong.
LONGEST = 2000
MANY = 12


class Yard:
    """A world, its shim, and an ssh configuration that grows as wanted."""

    def __init__(self, world: World, sshd: Sshd, file: Path, ssh: Tools) -> None:
        self.world = world
        self.sshd = sshd
        self.file = file
        self.ssh = ssh

    def host(self, alias: str, **said: object) -> str:
        """Write one more host and return its alias."""
        with self.file.open("a") as file:
            file.write(block(self.sshd, alias, **said))
        return alias

    async def refused(
        self, alias: str, reason: str, ssh: Tools | None = None
    ) -> dict[str, Any]:
        """Return the error an agent gets; a person is told the same."""
        error = await (ssh or self.ssh).refused(
            "ssh_exec", target=alias, command="true"
        )
        assert (error["reason"], error["ran"]) == (reason, "no"), error
        assert len(error["message"]) + len(error["hint"]) <= LONGEST
        assert f"`holdfast doctor {alias}`" in error["hint"]
        return error

    async def told(self, alias: str, *words: str) -> None:
        """See that the command line tells a person `words`."""
        done = await asyncio.to_thread(
            self.world.cli, "exec", alias, "--", "true", check=False
        )
        assert done.returncode == 255
        for word in words:
            assert word in done.stderr.decode()
        assert f"holdfast doctor {alias}" in done.stderr.decode()


@pytest.fixture(scope="module")
def shared(
    sshd: Sshd, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[World, Path]]:
    file = tmp_path_factory.mktemp("diagnosis") / "config"
    file.write_text(block(sshd, "box"))
    with served(file, limits="resolve_check_seconds = 0\n") as world:
        yield world, file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def yard(shared: tuple[World, Path], sshd: Sshd) -> AsyncIterator[Yard]:
    world, file = shared
    async with tools(world, target="") as ssh:
        yield Yard(world, sshd, file, ssh)


@pytest.fixture
def agent() -> Iterator[Agent]:
    directory = Path(tempfile.mkdtemp(prefix="hf-agent-"))
    with Agent(directory) as one:
        yield one
    shutil.rmtree(directory, ignore_errors=True)


async def test_a_closed_port_is_told_with_step_and_address(yard: Yard) -> None:
    """NF-19: the step, the addresses tried, the next step."""
    alias = yard.host("closed", HostName="localhost", Port=free_port())
    error = await yard.refused(alias, "HOST_UNREACHABLE")
    assert error["step"] == "TCP"
    assert "127.0.0.1" in error["addresses"]
    assert "(step: TCP; tried " in error["message"]
    assert "refused" in error["message"]
    await yard.told(alias, "step: TCP", "127.0.0.1")


async def test_a_name_is_told_as_the_step_it_is(yard: Yard) -> None:
    """NF-19: the name does not resolve; nothing was tried."""
    alias = yard.host("nameless", HostName="no-such-host.invalid")
    error = await yard.refused(alias, "HOST_NOT_FOUND")
    assert error["step"] == "name"
    assert "no-such-host.invalid" in error["message"]
    await yard.told(alias, "step: name")


@pytest.mark.parametrize(
    ("handler", "reason"),
    [
        (talk_http, "HOST_UNREACHABLE"),
        (hang_up, "HOST_UNREACHABLE"),
        (mute, "CONNECT_TIMEOUT"),
    ],
)
async def test_another_service_is_told_at_the_banner(
    yard: Yard, handler: Callable[..., object], reason: str
) -> None:
    """NF-19: somebody listens there, but no SSH server does."""
    alias = f"odd{reason[-3:].lower()}{handler.__name__[0]}"
    async with raw_server(handler) as port:  # type: ignore[arg-type]  # three alike
        seconds = 3 if handler is mute else 30
        yard.host(alias, Port=port, ConnectTimeout=seconds)
        error = await yard.refused(alias, reason)
    assert error["step"] == "banner"
    assert "step: banner" in error["message"]


async def test_a_hop_is_named_wherever_the_way_ends(yard: Yard) -> None:
    """NF-19, AU-07: the first hop, the second, and the host behind them."""
    yard.host("good", HostKeyAlias=f"[127.0.0.1]:{yard.sshd.port}")
    dead = yard.host("dead", Port=free_port())
    behind = yard.host("behind", Port=free_port(), ProxyJump="good")

    first = yard.host("far1", ProxyJump=dead)
    error = await yard.ssh.refused("ssh_exec", target=first, command="true")
    assert (error["step"], error["ran"]) == ("TCP", "no")
    assert str(error["hop"]).startswith(f"{yard.sshd.user}@")
    assert "on the way to" in error["message"]
    assert "holdfast doctor dead" in error["hint"]

    second = yard.host("far2", ProxyJump=behind)
    error = await yard.ssh.refused("ssh_exec", target=second, command="true")
    assert error["step"] == "TCP"
    assert yard.sshd.target in error["via"]
    assert "could not open a connection to" in error["message"]

    last = await yard.refused(behind, "HOST_UNREACHABLE")
    assert yard.sshd.target in last["via"]


async def test_refused_credentials_say_what_was_offered_and_from_where(
    yard: Yard, agent: Agent, tmp_path: Path
) -> None:
    """NF-19, AU-02: keys by fingerprint and source, the agent, what was left out."""
    held, other, open_key = (keygen(tmp_path / name) for name in ("held", "other", "o"))
    open_key.chmod(0o644)
    agent.add(held)
    alias = yard.host(
        "strange",
        IdentitiesOnly="no",
        IdentityFile=f"{other}\n  IdentityFile {open_key}",
        HostKeyAlias="box-strange",  # no connection of other tests is shared
        StrictHostKeyChecking="accept-new",
    )
    env = {"SSH_AUTH_SOCK": str(agent.socket)}
    async with tools(yard.world, target="", env=env) as ssh:
        error = await yard.refused(alias, "AUTH_FAILED", ssh)
    assert error["step"] == "login"
    assert error["methods"] == "publickey"
    for told in (
        f"{fingerprint(held)} (from the agent)",
        f"{fingerprint(other)} ({other})",
    ):
        assert told in error["tried"]
        assert told in error["message"]
    assert f"the agent {agent.socket} was asked: it holds 1 key" in error["hint"]
    assert f"chmod 600 {open_key}" in error["hint"]
    await yard.told(alias, fingerprint(other))


async def test_an_agent_nobody_sees_is_told_plainly(yard: Yard, tmp_path: Path) -> None:
    """NF-19, AU-02: that the service sees none, or that the one named is dead."""
    key = keygen(tmp_path / "stranger")
    alias = yard.host("alone", IdentityFile=key, HostKeyAlias="box-alone",
                      StrictHostKeyChecking="no")  # fmt: skip
    error = await yard.refused(alias, "AUTH_FAILED")
    assert "the holdfast service sees no ssh-agent" in error["hint"]
    dead = tmp_path / "dead"
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(dead))
    env = {"SSH_AUTH_SOCK": str(dead)}
    async with tools(yard.world, target="", env=env) as ssh:
        error = await yard.refused(alias, "AUTH_FAILED", ssh)
    assert f"the agent {dead} did not answer" in error["hint"]


async def test_many_keys_make_no_long_story(
    yard: Yard, agent: Agent, sshd: Sshd, tmp_path: Path
) -> None:
    """NF-19: an agent with a dozen keys fills no model's context."""
    for number in range(MANY):
        agent.add(keygen(tmp_path / f"k{number}"))
    options = {"MaxAuthTries": "40"}
    with Sshd(tmp_path / "patient", alias="patient", options=options) as patient:
        with yard.file.open("a") as file:
            said = {"IdentityFile": "none", "IdentitiesOnly": "no"}
            file.write(block(patient, "patient", **said))
        env = {"SSH_AUTH_SOCK": str(agent.socket)}
        async with tools(yard.world, target="", env=env) as ssh:
            error = await yard.refused("patient", "AUTH_FAILED", ssh)
    shown = len(re.findall(r"SHA256:[\w+/]{43}", error["message"]))
    assert 0 < shown < MANY
    assert f"and {MANY - shown} more" in error["message"]
    assert f"it holds {MANY} keys" in error["hint"]


async def test_a_hidden_host_s_error_hides_it_too(yard: Yard, tmp_path: Path) -> None:
    """NF-19, OB-06: neither address nor port of a host shown by its purpose."""
    port = free_port()
    config = tmp_path / "config"
    config.write_text(block(yard.sshd, "lair", HostName="127.0.0.77", Port=port))
    hidden = '[hosts.hidden]\nhost = "lair"\nshow = "purpose"\n'
    with served(config, more=hidden) as world:
        async with tools(world, target="") as ssh:
            error = await ssh.refused("ssh_exec", target="hidden", command="true")
        told = await asyncio.to_thread(
            world.cli, "--json", "exec", "hidden", "--", "true", check=False
        )
    assert error["step"] == "TCP"
    assert json.loads(told.stdout.splitlines()[-1])["error"]["step"] == "TCP"
    for text in (str(error), told.stdout.decode()):
        assert "127.0.0.77" not in text
        assert str(port) not in text
        assert "holdfast doctor hidden" in text
