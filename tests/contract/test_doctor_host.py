"""`holdfast doctor HOST`: each fault on the way is named, with the next step."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.asyncssh_server import hang_up, mute, raw_server, talk_http
from fakes.examined import Examined, block, examine, examined
from fakes.sshd import Agent, Sshd, fingerprint, free_port, keygen
from fakes.tools import served
from fakes.watch import connected, records
from holdfast.v1 import doctor_pb2, doctor_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakes.world import World

pytestmark = [
    pytest.mark.xdist_group("doctor_host"),
    pytest.mark.needs_sshd,
]

STEPS = ("name", "TCP", "banner", "key exchange", "host key", "login")
OFF = '[hosts.off]\nhost = "127.0.0.1"\nport = 9\nenabled = false\n'
HIDDEN = '[hosts.hidden]\nhost = "lair"\nshow = "purpose"\ndescription = "A lair"\n'


class Yard:
    """A world whose ssh configuration grows as the tests want it."""

    def __init__(self, world: World, sshd: Sshd, file: Path) -> None:
        self.world = world
        self.sshd = sshd
        self.file = file

    def host(self, alias: str, **said: object) -> str:
        """Write one more host and return its alias."""
        with self.file.open("a") as file:
            file.write(block(self.sshd, alias, **said))
        return alias

    def examine(self, alias: str, *arguments: str, **env: str) -> Examined:
        """Examine a host."""
        return examine(self.world, alias, *arguments, env=env)

    def fresh(self, alias: str, **env: str) -> Examined:
        """Examine a host to which no connection is open."""
        self.world.cli("hosts", "disconnect", "box", "--force")
        return self.examine(alias, **env)


@pytest.fixture(scope="module")
def yard(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Yard]:
    file = tmp_path_factory.mktemp("yard") / "config"
    file.write_text(block(sshd, "box"))
    limits = "stop_grace_seconds = 0.4\nresolve_check_seconds = 0\n"
    with served(file, limits=limits, more=OFF + HIDDEN) as world:
        yield Yard(world, sshd, file)


@pytest.fixture
def agent() -> Iterator[Agent]:
    directory = Path(tempfile.mkdtemp(prefix="hf-agent-"))
    with Agent(directory) as one:
        yield one
    shutil.rmtree(directory, ignore_errors=True)


def way(found: Examined, name: str) -> dict[str, str]:
    """Return the steps of one hop and how they came out."""
    return {
        one["check"].removeprefix(f"{name}: "): one["verdict"]
        for one in found.findings
        if one["check"].startswith(f"{name}: ")
    }


def test_a_healthy_host_is_all_well(yard: Yard) -> None:
    """NF-19: resolution, key, known_hosts and every step of the way, with times."""
    sshd, found = yard.sshd, yard.examine("box")
    assert found.code == 0
    assert found.of("fail") == []
    # Other tests' daemons come and go; nothing else is to be seen to.
    assert set(found.of("warn")) <= {"other daemons"}
    assert way(found, "way to box") == dict.fromkeys(STEPS, "ok")
    assert found["host"]["details"] == {
        "hostname": "127.0.0.1",
        "user": sshd.user,
        "port": str(sshd.port),
        "jump": "",
        "proxy_command": "",
        "from": f"{yard.file}:1",
    }
    key = found["key"]["details"]
    assert (key["path"], key["mode"]) == (str(sshd.key), "0600")
    assert key["fingerprint"] == fingerprint(sshd.key)
    assert sshd.host_fingerprint() in found["host key"]["told"]
    assert f"{sshd.known_hosts}:1" in found["way to box: host key"]["told"]
    assert found["way to box: TCP"]["details"]["address"] == "127.0.0.1"
    assert found["way to box: banner"]["told"].startswith("SSH-2.0-OpenSSH")
    login = found["way to box: login"]
    assert fingerprint(sshd.key) in login["told"]
    for step in ("name", "TCP", "banner", "login"):
        assert float(found[f"way to box: {step}"]["details"]["ms"]) >= 0
    assert float(login["details"]["rtt_ms"]) > 0


def test_the_connection_is_the_one_that_commands_use(yard: Yard) -> None:
    """NF-19, NF-07: an open connection is told as such; no second login is made."""
    yard.world.cli("exec", "box", "--", "true")
    logins = yard.sshd.logins
    found = yard.examine("box")
    assert found["way to box: login"]["details"]["reused"] == "True"
    assert "open already" in found["way to box: login"]["told"]
    yard.world.cli("exec", "box", "--", "true")
    assert yard.sshd.logins == logins


async def test_it_is_recorded_and_runs_nothing(yard: Yard) -> None:
    """NF-19, OB-01: it connects, so it is in the audit log, behind the gate."""
    before = yard.sshd.log.position
    await examined(yard.world, "box")
    assert yard.sshd.log.count("Starting session", after=before) == 0
    (start, *_) = [
        one
        for one in reversed(records(yard.world))
        if one.get("metadata", {}).get("method") == "DoctorService/CheckHost"
    ]
    assert start["event_type"] == "ssh_connection"
    async with connected(yard.world, env={"SSH_ALLOWED_HOSTS": "other"}) as client:
        stub = doctor_pb2_grpc.DoctorServiceStub(client.channel)
        request = doctor_pb2.CheckHostRequest(target="box")
        with pytest.raises(Exception, match="box"):
            await stub.CheckHost(request, metadata=client.metadata())


# Keys


def test_a_key_that_others_may_read(yard: Yard, tmp_path: Path) -> None:
    """NF-19: mode 0644 is named with the command that mends it."""
    key = keygen(tmp_path / "open")
    key.chmod(0o644)
    found = yard.fresh(yard.host("openkey", IdentityFile=key))
    assert found["key"]["verdict"] == "fail"
    assert "0644" in found["key"]["told"]
    assert found["key"]["hint"] == f"chmod 600 {key}"
    steps = way(found, "way to openkey")
    assert steps == {**dict.fromkeys(STEPS, "ok"), "login": "fail"}
    login = found["way to openkey: login"]
    assert str(key) in login["told"] + login["hint"]
    assert "holdfast doctor" not in login["hint"]


def test_a_key_that_is_encrypted(yard: Yard, agent: Agent, tmp_path: Path) -> None:
    """NF-19: without its passphrase it is of no use; once in the agent, all is well."""
    key = keygen(tmp_path / "locked", passphrase="secret words")
    yard.sshd.authorize(key.with_suffix(".pub"))
    alias = yard.host("lockedkey", IdentityFile=key)
    found = yard.fresh(alias)
    assert found["key"]["verdict"] == "warn"
    assert "encrypted" in found["key"]["told"]
    for step in (f"ssh-add {key}", "holdfast login lockedkey"):
        assert step in found["key"]["hint"]
    assert found["way to lockedkey: login"]["verdict"] == "fail"
    assert found["way to lockedkey: login"]["details"]["reason"] == "PASSPHRASE_NEEDED"
    assert "secret words" not in str(found.findings)
    copy = tmp_path / "copy"
    shutil.copy(key, copy)
    command = ["ssh-keygen", "-q", "-p", "-P", "secret words", "-N", "", "-f"]
    command.append(str(copy))
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    agent.add(copy)
    found = yard.examine(alias, SSH_AUTH_SOCK=str(agent.socket))
    assert found.code == 0
    assert found["key"]["details"]["in_agent"] == "True"


def test_a_key_that_is_not_there(yard: Yard, tmp_path: Path) -> None:
    """NF-19: a configured file that is missing, and one that is no key."""
    garbage = tmp_path / "garbage"
    garbage.write_text("no key\n")
    garbage.chmod(0o600)
    alias = yard.host("lostkey", IdentityFile=tmp_path / "gone")
    found = yard.examine(alias)["key"]
    assert (found["verdict"], str(tmp_path / "gone") in found["told"]) == ("fail", True)
    found = yard.examine(yard.host("junkkey", IdentityFile=garbage))["key"]
    assert (found["verdict"], "no private key" in found["told"]) == ("fail", True)


def test_a_public_half_of_another_key(yard: Yard, tmp_path: Path) -> None:
    """NF-19: the file beside belongs to another key."""
    key, other = keygen(tmp_path / "one"), keygen(tmp_path / "other")
    shutil.copy(f"{other}.pub", f"{key}.pub")
    found = yard.examine(yard.host("halfkey", IdentityFile=key))["key"]
    assert found["verdict"] == "warn"
    assert f"ssh-keygen -y -f {key}" in found["hint"]


@pytest.mark.parametrize(
    ("validity", "verdict", "told"),
    [
        ("always:forever", "ok", "for ever"),
        ("20200101:20200201", "warn", "it expired on 2020-0"),
        ("20990101:21000101", "warn", "valid only from 20"),
    ],
)
def test_a_certificate_is_valid_only_for_its_time(
    yard: Yard, tmp_path: Path, validity: str, verdict: str, told: str
) -> None:
    """NF-19, AU-14: until when a certificate is good, and for whom."""
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user")
    subprocess.run(
        ["ssh-keygen", "-q", "-s", authority, "-I", "me", "-n", "ops", "-V", validity,
         f"{key}.pub"],
        check=True,
    )  # fmt: skip
    alias = yard.host(f"cert{validity[:5].strip(':')}", IdentityFile=key)
    found = yard.examine(alias)["certificate"]
    assert found["verdict"] == verdict
    assert told in found["told"]
    assert found["details"]["principals"] == "ops"


# Agents, as the daemon sees them


def test_an_agent_and_what_it_holds(yard: Yard, agent: Agent, tmp_path: Path) -> None:
    """NF-19, AU-02: which socket, from where, how many keys, which."""
    kept = keygen(tmp_path / "kept")
    alias = yard.host("agented", IdentityFile="none", IdentitiesOnly="no")
    empty = yard.examine(alias, SSH_AUTH_SOCK=str(agent.socket))["agent"]
    assert empty["verdict"] == "warn"
    assert "holds no keys" in empty["told"]
    assert "ssh-add" in empty["hint"]
    agent.add(kept)
    found = yard.examine(alias, SSH_AUTH_SOCK=str(agent.socket))["agent"]
    assert found["verdict"] == "ok"
    assert str(agent.socket) in found["told"]
    assert "the client's SSH_AUTH_SOCK" in found["told"]
    assert found["details"]["keys"] == "1"
    assert found["details"]["key 1"] == f"ssh-ed25519 {fingerprint(kept)} kept"
    # One that ssh config names goes before the client's.
    named = yard.host("agentnamed", IdentityAgent=agent.socket)
    found = yard.examine(named, SSH_AUTH_SOCK=str(tmp_path / "else"))["agent"]
    assert "IdentityAgent" in found["told"]
    assert yard.examine(yard.host("agentless", IdentityAgent="none"))["agent"][
        "verdict"
    ] == ("skip")


def test_no_agent_is_told_plainly(yard: Yard) -> None:
    """NF-19, AU-02: that the service sees none is said, and is no fault."""
    found = yard.examine("box")["agent"]
    assert found["verdict"] == "skip"
    assert "the holdfast service sees no ssh-agent" in found["told"]


@pytest.mark.parametrize("kind", ["missing", "dead", "file", "foreign"])
def test_an_agent_that_can_t_be_asked(yard: Yard, agent: Agent, kind: str) -> None:
    """NF-19: its socket is gone, nobody serves it, it is none, or another user's."""
    path = agent.socket.with_name(kind)
    if kind == "dead":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(str(path))
    elif kind == "file":
        path.write_text("")
    elif kind == "foreign":
        if os.geteuid() != 0:
            pytest.skip("only root gives a socket to another user")
        path = agent.socket
        os.chown(path, 65534, 65534)
    found = yard.examine("box", SSH_AUTH_SOCK=str(path)).all("agent")[0]
    wanted = {
        "missing": "No such file",
        "dead": "did not answer",
        "file": "no socket",
        "foreign": "another user",
    }
    assert found["verdict"] == "warn"
    assert str(path) in found["told"]
    assert wanted[kind] in found["told"]


# Trust


def test_a_host_key_that_changed(yard: Yard, tmp_path: Path) -> None:
    """NF-19, AU-09: the step is named, both keys are, and nothing was sent."""
    stranger = keygen(tmp_path / "stranger")
    kind, blob = Path(f"{stranger}.pub").read_text().split()[:2]
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{yard.sshd.port} {kind} {blob}\n")
    found = yard.examine(yard.host("turned", UserKnownHostsFile=known))
    steps = way(found, "way to turned")
    assert steps == {**dict.fromkeys(STEPS[:4], "ok"), "host key": "fail"}
    told = found["way to turned: host key"]
    assert told["details"]["reason"] == "HOST_KEY_CHANGED"
    for one in (fingerprint(stranger), yard.sshd.host_fingerprint(), str(known)):
        assert one in told["told"]


def test_a_host_nobody_knows_and_lines_nobody_can_read(
    yard: Yard, tmp_path: Path
) -> None:
    """NF-19: an unknown key, and the lines of known_hosts that protect no host."""
    known = tmp_path / "known_hosts"
    good = yard.sshd.known_hosts_lines(["elsewhere"])
    known.write_text(f"# mine\n{good}half a line\n{good[:60]}\n@odd {good}")
    found = yard.examine(yard.host("unknown", UserKnownHostsFile=known))
    assert found["known_hosts"]["verdict"] == "warn"
    assert "3 line(s) can't be read: 3, 4, 5" in found["known_hosts"]["told"]
    assert found["host key"]["verdict"] == "warn"
    assert "hosts trust unknown" in found["host key"]["hint"]
    refused = found["way to unknown: host key"]
    assert refused["details"]["reason"] == "HOST_KEY_UNKNOWN"


# The way


def test_a_name_that_does_not_resolve(yard: Yard) -> None:
    """NF-19: the first step fails, and no other is tried."""
    found = yard.examine(yard.host("nameless", HostName="no-such-host.invalid"))
    assert way(found, "way to nameless") == {"name": "fail"}
    told = found["way to nameless: name"]
    assert "no-such-host.invalid does not resolve" in told["told"]
    assert "HostName" in told["hint"]


def test_every_address_of_a_name_is_told(yard: Yard) -> None:
    """NF-19: name resolution, IPv4 and IPv6."""
    found = yard.examine(yard.host("named", HostName="localhost", HostKeyAlias="x"))
    told = found["way to named: name"]
    assert "127.0.0.1" in told["details"]["addresses"]
    assert "IPv4" in told["told"]
    assert found["way to named: TCP"]["verdict"] == "ok"


def test_a_port_that_is_closed(yard: Yard) -> None:
    """NF-19: TCP is the step, the address is named."""
    port = free_port()
    found = yard.examine("box", "-p", str(port))
    name = f"way to box:{port}"
    assert way(found, name) == {"name": "ok", "TCP": "fail"}
    told = found[f"{name}: TCP"]
    assert "127.0.0.1: refused" in told["told"]
    assert told["details"]["port"] == str(port)
    assert "sshd" in told["hint"]


@pytest.mark.parametrize(
    ("handler", "told"),
    [(talk_http, "HTTP/1.1 400"), (hang_up, "hung up"), (mute, "says nothing")],
)
async def test_a_port_with_another_service(
    yard: Yard, handler: Callable[..., object], told: str
) -> None:
    """NF-19: the banner is the step, and what was said is shown."""
    alias = f"odd{told[:3]}"
    async with raw_server(handler) as port:  # type: ignore[arg-type]  # three alike
        seconds = 3 if handler is mute else 30
        yard.host(alias, Port=port, ConnectTimeout=seconds)
        found = await examined(yard.world, alias)
    steps = way(found, f"way to {alias}")
    assert steps == {"name": "ok", "TCP": "ok", "banner": "fail"}
    assert told in found[f"way to {alias}: banner"]["told"]


def test_a_chain_of_jump_hosts(yard: Yard) -> None:
    """NF-19, AU-07: hop by hop, each with its steps; the first fault ends it."""
    yard.host("first", HostKeyAlias=f"[127.0.0.1]:{yard.sshd.port}")
    yard.host("second", HostName="localhost", ProxyJump="first",
              StrictHostKeyChecking="accept-new")  # fmt: skip
    dead = yard.host("deadhop", Port=free_port())
    behind = yard.host("behind", Port=free_port(), ProxyJump="first")
    good = yard.host("far", ProxyJump="first,second")
    found = yard.examine(good)
    assert found.of("fail") == []
    assert way(found, "hop 1 first") == dict.fromkeys(STEPS, "ok")
    # The hop before looks up the name and makes the connection.
    tunnelled = dict.fromkeys(STEPS[1:], "ok")
    assert way(found, "hop 2 second") == tunnelled
    assert way(found, "way to far") == tunnelled
    assert found["hop 2 second: TCP"]["details"]["via"] == "first"
    assert f"{yard.sshd.user}@127.0.0.1" in found["host"]["details"]["jump"]

    found = yard.examine(yard.host("far1", ProxyJump=f"{dead},second"))
    assert way(found, "hop 1 deadhop") == {"name": "ok", "TCP": "fail"}
    assert found["hop 2 second"]["verdict"] == "skip"
    assert found["way to far1"]["told"] == "not tried: hop 1 deadhop failed"

    found = yard.examine(yard.host("far2", ProxyJump=f"first,{behind}"))
    assert way(found, "hop 1 first") == dict.fromkeys(STEPS, "ok")
    assert way(found, "hop 2 behind") == {"TCP": "fail"}
    told = found["hop 2 behind: TCP"]
    assert "first could not open a connection" in told["told"]
    assert "allows TCP forwarding" in told["hint"]
    assert found["way to far2"]["verdict"] == "skip"


def test_a_host_that_is_switched_off(yard: Yard) -> None:
    """NF-19: the rule that refuses it is a finding, with the next step."""
    found = yard.examine("off")
    assert found["host off"]["verdict"] == "fail"
    assert found["host off"]["details"]["reason"] == "HOST_DISABLED"
    assert "[hosts.off]" in found["host off"]["hint"]
    # What is wrong with one host says nothing of the daemon.
    assert found["audit log"]["verdict"] == "ok"


def test_a_hidden_host_stays_hidden(yard: Yard) -> None:
    """NF-19, OB-06: a host shown by its purpose only gives nothing away."""
    port = free_port()
    yard.host("lair", HostName="127.0.0.77", Port=port)
    found = yard.examine("hidden")
    assert found["way to hidden: TCP"]["verdict"] == "fail"
    own = [one for one in found.findings if "hidden" in one["check"]]
    assert "A lair" in found["host"]["told"]
    assert "127.0.0.77" not in str([*own, found["host"]])
    assert str(port) not in str([*own, found["host"]])


def test_ssh_refuses_its_configuration(yard: Yard, sshd: Sshd, tmp_path: Path) -> None:
    """NF-19: what ssh can't resolve is a finding with ssh's own words."""
    broken = tmp_path / "config"
    broken.write_text("Host box\n  NoSuchOption yes\n")
    with served(broken) as world:
        found = examine(world, "box")["host box"]
        assert found["details"]["reason"] == "BAD_CONFIGURATION"
        assert "nosuchoption" in found["told"].lower()
        broken.chmod(0o666)
        found = examine(world)["ssh config"]
        assert (found["verdict"], found["hint"]) == ("fail", f"chmod 600 {broken}")


def test_wrong_use_is_told_as_such(yard: Yard) -> None:
    """IN-08: options of a host without a host; a target that is none."""
    done = yard.world.cli("doctor", "-p", "1", check=False)
    assert done.returncode == 2
    assert b"need a TARGET" in done.stderr
    found = yard.examine("a b")["host a b"]
    assert found["details"]["reason"] == "INVALID_ARGUMENT"


def test_people_read_a_table_and_one_line_that_sums_it_up(yard: Yard) -> None:
    """NF-19, IN-08: the next step stands below its fault, and nothing is cut."""
    begun = time.monotonic()
    done = yard.world.cli("doctor", "box", "-p", str(free_port()), check=False)
    assert done.returncode == 1
    lines = done.stdout.decode().splitlines()
    (fault,) = [at for at, line in enumerate(lines) if line.startswith("FAIL")]
    assert ": TCP" in lines[fault]
    assert lines[fault + 1].lstrip().startswith("next: is sshd running there")
    assert "1 failed" in lines[-1]
    assert lines[-1].startswith(f"{len([x for x in lines if x[:4].strip()]) - 1} ch")
    assert time.monotonic() - begun < 20


async def test_two_at_once_do_not_disturb_each_other(yard: Yard) -> None:
    """NF-19: doctors share the pool's logins as everybody does."""
    runs = [examined(yard.world, "box") for _ in range(3)]
    assert [found.code for found in await asyncio.gather(*runs)] == [0, 0, 0]
