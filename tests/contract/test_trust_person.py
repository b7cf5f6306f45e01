"""A host's key is unknown or has changed: agents are told, and a person decides."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from fakes import forked, relay
from fakes.nursery import CLI
from fakes.sshd import Sshd, fingerprint, keygen
from fakes.terminal import Terminal
from fakes.tools import Tools, served, tools
from fakes.world import program
from holdfast.v1 import common_pb2, trust_pb2, trust_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd

# What sshd notes at the first word about a login, before any credential.
ASKED = "userauth-request"


def make(directory: Path, **more: Any) -> Sshd:
    directory.mkdir(exist_ok=True)
    options = {"LogLevel": "DEBUG1", "SetEnv": f"HOME={directory}"}
    return Sshd(directory, options=options, **more)


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    """Yield a server of its own, whose key may change."""
    with make(tmp_path / "sshd") as server:
        yield server


@pytest.fixture
def world(host: Sshd) -> Iterator[World]:
    with served(host) as one:
        yield one


async def changed(host: Sshd) -> tuple[str, str]:
    """Give the host another key; return the old and the new fingerprint."""
    old = host.host_fingerprint()
    await asyncio.to_thread(host.restart, new_host_keys=True)
    return old, host.host_fingerprint()


async def trust(world: World, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run `holdfast hosts trust` where there is no terminal."""
    return await asyncio.to_thread(
        forked.run, CLI, "hosts", "trust", *words, env=world.environment
    )


async def begin(world: World, terminal: Terminal, *words: str) -> None:
    command = (program("holdfast"), "hosts", "trust", *words)
    await terminal.run(*command, env=world.environment)


async def waiting(world: World) -> list[dict[str, Any]]:
    told = await asyncio.to_thread(world.cli_json, "hosts", "trust")
    found = told["requests"]
    assert isinstance(found, list)
    return found


async def works(ssh: Tools, **arguments: Any) -> None:
    assert (await ssh.run("echo in", **arguments))["stdout"] == "in\n"


async def test_a_person_s_word_lets_the_waiting_agents_on(
    world: World, host: Sshd
) -> None:
    """NF-13: told by both fingerprints, listed, shown with pictures, then it works."""
    stranger = keygen(host.directory / "stranger").with_suffix(".pub").read_text()
    rest = f"# mine\nweb2,192.0.2.9 {stranger}"
    host.known_hosts.write_text(rest + host.known_hosts.read_text())
    old, new = await changed(host)
    async with (
        tools(world, client="one") as first,
        tools(world, client="two") as second,
    ):
        before = host.log.position
        error = await first.refused("ssh_exec", command="true")
        assert error["reason"] == "HOST_KEY_CHANGED"
        assert (error["fingerprint"], error["known_fingerprint"]) == (new, old)
        assert (error["file"], error["line"]) == (str(host.known_hosts), "3")
        assert (error["key_type"], error["ran"]) == ("ssh-ed25519", "no")
        assert "`holdfast hosts trust box` in a terminal" in error["hint"]
        again = await second.refused("ssh_connect")
        assert again["pending"] == error["pending"]
        assert not host.log.count(ASKED, after=before)

        (request,) = await waiting(world)
        assert request["id"] == error["pending"]
        assert (request["host"], request["status"]) == ("box", "changed")
        assert request["key"]["fingerprint"] == new
        assert request["known"][0]["key"]["fingerprint"] == old
        assert request["times"] == 2
        assert [name.partition("/")[0] for name in request["clients"]] == [
            "one",
            "two",
        ]
        status = await asyncio.to_thread(world.cli, "status")
        assert b"`holdfast hosts trust` has to decide on box" in status.stdout

        before = host.log.position
        with Terminal() as terminal:
            await begin(world, terminal, "box")
            await terminal.until(r"NOT THE KNOWN ONE(?s:.)*line 3 is replaced")
            await terminal.until(r"Trust this key \(yes/no/\[fingerprint\]\)\? ")
            said = terminal.said.decode().replace("\r\n", "\n")
            terminal.type("perhaps\n")
            await terminal.until("Please type yes, no or the fingerprint: ")
            terminal.type("yes\n")
            await terminal.until("box is trusted with SHA256:")
            assert await terminal.ended() == 0
        assert not host.log.count(ASKED, after=before)
        art = ["ssh-keygen", "-lvf", f"{host.host_key()}.pub"]
        shown = await asyncio.to_thread(subprocess.check_output, art, text=True)
        for row in shown.splitlines()[1:]:
            assert row in said
        for words in (new, old, "MD5:", "ED25519, 256 bits", str(host.known_hosts)):
            assert words in said

        await works(first)
        await works(second)
    assert await waiting(world) == []
    assert host.known_hosts.read_text() == rest + host.known_hosts_lines()
    await recorded(world, old, new, str(host.known_hosts))


async def recorded(world: World, old: str, new: str, file: str) -> None:
    """Check that the audit log tells who trusted what."""
    audit = await asyncio.to_thread(world.cli, "audit", "--json")
    records = [json.loads(line) for line in audit.stdout.splitlines()]
    (end,) = [
        one
        for one in records
        if one["event_type"] == "host_key_trusted" and one["phase"] == "end"
    ]
    assert end["result"] == "ok"
    assert end["client"].startswith("cli/")
    assert end["principal"] == f"uid:{os.getuid()}"
    assert end["metadata"]["fingerprint"] == new
    assert end["metadata"]["replaced"] == [old]
    assert end["metadata"]["file"] == file


@pytest.mark.parametrize(
    ("typed", "code"), [("no\n", 1), ("\x04", 1), ("{other}\n", 1), ("{new}\n", 0)]
)
async def test_only_a_yes_or_the_fingerprint_trusts(
    world: World, host: Sshd, typed: str, code: int
) -> None:
    """NF-13: no, the end of the input and another fingerprint write nothing."""
    _, new = await changed(host)
    before = host.known_hosts.read_text()
    with Terminal() as terminal:
        await begin(world, terminal, "box")
        await terminal.until(r"\[fingerprint\]\)\? ")
        terminal.type(typed.format(new=new, other="SHA256:" + "A" * 43))
        if "other" in typed:
            await terminal.until("Please type yes, no or the fingerprint: ")
            terminal.type("no\n")
        assert await terminal.ended() == code
    assert (host.known_hosts.read_text() == before) is (code == 1)
    if code == 0:
        assert host.known_hosts.read_text() == host.known_hosts_lines()


async def test_without_a_terminal_only_the_fingerprint_counts(
    world: World, host: Sshd
) -> None:
    """NF-13: for scripts that know what the host's key is."""
    _, new = await changed(host)
    before = host.known_hosts.read_text()
    asked = await trust(world, "box")
    assert asked.returncode == 1
    assert b"there is no terminal to ask at" in asked.stderr
    wrong = await trust(world, "box", "--fingerprint", "SHA256:" + "A" * 43)
    assert wrong.returncode == 1
    assert new.encode() in wrong.stderr
    assert host.known_hosts.read_text() == before
    right = await trust(world, "box", "--fingerprint", new, "--json")
    told = json.loads(right.stdout)
    assert (right.returncode, told["changed"], told["fingerprint"]) == (0, True, new)
    again = await trust(world, "box", "--fingerprint", new)
    assert again.returncode == 0
    assert b"was trusted already" in again.stdout
    bad = await trust(world, "--fingerprint", new)
    assert bad.returncode == 2


async def test_a_key_that_changes_before_the_yes_is_refused(
    world: World, host: Sshd
) -> None:
    """NF-13: what is trusted is what was shown."""
    await changed(host)
    before = host.known_hosts.read_text()
    with Terminal() as terminal:
        await begin(world, terminal, "box")
        await terminal.until(r"\[fingerprint\]\)\? ")
        _, third = await changed(host)
        terminal.type("yes\n")
        await terminal.until(re.escape(f"shows the key ssh-ed25519 {third}"))
        assert await terminal.ended() == 1
    assert host.known_hosts.read_text() == before


async def test_lines_that_change_before_the_yes_are_left_alone(
    world: World, host: Sshd
) -> None:
    """NF-13: what is written is what was shown."""
    await changed(host)
    with Terminal() as terminal:
        await begin(world, terminal, "box")
        await terminal.until(r"\[fingerprint\]\)\? ")
        mine = f"[127.0.0.1]:{host.port},web2 " + " ".join(
            host.known_hosts.read_text().split()[1:]
        )
        host.known_hosts.write_text(mine + "\n")
        terminal.type("yes\n")
        await terminal.until("has changed since it was shown")
        assert await terminal.ended() == 1
    assert host.known_hosts.read_text() == mine + "\n"


async def test_a_revoked_key_can_t_be_trusted(world: World, host: Sshd) -> None:
    """NF-13, AU-09: nor does its line go; no argument helps either."""
    line = host.known_hosts_lines()
    revoked = f"@revoked * {' '.join(line.split()[1:])}\n"
    host.known_hosts.write_text(line + revoked)
    async with tools(world) as ssh:
        for connect in (
            {},
            {"host_key_checking": "no"},
            {"host_key_checking": "accept-new"},
            {"host_key_checking": "no", "known_hosts_file": "/dev/null"},
        ):
            error = await ssh.refused("ssh_exec", command="true", connect=connect)
            assert error["reason"] == "HOST_KEY_REVOKED"
            assert "pending" not in error
    assert await waiting(world) == []
    done = await trust(world, "box", "--fingerprint", host.host_fingerprint())
    assert done.returncode == 1
    assert b"is revoked" in done.stderr
    assert host.known_hosts.read_text() == line + revoked
    removed = await trust(world, "box", "--remove")
    assert b"there is no terminal" in removed.stderr
    assert host.known_hosts.read_text() == line + revoked


@pytest.mark.parametrize("checking", ["no", "accept-new", "yes"])
async def test_no_argument_gets_past_a_changed_key(
    world: World, host: Sshd, checking: str, tmp_path: Path
) -> None:
    """AU-09, NF-13: neither checking less nor another file; nothing is written."""
    old, new = await changed(host)
    before = host.known_hosts.read_text()
    mine = tmp_path / "mine"
    async with tools(world) as ssh:
        for connect in (
            {"host_key_checking": checking},
            {"host_key_checking": checking, "known_hosts_file": str(mine)},
        ):
            start = host.log.position
            error = await ssh.refused("ssh_connect", connect=connect)
            assert error["reason"] == "HOST_KEY_CHANGED"
            assert (error["fingerprint"], error["known_fingerprint"]) == (new, old)
            assert not host.log.count(ASKED, after=start)
    assert host.known_hosts.read_text() == before
    assert not mine.exists()


@pytest.mark.parametrize("by_proxy", [False, True])
@pytest.mark.parametrize("hashed", [False, True])
async def test_an_unknown_host_is_taken_up(
    host: Sshd, *, hashed: bool, by_proxy: bool
) -> None:
    """AU-09, NF-13: HashKnownHosts and HostKeyAlias as the person has them."""
    host.known_hosts.unlink()
    extra = "  HashKnownHosts yes\n  HostKeyAlias Shop\n" if hashed else ""
    extra += f"  ProxyCommand {relay.command(host.port)}\n" if by_proxy else ""
    host.config.write_text(host.client_config(extra=extra))
    with served(host) as world:
        async with tools(world) as ssh:
            error = await ssh.refused("ssh_exec", command="true")
            assert error["reason"] == "HOST_KEY_UNKNOWN"
            assert "known_fingerprint" not in error
            with Terminal() as terminal:
                await begin(world, terminal, "box")
                await terminal.until("is not known(?s:.)*fingerprint\\]\\)\\? ")
                terminal.type("yes\n")
                assert await terminal.ended() == 0
            await works(ssh)
    text = host.known_hosts.read_text()
    name = "shop" if hashed else f"[127.0.0.1]:{host.port}"
    assert (name in text) is not hashed
    command = ["ssh-keygen", "-F", name, "-f", str(host.known_hosts)]
    found = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, check=True
    )
    assert b"found: line 1" in found.stdout
    assert host.known_hosts.stat().st_mode & 0o777 == 0o600


async def test_keys_are_taken_out_again(world: World, host: Sshd) -> None:
    """NF-13: --remove; the connection of that key is closed."""
    stranger = keygen(host.directory / "stranger").with_suffix(".pub").read_text()
    rest = f"web2 {stranger}"
    host.known_hosts.write_text(rest + host.known_hosts_lines())
    async with tools(world) as ssh:
        await works(ssh)
        with Terminal() as terminal:
            await begin(world, terminal, "box", "--remove")
            await terminal.until(r"line 2 goes \(ssh-ed25519\)")
            await terminal.until(r"Take these lines out \(yes/no\)\? ")
            terminal.type("yes\n")
            await terminal.until("1 key is not trusted any more for box")
            await terminal.until("1 connection")
            assert await terminal.ended() == 0
        assert host.known_hosts.read_text() == rest
        error = await ssh.refused("ssh_exec", command="true")
        assert error["reason"] == "HOST_KEY_UNKNOWN"
    nothing = await trust(world, "box", "--remove")
    assert nothing.returncode == 0
    assert b"No line of yours names a key of box" in nothing.stderr


async def test_what_runs_on_the_old_key_goes_on_and_nothing_new_does(
    world: World, host: Sshd
) -> None:
    """NF-13: its connection takes nothing new, and ends with what runs on it."""
    async with tools(world) as ssh:
        job = await ssh.start("echo up; sleep 60")
        await ssh.until(job, "up")
        await asyncio.to_thread(host.replace_listener)
        new = host.host_fingerprint()
        done = await trust(world, "box", "--fingerprint", new)
        assert b"1 connection(s) of an old key close when" in done.stdout
        told = await ssh.told("ssh_connect")
        assert (told["host_key_fingerprint"], told["reused"]) == (new, False)
        await works(ssh)
        assert (await ssh.read(job))["status"] == "running"
        await ssh.stop(job)
        status = await asyncio.to_thread(world.cli_json, "status")
        states = [one["state"] for one in status["connections"]]
        assert states == ["ready"]


async def turned_away(world: World, context: common_pb2.ClientContext) -> None:
    """Try to give trust as this client, in every way there is."""
    metadata = (("holdfast-client-bin", context.SerializeToString()),)
    async with grpc.aio.insecure_channel(f"unix:{world.socket}") as channel:
        stub = trust_pb2_grpc.TrustServiceStub(channel)
        pin = "SHA256:" + "A" * 43
        for request in (
            stub.ExamineHostKey(
                trust_pb2.ExamineHostKeyRequest(target="box"), metadata=metadata
            ),
            stub.ForgetHostKeys(
                trust_pb2.ForgetHostKeysRequest(target="box"), metadata=metadata
            ),
            stub.TrustHostKey(
                trust_pb2.TrustHostKeyRequest(target="box", fingerprint=pin),
                metadata=metadata,
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await request
            assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_an_agent_s_client_can_t_give_trust(world: World, host: Sshd) -> None:
    """NF-13: no tool does it, and the door turns every other client away."""
    before = host.log.position
    text = host.known_hosts.read_text()
    for context in (
        common_pb2.ClientContext(),
        common_pb2.ClientContext(name="cli"),
        common_pb2.ClientContext(name="cli", person=True, tool="ssh_exec"),
        common_pb2.ClientContext(name="cli", person=True, read_only=True),
    ):
        await turned_away(world, context)
    assert host.log.position == before
    assert host.known_hosts.read_text() == text
    async with tools(world) as ssh:
        listed = await ssh.wire.request("tools/list")
        names = [tool["name"] for tool in listed["result"]["tools"]]
        assert "ssh_exec" in names
        assert not [name for name in names if "trust" in name or "key" in name]


async def test_a_pinned_key_is_corrected_in_the_configuration(host: Sshd) -> None:
    """AU-10: known_hosts has no say, so there is nothing to trust there."""
    pin = fingerprint(keygen(host.directory / "stranger"))
    more = f'[hosts.shop]\nhost = "box"\nhost_key = "{pin}"\n'
    with served(host, more=more) as world:
        async with tools(world, target="shop") as ssh:
            error = await ssh.refused("ssh_connect")
            assert error["reason"] == "HOST_KEY_CHANGED"
            assert error["known_fingerprint"] == pin
            assert error["fingerprint"] == host.host_fingerprint()
            assert "pending" not in error
            assert "host_key" in error["hint"]
        assert await waiting(world) == []
        done = await trust(world, "shop", "--fingerprint", host.host_fingerprint())
        assert done.returncode == 1
        assert b"is pinned to" in done.stderr


async def test_a_jump_host_s_key_is_judged_and_trusted_by_itself(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-13, AU-07: the hop is named; neither it nor what is behind it is told more."""
    with make(tmp_path / "behind", alias="inner") as inner:
        extra = "  ProxyJump box\n"
        host.config.write_text(host.client_config() + inner.client_config(extra=extra))
        inner.known_hosts.unlink()
        old, new = await changed(host)
        host.config.write_text(host.client_config() + inner.client_config(extra=extra))
        with served(host) as world:
            async with tools(world, target="inner") as ssh:
                start, behind = host.log.position, inner.log.position
                error = await ssh.refused("ssh_exec", command="true")
                assert error["reason"] == "HOST_KEY_CHANGED"
                assert error["name"] == "box"
                assert (error["known_fingerprint"], error["fingerprint"]) == (old, new)
                assert "on the way to" in error["message"]
                assert "`holdfast hosts trust box`" in error["hint"]
                assert not host.log.count(ASKED, after=start)
                assert inner.log.position == behind
                hidden = await trust(world, "inner")
                assert b"`holdfast hosts trust box`" in hidden.stderr
                done = await trust(world, "box", "--fingerprint", new)
                assert done.returncode == 0
                error = await ssh.refused("ssh_exec", command="true")
                assert (error["reason"], error["name"]) == (
                    "HOST_KEY_UNKNOWN",
                    "inner",
                )
                (request,) = await waiting(world)
                assert (request["host"], request["via"]) == ("inner", "box")
                behind = inner.log.position
                right = inner.host_fingerprint()
                done = await trust(world, "inner", "--fingerprint", right)
                assert done.returncode == 0, done.stderr
                assert not inner.log.count(ASKED, after=behind)
                await works(ssh)


async def test_a_key_that_changes_under_a_connection_is_found_out(
    world: World, host: Sshd
) -> None:
    """NF-13: cut off, logged in again, refused before a word; then a person decides."""
    async with tools(world) as ssh:
        await works(ssh)
        before = host.log.position
        old, new = await changed(host)
        result = await ssh.call("ssh_exec", command="true")
        error = result["structuredContent"].get("error")
        if error is None or error["reason"] != "HOST_KEY_CHANGED":
            # The first may meet what is left of the connection.
            error = await ssh.refused("ssh_exec", command="true")
        assert error["reason"] == "HOST_KEY_CHANGED"
        assert (error["known_fingerprint"], error["fingerprint"]) == (old, new)
        assert not host.log.count(ASKED, after=before)
        assert (await trust(world, "box", "--fingerprint", new)).returncode == 0
        await works(ssh)


async def test_further_keys_of_a_known_host_are_learnt(tmp_path: Path) -> None:
    """AU-09: UpdateHostKeys: proved, and written beside the one that is known."""
    kinds = ("ed25519", "ecdsa")
    with make(tmp_path / "sshd", host_key_types=kinds) as host:
        both = host.known_hosts_lines()
        first = both.splitlines(keepends=True)[0]
        host.known_hosts.write_text(first)
        extra = "  UpdateHostKeys yes\n"
        host.config.write_text(host.client_config(extra=extra))
        with served(host) as world:
            async with tools(world) as ssh:
                for _ in range(50):
                    await works(ssh)
                    if host.known_hosts.read_text() != first:
                        break
        assert host.known_hosts.read_text() == both
