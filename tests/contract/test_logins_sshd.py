"""How a login is made, as a real sshd sees it: which credential, in which order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import Agent, Sshd, fingerprint, keygen
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import until
from fakes.world import World

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Generator,
        Iterator,
        Mapping,
    )

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("logins_sshd"),
    pytest.mark.needs_sshd,
]

PASSWORD = "wrong-but-offered-0815"
ELSEWHERE = """
import os, pwd
found = pwd.getpwuid
def getpwuid(uid):
    account = list(found(uid))
    account[5] = {home!r}
    return pwd.struct_passwd(account)
pwd.getpwuid = getpwuid
"""


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a server that offers passwords too and tells each step of a login."""
    directory = tmp_path_factory.mktemp("strict")
    options = {
        "PasswordAuthentication": "yes",
        "MaxAuthTries": "20",
        "LogLevel": "DEBUG1",
        "SetEnv": f"HOME={directory}",
    }
    with Sshd(directory, options=options) as server:
        yield server


@pytest.fixture(scope="module")
def agent() -> Iterator[Agent]:
    directory = Path(tempfile.mkdtemp(prefix="hf-agent-"))
    with Agent(directory) as one:
        yield one
    shutil.rmtree(directory, ignore_errors=True)


def bare(sshd: Sshd, directory: Path, extra: str = "  IdentityFile none\n") -> Path:
    """Return an ssh configuration that names the server, and the keys of `extra`."""
    lines = [
        line for line in sshd.client_config().splitlines() if "Identit" not in line
    ]
    file = directory / "ssh_config"
    file.write_text("\n".join(lines) + "\n" + extra)
    return file


@contextlib.contextmanager
def daemon(config: Path, **environment: str) -> Generator[World]:
    """Run a daemon with this environment of its own."""
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    world = World(root, ssh_config=config)
    world.configure(f"[limits]\n{QUICK}")
    try:
        world.start(**environment)
        yield world
    finally:
        world.close()
        shutil.rmtree(root, ignore_errors=True)


@contextlib.asynccontextmanager
async def client(
    config: Path,
    *,
    env: Mapping[str, str] | None = None,
    own: Mapping[str, str] | None = None,
) -> AsyncGenerator[Tools]:
    """Yield the tools of a client with `env`, of a daemon with an `own` environment."""
    with daemon(config, **(own or {})) as world:
        async with tools(world, env=env) as one:
            yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(strict: Sshd) -> AsyncIterator[Tools]:
    with served(strict) as world:
        async with tools(world) as one:
            yield one


def steps(sshd: Sshd, after: int) -> list[str]:
    """Return what was tried since: a key's fingerprint, or another method's name.

    What sshd writes is read a little later than its answer.
    """
    return until(lambda: _steps(sshd, after), "sshd tells what was tried")


def _steps(sshd: Sshd, after: int) -> list[str]:
    found: list[str] = []
    for line in sshd.log.text.splitlines()[after:]:
        told = re.search(r"(?:Failed|Accepted) (\S+) for .*? port \d+(.*)", line)
        if told is None or told[1] in {"none", "key"}:
            continue
        key = re.search(r"SHA256:\S+", told[2])
        step = key[0] if key else told[1]
        if "-CERT" in told[2]:
            step = f"certificate {step}"
        # A key is asked about first, and then proved.
        if not found or found[-1] != step:
            found.append(step)
    return found


async def test_a_key_file_of_the_call_lets_in(ssh: Tools, strict: Sshd) -> None:
    """AU-02: key file of the configuration, and of one call."""
    told = await ssh.told("ssh_connect")
    assert told["auth_method"] == f"publickey {fingerprint(strict.key)} ({strict.key})"
    before = strict.log.position
    told = await ssh.told("ssh_connect", connect={"identity_file": str(strict.key)})
    assert told["auth_method"] == f"publickey {fingerprint(strict.key)} ({strict.key})"
    assert told["reused"] is False
    assert steps(strict, before) == [fingerprint(strict.key)]


async def test_the_default_keys_of_the_account_are_tried(
    strict: Sshd, tmp_path: Path
) -> None:
    """AU-02: ~/.ssh/id_* of the account's home, where nothing names a key.

    The home is that of the user database, as with OpenSSH, and never that of $HOME; so
    the daemon is told another one by the database, and not by its environment.
    """
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    misleading = tmp_path / "environment"
    (misleading / ".ssh").mkdir(parents=True)
    stranger = keygen(misleading / ".ssh" / "id_ecdsa", kind="ecdsa")
    rsa = keygen(home / ".ssh" / "id_ecdsa", kind="ecdsa")
    shutil.copy2(strict.key, home / ".ssh" / "id_ed25519")
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(ELSEWHERE.format(home=str(home)))
    path = f"{hooks}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    before = strict.log.position
    async with client(
        bare(strict, tmp_path, ""), own={"PYTHONPATH": path, "HOME": str(misleading)}
    ) as ssh:
        told = await ssh.told("ssh_connect")
    assert told["auth_method"].startswith(f"publickey {fingerprint(strict.key)}")
    assert told["auth_method"].endswith(f"({home}/.ssh/id_ed25519)")
    # id_ecdsa comes before id_ed25519 in OpenSSH's own list.
    assert steps(strict, before) == [fingerprint(rsa), fingerprint(strict.key)]
    assert fingerprint(stranger) not in strict.log.text


@pytest.mark.parametrize("whose", ["daemon", "client"])
async def test_an_agent_lets_in(
    strict: Sshd, agent: Agent, tmp_path: Path, whose: str
) -> None:
    """AU-02: a real ssh-agent of the daemon, and one of the client's environment."""
    agent.add(strict.key)
    own = {"SSH_AUTH_SOCK": str(agent.socket)}
    config = bare(strict, tmp_path)
    async with (
        client(config, own=own) if whose == "daemon" else client(config, env=own)
    ) as ssh:
        told = await ssh.told("ssh_connect")
        assert told["auth_method"] == (
            f"publickey {fingerprint(strict.key)} (from the agent)"
        )
        assert (await ssh.run("echo in"))["stdout"] == "in\n"


async def test_an_agent_that_is_not_there_is_told(strict: Sshd, tmp_path: Path) -> None:
    """AU-02: the refusal names the socket and what is wrong with it."""
    gone = tmp_path / "gone.sock"
    config = bare(strict, tmp_path)
    async with client(config, env={"SSH_AUTH_SOCK": str(gone)}) as ssh:
        error = await ssh.refused("ssh_exec", command="true")
    # A person could still type the password that this server takes.
    assert (error["reason"], error["ran"]) == ("LOGIN_NEEDED", "no")
    assert str(gone) in error["message"] + error["hint"]


@pytest.mark.parametrize("form", ["lines", "escaped"])
async def test_key_content_of_the_environment_lets_in(
    strict: Sshd, tmp_path: Path, form: str
) -> None:
    """AU-03: SSH_PRIVATE_KEY, with line ends as they are or as JSON leaves them."""
    content = strict.key.read_text()
    given = content if form == "lines" else content.replace("\n", "\\n")
    async with client(bare(strict, tmp_path), env={"SSH_PRIVATE_KEY": given}) as ssh:
        told = await ssh.told("ssh_connect")
        assert told["auth_method"] == (
            f"publickey {fingerprint(strict.key)} (the key given as text)"
        )
        assert (await ssh.run("echo in"))["stdout"] == "in\n"


@pytest.mark.parametrize("kind", ["garbage", "locked"])
async def test_key_content_that_can_t_be_used_is_told_without_repeating_it(
    strict: Sshd, tmp_path: Path, kind: str
) -> None:
    """AU-03, bad input: broken or encrypted content."""
    content = "-----BEGIN OPENSSH PRIVATE KEY-----\nhunter2222\n"
    if kind == "locked":
        content = keygen(tmp_path / "locked", passphrase="any").read_text()
    secret = content.splitlines()[1]
    async with client(bare(strict, tmp_path), env={"SSH_PRIVATE_KEY": content}) as ssh:
        error = await ssh.refused("ssh_connect")
    wanted = {"garbage": "KEY_UNREADABLE", "locked": "PASSPHRASE_NEEDED"}
    assert (error["reason"], error["ran"]) == (wanted[kind], "no")
    assert secret not in str(error)


async def test_a_client_with_another_key_gets_no_connection_of_the_first(
    strict: Sshd, tmp_path: Path
) -> None:
    """AU-03: who names a credential is let in by it, or not at all."""
    stranger = keygen(tmp_path / "stranger").read_text()
    with daemon(bare(strict, tmp_path)) as world:
        async with (
            tools(world, env={"SSH_PRIVATE_KEY": strict.key.read_text()}) as one,
            tools(world, env={"SSH_PRIVATE_KEY": stranger}) as other,
        ):
            assert (await one.told("ssh_connect"))["connected"] is True
            error = await other.refused("ssh_exec", command="true")
            assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")
            assert (await one.told("ssh_connect"))["reused"] is True


async def test_the_order_is_that_of_openssh(
    strict: Sshd, agent: Agent, tmp_path: Path
) -> None:
    """AU-05: what sshd sees of us is what it sees of `ssh` with the same files.

    Certificates, agent keys that IdentityFile names, other agent keys, other files.
    """
    named = keygen(tmp_path / "named")
    other = keygen(tmp_path / "other")
    first, second = keygen(tmp_path / "first"), keygen(tmp_path / "second")
    sealed = keygen(tmp_path / "sealed")
    await asyncio.to_thread(
        subprocess.run,
        ["ssh-keygen", "-q", "-s", str(keygen(tmp_path / "ca")), "-I", "me",
         "-n", "me", f"{sealed}.pub"],
        check=True,
    )  # fmt: skip
    with Agent(agent.socket.parent / "order") as keeper:
        for key in (other, named):
            keeper.add(key)
        extra = "".join(
            f"  IdentityFile {key}\n" for key in (first, named, sealed, second)
        )
        extra += f"  CertificateFile {sealed}-cert.pub\n"
        config = bare(strict, tmp_path, extra)
        own = {"SSH_AUTH_SOCK": str(keeper.socket)}
        before = strict.log.position
        done = await asyncio.to_thread(
            subprocess.run,
            ["ssh", "-F", str(config), "-o", "BatchMode=yes", "box", "true"],
            check=False,
            env={**os.environ, **own},
            capture_output=True,
            timeout=20,
        )
        assert done.returncode == 255
        theirs = steps(strict, before)
        before = strict.log.position
        async with client(config, env=own) as ssh:
            error = await ssh.refused("ssh_connect")
        # What is left is the password, which a person could type.
        assert error["reason"] == "LOGIN_NEEDED"
        ours = steps(strict, before)
    assert ours == theirs
    assert len(ours) == 6
    assert ours[0].startswith("certificate ")
    assert ours[1:3] == [fingerprint(named), fingerprint(other)]
    # What was tried is told in the order it was tried in.
    told = re.findall(r"SHA256:[\w+/]{43}", error["tried"])
    assert len(told) >= 3
    assert told == [step.removeprefix("certificate ") for step in ours][: len(told)]


@pytest.mark.parametrize("way", ["call", "environment"])
async def test_a_password_turns_keys_and_agent_off(
    strict: Sshd, agent: Agent, way: str
) -> None:
    """AU-05: with a password sshd is offered nothing else, though a key would do."""
    agent.add(strict.key)
    env = {"SSH_AUTH_SOCK": str(agent.socket)}
    connect: dict[str, Any] = {}
    if way == "call":
        connect = {"connect": {"password": PASSWORD}}
    else:
        env["SSH_DEFAULT_PASSWORD"] = PASSWORD
    with served(strict) as world:
        before = strict.log.position
        async with tools(world, env=env) as ssh:
            error = await ssh.refused("ssh_exec", command="true", **connect)
            assert (error["reason"], error["ran"]) == ("AUTH_FAILED", "no")
            assert error["tried"] == "password"
            assert steps(strict, before) == ["password"]
            assert not strict.log.count("publickey", after=before)
            # A failed login is not tried again by itself.
            assert strict.log.count("Failed password", after=before) == 1
            assert PASSWORD not in str(error)
        async with tools(world) as ssh:
            assert (await ssh.told("ssh_connect"))["connected"] is True


async def test_a_key_of_the_call_turns_the_client_s_password_off(
    strict: Sshd,
) -> None:
    """AU-05: what a call says itself wins over the client's environment."""
    connect = {"identity_file": str(strict.key)}
    env = {"SSH_DEFAULT_PASSWORD": PASSWORD}
    with served(strict) as world:
        before = strict.log.position
        async with tools(world, env=env) as ssh:
            assert (await ssh.run("true", connect=connect))["exit_code"] == 0
        assert steps(strict, before) == [fingerprint(strict.key)]


async def test_a_user_certificate_lets_in(strict: Sshd, tmp_path: Path) -> None:
    """AU-14: signed by an authority that sshd trusts; beside its key, and named."""
    authority, key = keygen(tmp_path / "ca"), keygen(tmp_path / "user")
    await asyncio.to_thread(
        subprocess.run,
        ["ssh-keygen", "-q", "-s", str(authority), "-I", "the bearer", "-n",
         strict.user, f"{key}.pub"],
        check=True,
    )  # fmt: skip
    apart = tmp_path / "apart-cert.pub"
    options = {"TrustedUserCAKeys": f"{authority}.pub"}
    with Sshd(tmp_path / "certain", options=options, client_key=key) as certain:
        certain.authorized_keys.write_text("")
        with served(certain) as world:
            async with tools(world) as ssh:
                told = await ssh.told("ssh_connect")
                assert told["auth_method"] == (
                    f"publickey {fingerprint(key)} ({key}, certificate)"
                )
                assert (await ssh.run("echo in"))["stdout"] == "in\n"
        assert certain.log.count("ID the bearer") == 1
        # Elsewhere than beside its key, by CertificateFile.
        shutil.move(f"{key}-cert.pub", apart)
        config = bare(
            certain,
            tmp_path,
            f"  IdentityFile {key}\n  CertificateFile {apart}\n",
        )
        async with client(config) as ssh:
            told = await ssh.told("ssh_connect")
            assert told["auth_method"].endswith(f"({key}, certificate)")
        # And none at all is no login: the key alone is not known.
        apart.unlink()
        async with client(config) as ssh:
            assert (await ssh.refused("ssh_connect"))["reason"] == "AUTH_FAILED"
