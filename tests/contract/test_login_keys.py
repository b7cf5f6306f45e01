"""Keys that need a person, and agents where they usually are: with a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.mcp_wire import Wire
from fakes.security_key import SecurityKey
from fakes.sshd import Agent, Sshd, fingerprint, keygen, sshd_binary
from fakes.terminal import Terminal
from fakes.world import World, program

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

pytestmark = pytest.mark.needs_sshd

PHRASE = "canary open sesame"


@pytest.fixture
def root() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="hf-"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


def described(sshd: Sshd, directory: Path, extra: str, alias: str = "box") -> Path:
    """Return an ssh configuration that names the server, and the keys of `extra`."""
    text = sshd.client_config(alias)
    lines = [line for line in text.splitlines() if "Identit" not in line]
    file = directory / f"ssh_config_{alias}"
    file.write_text("\n".join(lines) + "\n" + extra)
    return file


@contextlib.contextmanager
def daemon(
    root: Path, config: Path, settings: str = "", **environment: str
) -> Generator[World]:
    world = World(root, ssh_config=config)
    world.configure(settings)
    world.environment |= {"XDG_RUNTIME_DIR": str(root), "HOME": str(root)}
    world.start(**environment)
    try:
        yield world
    finally:
        world.close()


async def call(world: World, tool: str = "ssh_connect", **arguments: Any) -> Any:
    async with Wire(env=world.environment) as shim:
        result = await shim.call(tool, {"target": "box"} | arguments)
    told = result["structuredContent"]
    return told["error"] if result.get("isError") else told


async def test_a_passphrase_is_asked_of_a_person_once(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """AU-04, NF-07: only for a key that the server takes, and never of an agent."""
    locked = keygen(tmp_path / "locked", passphrase=PHRASE)
    useless = keygen(tmp_path / "useless", passphrase="another")
    sshd.authorize(locked.with_suffix(".pub"))
    extra = f"  IdentityFile {useless}\n  IdentityFile {locked}\n"
    with daemon(root, described(sshd, tmp_path, extra)) as world:
        error = await call(world)
        assert error["reason"] == "PASSPHRASE_NEEDED"
        assert str(locked) in error["message"]
        assert "`holdfast login box` in a terminal" in error["hint"]
        before = sshd.logins
        with Terminal() as terminal:
            command = (program("holdfast"), "login", "box")
            await terminal.run(*command, env=world.environment)
            await terminal.asked(f"Passphrase of the key {locked}: ")
            terminal.type("wrong\n")
            await terminal.asked(f"(?s)try 2 of 3.*Passphrase of the key {locked}: ")
            terminal.type(f"{PHRASE}\n")
            await terminal.until("login +publickey")
            assert await terminal.ended() == 0
            assert str(useless).encode() not in terminal.said
        told = await call(world)
        assert told["reused"] is True
        assert fingerprint(locked) in told["auth_method"]
        assert sshd.logins == before + 1
        assert PHRASE not in world.log.read_text()
        assert PHRASE not in (world.state / "audit" / "audit.jsonl").read_text()


async def test_two_keys_in_turn_let_in_without_a_person(
    root: Path, tmp_path: Path
) -> None:
    """AU-05, AU-13: a partial success is gone on from with what is at hand."""
    options = {"AuthenticationMethods": "publickey,publickey"}
    second = keygen(tmp_path / "second")
    with Sshd(tmp_path / "strict", options=options) as strict:
        strict.authorize(second.with_suffix(".pub"))
        extra = f"  IdentityFile {strict.key}\n  IdentityFile {second}\n"
        with daemon(root, described(strict, tmp_path, extra)) as world:
            told = await call(world)
    assert told["auth_method"] == (
        f"publickey {fingerprint(strict.key)} ({strict.key}), then "
        f"publickey {fingerprint(second)} ({second})"
    )


PLACES = ["ssh-agent.socket", "keyring/ssh", "gcr/ssh", "gnupg/S.gpg-agent.ssh"]
HOMES = [".1password/agent.sock", ".ssh/agent/s.x.agent.y", ".gnupg/S.gpg-agent.ssh"]


@pytest.mark.parametrize("place", PLACES + HOMES)
async def test_an_agent_is_found_where_it_usually_is(
    sshd: Sshd, root: Path, tmp_path: Path, place: str
) -> None:
    """AU-02: though neither the client nor the service has SSH_AUTH_SOCK."""
    config = described(sshd, tmp_path, "  IdentityFile none\n")
    with daemon(root, config) as world:
        error = await call(world)
        assert error["reason"] == "AUTH_FAILED"
        assert "the holdfast service sees no ssh-agent" in error["hint"]
        with Agent(root / "own") as agent:
            link = root / place
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(agent.socket)
            error = await call(world)
            assert f"the agent {link} was asked: it holds no keys" in error["hint"]
            agent.add(sshd.key)
            told = await call(world)
            assert told["auth_method"].endswith("(from the agent)")


async def test_an_agent_that_went_and_came_back_is_asked_again(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """AU-02, faults: each login looks anew; meanwhile it is told what is missing."""
    config = described(sshd, tmp_path, "  IdentityFile none\n")
    own = root / "own"
    with daemon(root, config, SSH_AUTH_SOCK=str(own / "agent.sock")) as world:
        for _ in range(2):
            with Agent(own) as agent:
                agent.add(sshd.key)
                assert (await call(world))["reused"] is False
                # What is open needs no agent.
                assert (await call(world))["reused"] is True
            await call(world, "ssh_disconnect")
            error = await call(world)
            assert error["reason"] == "AUTH_FAILED"
            assert f"the agent {agent.socket}" in error["hint"]
            agent.socket.unlink(missing_ok=True)


async def test_an_agent_without_keys_does_not_hide_another(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """AU-02: the client's own first, then the service's, then the usual places."""
    none = "  IdentityFile none\n"
    config = described(sshd, tmp_path, none)
    with Agent(root / "empty") as empty, Agent(root / "full") as full:
        only = f"{none}  IdentityAgent {empty.socket}\n"
        only = described(sshd, tmp_path, only, "strict").read_text()
        config.write_text(config.read_text() + only)
        (root / "ssh-agent.socket").symlink_to(full.socket)
        full.add(sshd.key)
        with daemon(root, config, SSH_AUTH_SOCK=str(empty.socket)) as world:
            assert (await call(world))["auth_method"].endswith("(from the agent)")
            await call(world, "ssh_disconnect")
            # One that was named by IdentityAgent is the only one, as with ssh.
            error = await call(world, target="strict")
            assert f"the agent {empty.socket} was asked: it holds no" in error["hint"]


async def test_five_agents_share_one_touch_of_a_security_key(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """NF-07: one touch, announced to the person who logs in; all five run."""
    config = described(sshd, tmp_path, "  IdentityFile none\n")
    with daemon(root, config) as world:
        async with SecurityKey(root / "ssh-agent.socket") as key:
            sshd.authorized_keys.write_text(
                sshd.authorized_keys.read_text() + key.public
            )
            with Terminal() as terminal:
                command = (program("holdfast"), "login", "box")
                await terminal.run(*command, env=world.environment)
                await terminal.until("touch the security key")
                calls = [
                    asyncio.create_task(call(world, "ssh_exec", command=f"echo {n}"))
                    for n in range(5)
                ]
                await asyncio.wait_for(key.lit.wait(), 40)
                key.touch()
                told = await asyncio.gather(*calls)
                assert await terminal.ended() == 0
            assert [one["stdout"] for one in told] == [f"{n}\n" for n in range(5)]
            assert key.blinks == 1


async def test_a_key_that_nobody_touches_is_named(
    sshd: Sshd, root: Path, tmp_path: Path
) -> None:
    """NF-07: an agent's call ends within its time and says what was waited for."""
    config = described(sshd, tmp_path, "  IdentityFile none\n")
    with daemon(root, config) as world:
        async with SecurityKey(root / "ssh-agent.socket") as key:
            sshd.authorized_keys.write_text(
                sshd.authorized_keys.read_text() + key.public
            )
            error = await call(world, connect={"connect_timeout_seconds": 4})
            assert error["reason"] == "LOGIN_NEEDED"
            assert "a touch of the security key" in error["message"]
            # Somebody who is there may simply touch it.
            later = asyncio.create_task(call(world))
            key.lit.clear()
            await asyncio.wait_for(key.lit.wait(), 40)
            key.touch()
            assert (await later)["connected"] is True


def asks_by_pam() -> bool:
    """Whether this machine's sshd knows PAM, whose own service it would use."""
    binary = sshd_binary()
    if binary is None or not Path("/etc/pam.d/sshd").is_file():
        return False
    told = subprocess.run(["ldd", binary], check=False, capture_output=True, text=True)
    return "libpam" in told.stdout


@pytest.mark.skipif(not asks_by_pam(), reason="sshd here has no PAM service to ask by")
async def test_what_a_real_sshd_asks_by_pam_is_named_and_may_be_given_up(
    root: Path, tmp_path: Path
) -> None:
    """AU-13, NF-07: a key, then what PAM asks; nobody's password is tried."""
    options = {
        "UsePAM": "yes",
        "KbdInteractiveAuthentication": "yes",
        "AuthenticationMethods": "publickey,keyboard-interactive",
        "LogLevel": "DEBUG1",
    }
    with Sshd(tmp_path / "pam", options=options) as strict:
        with daemon(root, strict.config) as world:
            error = await call(world)
            assert error["reason"] == "LOGIN_NEEDED"
            assert error["message"] == "box asks for: Password"
            assert fingerprint(strict.key) in error["tried"]
            assert strict.log.count("Partial publickey") == 1
            with Terminal() as terminal:
                command = (program("holdfast"), "login", "box")
                await terminal.run(*command, env=world.environment)
                await terminal.until("box took publickey SHA256:")
                await terminal.asked(r"\(box\) Password: ")
                waiter = asyncio.create_task(call(world, "ssh_exec", command="true"))
                terminal.type("\x03")
                assert await terminal.ended() == 130
                assert (await waiter)["reason"] == "LOGIN_NEEDED"
        assert strict.log.count("Failed keyboard-interactive") == 0
        assert strict.logins == 0
