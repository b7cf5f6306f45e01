"""What a person's ssh configuration asks for, done or refused: through shim and CLI."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.sshd import Agent, Sshd, fingerprint, keygen
from fakes.tools import Tools, tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("ssh_config_done"),
    pytest.mark.needs_sshd,
]

RELAY = """\
import os, socket, sys, threading
open(sys.argv[3], "a").write(" ".join(sys.argv[1:3]))
s = socket.create_connection(("127.0.0.1", int(sys.argv[2])))
def up():
    while data := os.read(0, 65536):
        s.sendall(data)
    s.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while data := s.recv(65536):
    os.write(1, data)
"""

REFUSED = {
    "PKCS11Provider": "/usr/lib/no-such-token.so",
    "SecurityKeyProvider": "/usr/lib/no-such-key.so",
    "HostbasedAuthentication": "yes",
    "Tunnel": "ethernet",
}


class Place:
    """Servers, an agent, and one configuration with an alias for each thing."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        remote = directory / "remote"
        remote.mkdir()
        options = {
            "SetEnv": f"HOME={remote}",
            "AcceptEnv": "HF_* LANG TERM",
            "LogLevel": "DEBUG2",
        }
        self.sshd = Sshd(directory / "box", options=options)
        self.first = Sshd(directory / "first", alias="first")
        self.second = Sshd(
            directory / "second", alias="second", options={"AcceptEnv": "*"}
        )
        self.agent = Agent(directory / "agent")
        self.config = directory / "config"

    def block(self, alias: str, *lines: str) -> str:
        extra = "".join(f"  {line}\n" for line in lines)
        own = {line.split()[0] for line in lines}
        text = self.sshd.client_config(alias, extra)
        head, *rest = text.splitlines(keepends=True)
        last = len(rest) - len(lines)
        kept = [
            line
            for at, line in enumerate(rest)
            if at >= last or line.split()[0] not in own
        ]
        return head + "".join(kept)

    def write(self) -> None:
        mark, agent = self.directory / "mark", self.agent.socket
        relay = self.directory / "relay.py"
        relay.write_text(RELAY)
        blocks = [
            f"Include {self.directory}/more/*.conf\n",
            self.first.client_config(),
            self.second.client_config(),
            self.block("box"),
            self.block(
                "env", 'SetEnv HF_SET="a  b" HF_TWO=2=2 NOT_TAKEN=1', "SendEnv HF_S*"
            ),
            self.block("lent", f"IdentityAgent {agent}", "ForwardAgent yes"),
            self.block("lent-path", f"ForwardAgent {agent}"),
            self.block("kept", f"IdentityAgent {agent}"),
            self.block("hops", "ProxyJump first,second"),
            self.block(
                "piped",
                f"ProxyCommand python3 '{relay}' '%n of %r' %p {self.directory}/piped",
            ),
            self.block("fd", "ProxyCommand cat", "ProxyUseFdpass yes"),
            self.block(
                "local", "PermitLocalCommand yes", f"LocalCommand echo %n %r >> {mark}"
            ),
            self.block("remote", "RemoteCommand echo from the configuration"),
            self.block("nothing", "SessionType none"),
            self.block("forced", "RequestTTY force"),
            self.block("never", "RequestTTY no"),
            self.block("typed", "RequestTTY yes"),
            self.block("bound", "BindAddress 127.0.0.2"),
            self.block("inner", "BindInterface lo"),
            self.block("no-interface", "BindInterface hf-none0"),
            self.block("packed", "Compression yes"),
            self.block("rekeyed", "RekeyLimit 256K"),
            self.block(
                "forwards", "LocalForward 18080 localhost:80", "DynamicForward 18081"
            ),
            self.block("kerberos", "GSSAPIAuthentication yes")
            + "  GSSAPIDelegateCredentials yes\n",
            *(
                self.block(f"no-{name.lower()}", f"{name} {value}")
                for name, value in REFUSED.items()
            ),
            self.block("aside", "HostbasedAuthentication yes", "Tunnel no"),
        ]
        (self.directory / "more").mkdir()
        self.config.write_text("".join(blocks))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    one = Place(tmp_path_factory.mktemp("place"))
    with one.sshd, one.first, one.second, one.agent:
        one.agent.add(one.sshd.key)
        one.write()
        yield one


@pytest.fixture(scope="module")
def world(place: Place) -> Iterator[World]:
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    world = World(root, ssh_config=place.config)
    world.configure("[limits]\nconnections_per_host = 60\n")
    try:
        world.start(HF_SENT="by the daemon", HF_OTHER="kept", SHELL="/bin/sh")
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, target="") as one:
        yield one


async def out(ssh: Tools, target: str, command: str, **more: object) -> str:
    told = await ssh.run(command, target=target, **more)
    assert told["exit_code"] == 0, told
    return str(told["stdout"])


async def test_setenv_and_sendenv_reach_the_command(ssh: Tools, world: World) -> None:
    """AU-06: SetEnv and SendEnv, byte for byte, and only what the server accepts."""
    command = 'printf "%s|%s|%s|%s|%s" "$HF_SET" "$HF_TWO" "$HF_SENT" "$HF_OTHER"'
    command += ' "$NOT_TAKEN"'
    wanted = "a  b|2=2|by the daemon||"
    assert await out(ssh, "env", command) == wanted
    assert await out(ssh, "box", command) == "||||"
    # what a call says itself is nearer
    near = await out(ssh, "env", 'printf %s "$HF_SET"', env={"HF_SET": "call"})
    assert near == "call"
    done = await asyncio.to_thread(world.cli, "exec", "env", "--", command)
    assert done.stdout.decode() == wanted


async def test_variables_of_holdfast_are_never_sent(place: Place) -> None:
    """SE: `SendEnv *` takes neither holdfast's own variables nor named secrets."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    config = root / "ssh"
    config.write_text(place.second.client_config("all", "  SendEnv *\n"))
    world = World(root, ssh_config=config)
    world.configure('[hosts.all]\nhost = "all"\nssh_key_passphrase_env = "HF_PHRASE"\n')
    try:
        world.start(HF_PHRASE="never sent", HF_PLAIN="sent", MCP_TOKEN="never sent")
        done = await asyncio.to_thread(world.cli, "exec", "all", "--", "env")
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)
    assert b"HF_PLAIN=sent" in done.stdout
    assert b"never sent" not in done.stdout
    assert b"HOLDFAST" not in done.stdout


async def test_the_agent_is_lent_where_the_configuration_says_so(
    ssh: Tools, place: Place, world: World
) -> None:
    """AU-14: agent forwarding is opt-in by ssh config, and works for every command."""
    key = fingerprint(place.sshd.key)
    for alias in ("lent", "lent-path", "lent"):
        assert key in await out(ssh, alias, "ssh-add -l")
    done = await asyncio.to_thread(world.cli, "exec", "lent", "--", "ssh-add", "-l")
    assert key in done.stdout.decode()
    for alias in ("box", "kept"):
        assert await out(ssh, alias, 'echo "[$SSH_AUTH_SOCK]"') == "[]\n"
    told = await ssh.told("ssh_connect", target="lent")
    assert not told.get("notes")


async def test_a_call_lends_no_agent(ssh: Tools, place: Place) -> None:
    """AU-14: no argument of a call lends one, nor chooses which one is lent."""
    error = await ssh.refused(
        "ssh_exec",
        target="kept",
        command="true",
        connect={"options": {"ForwardAgent": "yes"}},
    )
    assert (error["reason"], error["field"]) == ("INVALID_ARGUMENT", "connect.options")
    assert "ForwardAgent" in error["message"]
    socket_of = 'echo "[$SSH_AUTH_SOCK]"'
    less = {"options": {"ForwardAgent": "no"}}
    assert await out(ssh, "lent", socket_of, connect=less) == "[]\n"
    other = {"options": {"IdentityAgent": str(place.agent.socket)}}
    assert await out(ssh, "lent", socket_of, connect=other) == "[]\n"


async def test_an_agent_that_is_not_there_to_be_lent_is_told(
    place: Place, world: World
) -> None:
    """AU-14: no agent at hand: the command runs without, and the connection says so."""
    more = place.directory / "more" / "agentless.conf"
    more.write_text(place.block("agentless", "ForwardAgent /no/such/agent"))
    told = await asyncio.to_thread(world.cli_json, "hosts", "test", "agentless")
    assert any("ForwardAgent" in note for note in told["notes"])


async def test_a_chain_of_two_jump_hosts_is_gone_through(
    ssh: Tools, place: Place, world: World
) -> None:
    """AU-07: ProxyJump first,second: each hop logs in once, in this order."""
    first, second = place.first, place.second
    before = first.logins, second.logins
    assert await out(ssh, "hops", "echo through") == "through\n"
    done = await asyncio.to_thread(world.cli, "exec", "hops", "--", "echo", "again")
    assert done.stdout == b"again\n"
    assert (first.logins, second.logins) == (before[0] + 1, before[1] + 1)
    rows = await asyncio.to_thread(world.cli_json, "status")
    targets = [row["target"] for row in rows["connections"]]
    assert {first.target, second.target} <= set(targets)
    # the same by an argument of the call
    jump = {"jump": "first,second"}
    assert await out(ssh, "box", "echo by-call", connect=jump) == "by-call\n"


async def test_a_proxy_command_carries_the_connection(ssh: Tools, place: Place) -> None:
    """AU-07: ProxyCommand by the user's shell, quotes kept, tokens filled in."""
    assert await out(ssh, "piped", "echo carried") == "carried\n"
    said = (place.directory / "piped").read_text()
    assert said == f"piped of {place.sshd.user} {place.sshd.port}"


async def test_a_control_socket_is_left_to_ssh(place: Place, world: World) -> None:
    """AU-07: with ControlPath our own login is made; a refusal names a live master."""
    path = Path(tempfile.mkdtemp(prefix="hf-")) / "master"
    key = keygen(place.directory / "stranger")
    more = place.directory / "more" / "control.conf"
    lines = (f"ControlPath {path}", "ControlMaster auto", "ControlPersist 10m")
    more.write_text(
        place.block("shared", *lines)
        + place.block(
            "locked",
            *lines,
            f"IdentityFile {key}",
            "IdentityAgent none",
            "HostKeyAlias apart",
            "StrictHostKeyChecking accept-new",
            f"UserKnownHostsFile {path.parent}/known_hosts",
        )
    )
    done = await asyncio.to_thread(world.cli, "exec", "shared", "--", "echo in")
    assert done.stdout == b"in\n"
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(str(path))
        master.listen()
        done = await asyncio.to_thread(
            world.cli, "exec", "locked", "--", "true", check=False
        )
    shutil.rmtree(path.parent)
    assert done.returncode != 0
    assert b"ControlPath" in done.stderr
    assert str(path).encode() in done.stderr


async def test_a_local_command_runs_once_per_connection(
    ssh: Tools, place: Place
) -> None:
    """AU-06: LocalCommand, where PermitLocalCommand allows it."""
    mark = place.directory / "mark"
    for _ in range(2):
        assert await out(ssh, "local", "echo in") == "in\n"
    assert mark.read_text() == f"local {place.sshd.user}\n"


@pytest.mark.parametrize(
    ("alias", "option", "without"),
    [("remote", "RemoteCommand", "none"), ("nothing", "SessionType", "default")],
)
async def test_a_command_beside_the_configuration_s_own_is_refused(
    ssh: Tools, place: Place, alias: str, option: str, without: str
) -> None:
    """AU-06: as ssh: «Cannot execute command-line and remote command»; by name."""
    before = place.sshd.log.position
    error = await ssh.refused("ssh_exec", target=alias, command="echo mine")
    assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
    assert option in error["message"]
    assert alias in error["message"]
    assert option in error["hint"]
    assert place.sshd.log.count("Connection from", after=before) == 0
    call = {"options": {option.lower(): without}}
    assert await out(ssh, alias, "echo mine", connect=call) == "mine\n"
    # anything else by a call is refused as ever
    error = await ssh.refused(
        "ssh_exec", target=alias, command="true", connect={"options": {option: "id"}}
    )
    assert error["field"] == "connect.options"


@pytest.mark.usefixtures("terminals")
async def test_a_terminal_is_given_where_the_configuration_forces_it(
    ssh: Tools,
) -> None:
    """AU-06: RequestTTY force and no; a call's own tty stands above it."""
    ask = "if test -t 0; then echo tty; else echo none; fi"
    assert "tty" in await out(ssh, "forced", ask)
    for alias in ("never", "typed", "box"):
        assert await out(ssh, alias, ask) == "none\n"
    assert "tty" in await out(ssh, "never", ask, tty=True)


async def test_it_is_bound_where_the_configuration_says(
    ssh: Tools, place: Place
) -> None:
    """AU-06: BindAddress and BindInterface; one that is not there is named."""
    ask = "echo ${SSH_CLIENT%% *}"
    if _binds("127.0.0.2"):
        assert await out(ssh, "bound", ask) == "127.0.0.2\n"
    assert await out(ssh, "inner", ask) == "127.0.0.1\n"
    error = await ssh.refused("ssh_exec", target="no-interface", command="true")
    assert (error["reason"], error["ran"]) == ("HOST_UNREACHABLE", "no")
    assert "hf-none0" in error["message"]


def _binds(address: str) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


async def test_the_wire_is_as_the_configuration_wants_it(
    ssh: Tools, place: Place
) -> None:
    """AU-06: Compression and RekeyLimit, as the server saw them."""
    log = place.sshd.log
    before = log.position
    assert await out(ssh, "packed", "echo in") == "in\n"
    assert log.count("compression: zlib@openssh.com", after=before)
    before = log.position
    text = "x" * 1_000_000
    assert await out(ssh, "rekeyed", "wc -c", stdin=text) == "1000000\n"
    log.wait_for("SSH2_MSG_KEXINIT received", count=3, after=before)


@pytest.mark.parametrize("name", sorted(REFUSED))
async def test_what_can_t_be_done_is_refused_by_name(
    ssh: Tools, world: World, place: Place, name: str
) -> None:
    """AU-06: no connection is made; the option, its value, the host, the next step."""
    alias = f"no-{name.lower()}"
    before = place.sshd.log.position
    error = await ssh.refused("ssh_exec", target=alias, command="true")
    assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
    assert f"{name} {REFUSED[name]}" in error["message"]
    assert alias in error["message"]
    assert "ssh_options_ignored" in error["hint"]
    done = await asyncio.to_thread(world.cli, "hosts", "test", alias, check=False)
    assert done.returncode != 0
    assert name.encode() in done.stderr
    assert place.sshd.log.count("Connection from", after=before) == 0


async def test_options_that_need_another_are_refused_with_it(ssh: Tools) -> None:
    """AU-06: GSSAPI delegation and passing of descriptors."""
    for alias, name in (
        ("kerberos", "GSSAPIDelegateCredentials"),
        ("fd", "ProxyUseFdpass"),
    ):
        error = await ssh.refused("ssh_exec", target=alias, command="true")
        assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
        assert name in error["message"]


async def test_a_person_may_go_on_without_an_option(place: Place, world: World) -> None:
    """AU-06: ssh_options_ignored in holdfast's configuration; it is told then."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    own = World(root, ssh_config=place.config)
    own.configure('[defaults]\nssh_options_ignored = ["hostbasedauthentication"]\n')
    try:
        with own:
            told = await asyncio.to_thread(own.cli_json, "hosts", "test", "aside")
    finally:
        shutil.rmtree(root, ignore_errors=True)
    assert told["connected"]
    assert any("HostbasedAuthentication yes" in note for note in told["notes"])


async def test_what_is_left_to_other_tools_is_said(world: World) -> None:
    """AU-06: forwards of a Host block are not opened with a connection; it is told."""
    told = await asyncio.to_thread(world.cli_json, "hosts", "test", "forwards")
    said = " ".join(told["notes"])
    assert "LocalForward 18080" in said
    assert "DynamicForward 18081" in said
    assert "ssh_forward_open" in said
    shown = await asyncio.to_thread(world.cli, "hosts", "test", "forwards")
    assert b"LocalForward" in shown.stdout
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 18080)) != 0


async def test_an_edit_is_seen_at_once(place: Place, world: World) -> None:
    """AU-06, IN-02: a changed file, an included one, a new one that a glob finds."""
    more = place.directory / "more"
    done = await asyncio.to_thread(
        world.cli, "exec", "brand-new.invalid", "--", "true", check=False
    )
    assert done.returncode != 0
    added = more / "new.conf"
    added.write_text(place.block("brand-new.invalid", "SetEnv HF_SET=one"))
    say = 'printf %s "$HF_SET"'
    assert await seen(world, "brand-new.invalid", say, b"one")
    added.write_text(place.block("brand-new.invalid", "SetEnv HF_SET=second"))
    assert await seen(world, "brand-new.invalid", say, b"second")
    text = place.config.read_text()
    place.config.write_text(text.replace('HF_SET="a  b"', "HF_SET=edited"))
    try:
        assert await seen(world, "env", say, b"edited")
    finally:
        place.config.write_text(text)
    added.unlink()


async def seen(world: World, target: str, command: str, wanted: bytes) -> bool:
    """Whether a command of the CLI prints what it should after an edit, at once."""
    for _ in range(20):
        # an edit takes effect within resolve_check_seconds, and a call takes longer
        done = await asyncio.to_thread(
            world.cli, "exec", target, "--", command, check=False
        )
        if done.stdout == wanted:
            return True
    return False


async def test_weak_keys_are_refused_on_both_sides(
    place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """AU-06: RequiredRSASize: the host's key, before a credential, and our own."""
    directory = tmp_path_factory.mktemp("rsa")
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    with Sshd(directory, host_key_types=("rsa",)) as old:
        config = root / "ssh"
        short = keygen(directory / "short", kind="rsa")
        old.authorize(short.with_name("short.pub"))
        config.write_text(
            old.client_config("weak", "  RequiredRSASize 4096\n")
            + old.client_config("fine")
            + place.block("short", f"IdentityFile {short}", "RequiredRSASize 4096")
        )
        world = World(root, ssh_config=config)
        try:
            with world:
                async with tools(world, target="") as ssh:
                    error = await ssh.refused("ssh_exec", target="weak", command="true")
                    assert old.log.count("Accepted") == 0
                    assert await out(ssh, "fine", "echo in") == "in\n"
                    ours = await ssh.refused("ssh_exec", target="short", command="true")
        finally:
            shutil.rmtree(root, ignore_errors=True)
        assert old.logins == 1
    assert (error["reason"], error["ran"]) == ("UNSUPPORTED", "no")
    assert "RequiredRSASize" in error["message"]
    assert "no credential was sent" in error["message"]
    assert ours["reason"] in {"AUTH_FAILED", "LOGIN_NEEDED"}
    assert "RequiredRSASize" in ours["message"] + ours["hint"]


async def test_without_an_ssh_program_it_works_or_says_why_not(
    place: Place, tmp_path: Path
) -> None:
    """AU-06: no ssh on the daemon's PATH: the same, or refused by name."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    config = root / "ssh"
    config.write_text(
        place.block("env", "SetEnv HF_SET=x")
        + place.block("token", "Tunnel yes")
        + "Match originalhost asks exec true\n  Port 1\n"
    )
    world = World(root, ssh_config=config)
    try:
        world.start(PATH=str(tmp_path))
        async with tools(world, target="") as ssh:
            assert await out(ssh, "env", 'printf %s "$HF_SET"') == "x"
            unsupported = await ssh.refused("ssh_exec", target="token", command="true")
            error = await ssh.refused("ssh_exec", target="asks", command="true")
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)
    assert unsupported["reason"] == "UNSUPPORTED"
    assert (error["reason"], error["ran"]) == ("BAD_CONFIGURATION", "no")
    assert "Match exec" in error["message"]
    assert "line " in error["message"]
    assert "HOLDFAST_SSH_BIN" in error["hint"]
