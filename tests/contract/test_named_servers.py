"""Named servers of config.toml: what each field does, and what clients are shown."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.asyncssh_server import mute, raw_server
from fakes.sshd import fingerprint, free_port, keygen
from fakes.tools import QUICK, Tools, failure, served, tools
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.sshd import Sshd

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("named_servers"),
    pytest.mark.needs_sshd,
]

PHRASE = "open sesame of the named key"
PLACE = """
[hosts.{name}]
host = "127.0.0.1"
port = {port}
user = "{user}"
ssh_key_path = "{key}"
known_hosts_file = "{known_hosts}"
"""


@pytest.fixture(scope="module")
def keys(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return one key that is known but locked, and one that nobody knows."""
    directory = tmp_path_factory.mktemp("keys")
    locked = keygen(directory / "locked", passphrase=PHRASE)
    sshd.authorize(locked.with_suffix(".pub"))
    return {"locked": locked, "stranger": keygen(directory / "stranger")}


@pytest.fixture(scope="module")
def inventory(sshd: Sshd, keys: dict[str, Path]) -> str:
    """Return entries that differ from `web` in one field each."""
    common = {
        "port": sshd.port,
        "user": sshd.user,
        "key": sshd.key,
        "known_hosts": sshd.known_hosts,
    }

    def entry(name: str, more: str = "", **changed: object) -> str:
        return PLACE.format(name=name, **{**common, **changed}) + more

    return (
        entry("web", 'tags = ["prod", "front"]\ndescription = "The shop window"\n')
        + entry("elsewhere", port=free_port())
        + entry("nobody", user="no-such-user")
        + entry("stranger", key=keys["stranger"])
        + entry("locked", 'ssh_key_passphrase_env = "HF_PHRASE"\n', key=keys["locked"])
        + entry("misled", 'ssh_key_passphrase_env = "HF_OTHER"\n', key=keys["locked"])
        + entry("silent", key=keys["locked"])
        + entry("off", 'enabled = false\ntags = ["prod"]\n', user="off-duty")
        + entry("db", 'tags = ["prod", "store"]\ndescription = "Orders, by year"\n')
    )


@pytest.fixture(scope="module")
def shared(inventory: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield a daemon to which nothing but config.toml says where hosts are."""
    empty = tmp_path_factory.mktemp("ssh") / "config"
    empty.touch()
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    world = World(root, ssh_config=empty)
    world.configure(f"{inventory}[limits]\n{QUICK}")
    try:
        world.start(HF_PHRASE=PHRASE, HF_OTHER="another phrase altogether")
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(shared: World) -> AsyncIterator[Tools]:
    async with tools(shared, target="") as one:
        yield one


async def test_host_and_port_of_an_entry_lead_to_the_server(
    ssh: Tools, sshd: Sshd
) -> None:
    """IN-01: host, port; another port of the same host is another server."""
    told = await ssh.run("echo $SSH_CONNECTION", target="web")
    assert told["target"] == "web"
    assert told["stdout"].split()[2:] == ["127.0.0.1", str(sshd.port)]
    error = await ssh.refused("ssh_exec", target="elsewhere", command="true")
    assert (error["reason"], error["ran"]) == ("HOST_UNREACHABLE", "no")


async def test_user_of_an_entry_is_who_logs_in(ssh: Tools, sshd: Sshd) -> None:
    """IN-01: user."""
    assert (await ssh.run("id -un", target="web"))["stdout"].strip() == sshd.user
    before = sshd.log.position
    error = await ssh.refused("ssh_exec", target="nobody", command="true")
    assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")
    assert sshd.log.count("Invalid user no-such-user", after=before)


async def test_key_of_an_entry_is_the_one_that_is_offered(
    ssh: Tools, sshd: Sshd, keys: dict[str, Path]
) -> None:
    """IN-01, AU-02: ssh_key_path, and no other key beside it."""
    told = await ssh.told("ssh_connect", target="web")
    assert fingerprint(sshd.key) in told["auth_method"]
    before = sshd.log.position
    error = await ssh.refused("ssh_exec", target="stranger", command="true")
    assert error["reason"] == "AUTH_FAILED"
    assert fingerprint(keys["stranger"]) in error["tried"]
    assert fingerprint(sshd.key) not in error["tried"]
    assert sshd.log.count(fingerprint(keys["stranger"]), after=before)
    assert not sshd.log.count(fingerprint(sshd.key), after=before)


async def test_passphrase_comes_from_the_variable_that_an_entry_names(
    ssh: Tools, sshd: Sshd, keys: dict[str, Path], shared: World
) -> None:
    """IN-01, AU-04: ssh_key_passphrase_env of the daemon's environment."""
    for target in ("misled", "silent"):
        error = await ssh.refused("ssh_exec", target=target, command="true")
        assert (error["reason"], error["ran"]) == ("PASSPHRASE_NEEDED", "no"), target
        assert error["path"] == str(keys["locked"])
    before = sshd.log.position
    assert (await ssh.run("echo in", target="locked"))["stdout"] == "in\n"
    assert sshd.log.count(f"Accepted publickey for {sshd.user}", after=before) == 1
    assert sshd.log.count(fingerprint(keys["locked"]), after=before)
    # The same key file leads to the same connection: it stays for who proves it anew.
    assert (await ssh.told("ssh_disconnect", target="locked"))["closed"] is True
    for path in [shared.log, *shared.state.rglob("*.jsonl")]:
        assert PHRASE not in path.read_text()


async def test_a_variable_of_the_client_is_no_passphrase(shared: World) -> None:
    """AU-04: the daemon's own environment counts, whatever a client has."""
    async with tools(shared, target="", env={"HF_OTHER": PHRASE}) as ssh:
        error = await ssh.refused("ssh_exec", target="misled", command="true")
        assert error["reason"] == "PASSPHRASE_NEEDED"


async def test_an_entry_that_is_switched_off_is_neither_shown_nor_used(
    ssh: Tools, shared: World
) -> None:
    """IN-01: enabled."""
    names = [host["name"] for host in (await ssh.told("ssh_hosts"))["hosts"]]
    assert "web" in names
    assert "off" not in names
    for tool, more in (("ssh_exec", {"command": "true"}), ("ssh_connect", {})):
        error = await ssh.refused(tool, target="off", **more)
        assert (error["reason"], error["ran"]) == ("HOST_DISABLED", "no")
    assert shared.cli("hosts", "test", "off", check=False).returncode == 1


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        ({"tag": "prod"}, ["web", "db"]),
        ({"tag": "store"}, ["db"]),
        ({"tag": "pro"}, []),
        ({"query": "SHOP"}, ["web"]),
        ({"query": "orders"}, ["db"]),
        ({"query": "o", "tag": "front"}, ["web"]),
        ({"query": "orders", "tag": "front"}, []),
    ],
)
async def test_hosts_are_found_by_tag_and_by_words(
    ssh: Tools, shared: World, asked: dict[str, str], names: list[str]
) -> None:
    """IN-01, IN-03: tags and description, the same list from the command line."""
    found = (await ssh.told("ssh_hosts", **asked))["hosts"]
    assert [host["name"] for host in found] == names
    words = ["--tag", asked["tag"]] if "tag" in asked else []
    words += [asked["query"]] if "query" in asked else []
    assert shared.cli_json("hosts", "list", *words)["hosts"] == found


async def test_a_listed_host_says_what_it_is_for(ssh: Tools, sshd: Sshd) -> None:
    """IN-01: tags, description and the resolved target, in the file's order."""
    hosts = (await ssh.told("ssh_hosts"))["hosts"]
    web, *_, db = hosts
    assert (web["name"], db["name"]) == ("web", "db")
    assert web["tags"] == ["prod", "front"]
    assert web["description"] == "The shop window"
    assert web["target"] == f"{sshd.user}@127.0.0.1:{sshd.port}"


@pytest.mark.parametrize(
    ("allowed", "names"),
    [
        ("web,db", ["web", "db"]),
        ("d*", ["db"]),
        ("nobody", ["nobody"]),
        ("off", []),
        ("unheard-of", []),
    ],
)
async def test_a_client_is_shown_only_what_it_may_use(
    shared: World, allowed: str, names: list[str]
) -> None:
    """IN-03: the list of a client that SSH_ALLOWED_HOSTS narrows, by both faces."""
    env = {"SSH_ALLOWED_HOSTS": allowed}
    async with tools(shared, target="", env=env) as ssh:
        hosts = (await ssh.told("ssh_hosts"))["hosts"]
        assert [host["name"] for host in hosts] == names
        tagged = (await ssh.told("ssh_hosts", tag="prod"))["hosts"]
        assert [host["name"] for host in tagged] == [
            name for name in names if name in {"web", "db"}
        ]
    listed = shared.cli("hosts", "list", "--json", env=env).stdout.decode()
    for other in {"web", "db", "nobody", "off"} - set(names):
        assert f'"{other}"' not in listed


async def test_several_servers_and_none_named_is_refused_by_every_face(
    ssh: Tools, shared: World
) -> None:
    """IN-11: never guessed; a disabled one is no candidate."""
    error = await ssh.refused("ssh_exec", command="true")
    assert (error["reason"], error["ran"]) == ("NO_TARGET", "no")
    assert "web" in error["hint"]
    assert "off" not in error["candidates"].split(", ")
    told = shared.cli("exec", "--", "true", check=False)
    assert told.returncode == 255
    assert b"web" in told.stderr
    assert shared.cli("hosts", "test", check=False).returncode == 2


class Hidden:
    """What an agent may not learn of a host that is shown by its purpose."""

    def __init__(self, *words: object) -> None:
        self.words = [str(word) for word in words]

    def check(self, what: str, told: object) -> None:
        for word in self.words:
            assert word not in str(told), f"{what} tells {word}: {told}"


async def everything(ssh: Tools, target: str) -> dict[str, Any]:
    """Return what every tool says about a host: results, lists and refusals."""
    job = await ssh.start("echo out; echo err >&2; sleep 60", target=target)
    told: dict[str, Any] = {
        "exec": await ssh.call("ssh_exec", target=target, command="exit 3"),
        "cwd": await ssh.call("ssh_exec", target=target, command="true", cwd="/none"),
        "shell": await ssh.call("ssh_exec", target=target, command="true", shell="no"),
        "user": await ssh.call(
            "ssh_exec", target=target, command="true", connect={"user": "no-such-user"}
        ),
        "strange": await ssh.call("ssh_connect", target="strange"),
        "option": await ssh.call(
            "ssh_connect", target=target, connect={"options": {"ProxyCommand": "x"}}
        ),
        "hosts": await ssh.call("ssh_hosts"),
        "query": await ssh.call("ssh_hosts", query="127.0"),
        "jobs": await ssh.call("ssh_job_list"),
        "of one host": await ssh.call("ssh_job_list", target=target),
        "read": await ssh.call("ssh_job_read", job_id=job, offset=0),
        "grep": await ssh.call("ssh_job_read", job_id=job, grep="out"),
        "busy": await ssh.call("ssh_disconnect", target=target),
        "force": await ssh.call("ssh_disconnect", target=target, force=True),
        "lost": await ssh.call("ssh_job_read", job_id=job, offset=0),
        "stopped": await ssh.call("ssh_job_stop", job_id=job),
        "closed": await ssh.call("ssh_disconnect", target=target),
    }
    assert failure(told["user"])["reason"] == "AUTH_FAILED"
    assert failure(told["strange"])["reason"] == "HOST_KEY_UNKNOWN"
    assert failure(told["busy"])["reason"] == "IN_USE"
    return told


async def test_a_host_shown_by_purpose_is_nowhere_told_by_address(sshd: Sshd) -> None:
    """IN-10: no answer, list, note, progress or error of any tool has the address."""
    place = {"port": sshd.port, "user": sshd.user, "key": sshd.key}
    entry = (
        PLACE.format(name="box", known_hosts=sshd.known_hosts, **place)
        + 'show = "purpose"\ndescription = "the build machine"\n'
        + PLACE.format(name="strange", known_hosts="/dev/null", **place)
        + 'show = "purpose"\n'
    )
    hidden = Hidden("127.0.0.1", sshd.port)
    with served(sshd, more=entry) as world:
        async with tools(world, target="") as ssh:
            told = await everything(ssh, "box")
            narrow = {"SSH_ALLOWED_HOSTS": "other"}
            async with tools(world, target="", env=narrow) as less:
                told["narrowed"] = await less.call(
                    "ssh_exec", target="box", command="true"
                )
            sshd.stop()
            try:
                told["gone"] = await ssh.call("ssh_connect", target="box")
            finally:
                sshd.start()
            assert failure(told["gone"])["reason"] == "HOST_UNREACHABLE"
            connected = await ssh.told("ssh_connect", target="box")
            told["connected"] = connected
            told["notes"] = ssh.wire.notes
        assert "the build machine" in str(told["hosts"])
        assert connected["target"] == "box"
        for what, answer in told.items():
            hidden.check(what, answer)


async def test_a_hidden_host_that_never_answers_is_told_by_its_name(
    sshd: Sshd,
) -> None:
    """IN-10: nor does the error of a connection that takes too long."""
    async with raw_server(mute) as port:
        entry = (
            f'[hosts.deaf]\nhost = "127.0.0.1"\nport = {port}\nuser = "me"\n'
            'show = "purpose"\nhost_key_checking = "no"\n'
            '[hosts.odd]\nhost = "no-such-host.invalid"\nshow = "purpose"\n'
            "[defaults]\nconnect_timeout_seconds = 0.3\n"
        )
        with served(sshd, more=entry) as world:
            async with tools(world, target="") as ssh:
                deaf = await ssh.refused("ssh_connect", target="deaf")
                odd = await ssh.refused("ssh_connect", target="odd")
        assert (deaf["reason"], odd["reason"]) == ("CONNECT_TIMEOUT", "HOST_NOT_FOUND")
        Hidden("127.0.0.1", port, "no-such-host.invalid").check("errors", (deaf, odd))
