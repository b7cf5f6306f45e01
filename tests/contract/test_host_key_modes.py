"""Modes of host key checking, and what has a say in it, as agents meet them."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
import pytest_asyncio

from fakes.sshd import Sshd, keygen
from fakes.tools import Tools, served, tools
from holdfast_daemon.hosts.known_hosts import hashed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("host_key_modes"),
    pytest.mark.needs_sshd,
]

# What sshd notes at the first word about a login, before any credential.
ASKED = "userauth-request"
UNKNOWN, CHANGED = "HOST_KEY_UNKNOWN", "HOST_KEY_CHANGED"
REVOKED, BROKEN = "HOST_KEY_REVOKED", "BAD_CONFIGURATION"


class Case(NamedTuple):
    """A host as the person's files have it, and what comes of it.

    Attributes:
        options: Its lines of ssh configuration, divided by `;`.
        known: Its known_hosts file; names in braces are filled in.
        reason: Why it is refused; empty: it is not.
        after: The file afterwards; None: as it was.
        connect: What the call says.
    """

    options: str = ""
    known: str = ""
    reason: str = ""
    after: str | None = None
    connect: Mapping[str, Any] = {}


LEARNT = "{name} {key}\n"
WRONG = "{name} {other}\n"
CASES = {
    "yes-unknown": Case("StrictHostKeyChecking yes", "", UNKNOWN),
    "yes-known": Case("StrictHostKeyChecking yes", LEARNT),
    "yes-changed": Case("StrictHostKeyChecking yes", WRONG, CHANGED),
    "unset-unknown": Case("", "", UNKNOWN),
    "ask-unknown": Case("StrictHostKeyChecking ask", "", UNKNOWN),
    "ask-known": Case("StrictHostKeyChecking ask", LEARNT),
    "no-unknown": Case("StrictHostKeyChecking no"),
    "no-changed": Case("StrictHostKeyChecking no", WRONG, CHANGED),
    "off-unknown": Case("StrictHostKeyChecking off"),
    "off-changed": Case("StrictHostKeyChecking off", WRONG, CHANGED),
    "new-unknown": Case("StrictHostKeyChecking accept-new", "", "", LEARNT),
    "new-changed": Case("StrictHostKeyChecking accept-new", WRONG, CHANGED),
    "call-new": Case("", "", "", LEARNT, {"host_key_checking": "accept-new"}),
    "call-no": Case("", "", "", None, {"host_key_checking": "no"}),
    "call-yes": Case(
        "StrictHostKeyChecking no", "", UNKNOWN, None, {"host_key_checking": "yes"}
    ),
    "call-file": Case("", "", "", None, {"known_hosts_file": "{right}"}),
    "call-file-none": Case(
        "StrictHostKeyChecking yes", LEARNT, "", None, {"known_hosts_file": "/dev/null"}
    ),
    "global": Case("GlobalKnownHostsFile {right}"),
    "hashed": Case("", "{hashed} {key}\n"),
    "hashed-changed": Case("", "{hashed} {other}\n", CHANGED),
    "wildcard": Case("", "[127.*]:{port} {key}\n"),
    "negated": Case("", "[127.*]:{port},!{name} {key}\n", UNKNOWN),
    "alias": Case("HostKeyAlias shop", "shop {key}\n"),
    "alias-unknown": Case("HostKeyAlias shop", LEARNT, UNKNOWN),
    "alias-learnt": Case(
        "HostKeyAlias shop;StrictHostKeyChecking accept-new", "", "", "shop {key}\n"
    ),
    "marked": Case("", LEARNT + "@revoked * {key}\n", REVOKED),
    "marked-no": Case("StrictHostKeyChecking no", "@revoked * {key}\n", REVOKED),
    "list": Case("RevokedHostKeys {list}", LEARNT, REVOKED),
    "list-no": Case("RevokedHostKeys {list};StrictHostKeyChecking no", "", REVOKED),
    "list-missing": Case("RevokedHostKeys {list}.not", LEARNT, BROKEN),
    "krl": Case("RevokedHostKeys {krl}", LEARNT, REVOKED),
    "krl-others": Case("RevokedHostKeys {krl_other}", LEARNT),
    "command": Case("KnownHostsCommand /bin/echo %H {key}"),
    "command-wrong": Case("KnownHostsCommand /bin/echo %H {other}", "", CHANGED),
    "command-fails": Case("KnownHostsCommand /bin/false", LEARNT, BROKEN),
    "command-revokes": Case(
        "KnownHostsCommand /bin/echo @revoked %H {key}", LEARNT, REVOKED
    ),
    "localhost": Case("NoHostAuthenticationForLocalhost yes", WRONG),
}


class Sites:
    """The server, and a host per case that leads to it."""

    def __init__(self, sshd: Sshd, directory: Path) -> None:
        self.sshd = sshd
        self.directory = directory
        name = f"[127.0.0.1]:{sshd.port}"
        other = keygen(directory / "other")
        self.values = {
            "name": name,
            "port": str(sshd.port),
            "hashed": hashed(name),
            "key": public(sshd.host_key()),
            "other": public(other),
            "right": str(directory / "right"),
            "list": str(directory / "list"),
            "krl": str(directory / "krl"),
            "krl_other": str(directory / "krl_other"),
        }
        (directory / "right").write_text(self.fill(LEARNT))
        (directory / "list").write_text(self.fill("{key}\n"))
        for krl, key in (("krl", sshd.host_key()), ("krl_other", other)):
            command = ["ssh-keygen", "-q", "-k", "-f", str(directory / krl)]
            subprocess.run([*command, f"{key}.pub"], check=True, capture_output=True)

    def fill(self, text: str) -> str:
        return text.format(**self.values)

    def file(self, name: str) -> Path:
        """Return the known_hosts file of a case."""
        return self.directory / f"known-{name}"

    def configure(self) -> Path:
        """Write every file; return the ssh configuration."""
        text = ""
        for name, case in CASES.items():
            self.file(name).write_text(self.fill(case.known))
            options = [f"  {one}\n" for one in self.fill(case.options).split(";")]
            if "GlobalKnownHostsFile" not in case.options:
                options.append("  GlobalKnownHostsFile none\n")
            text += (
                f"Host {name}\n  HostName 127.0.0.1\n  Port {self.sshd.port}\n"
                f"  User {self.sshd.user}\n  IdentityFile {self.sshd.key}\n"
                f"  IdentitiesOnly yes\n  UserKnownHostsFile {self.file(name)}\n"
            ) + "".join(options)
        config = self.directory / "config"
        config.write_text(text)
        return config


def public(path: Path) -> str:
    """Return type and key of a public key's file."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sites]:
    directory = tmp_path_factory.mktemp("modes")
    options = {"LogLevel": "DEBUG1", "SetEnv": f"HOME={directory}"}
    with Sshd(directory / "sshd", options=options) as sshd:
        yield Sites(sshd, directory)


@pytest.fixture(scope="module")
def world(sites: Sites) -> Iterator[World]:
    with served(sites.configure()) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, target="") as one:
        yield one


@pytest.mark.parametrize("name", CASES)
async def test_a_mode_does_what_it_says(ssh: Tools, sites: Sites, name: str) -> None:
    """AU-09: yes, no, off, ask and accept-new; another file; who else has a say."""
    case, log = CASES[name], sites.sshd.log
    before = log.position
    connect = {key: sites.fill(value) for key, value in case.connect.items()}
    call = {"target": name, "command": "echo in", "connect": connect}
    if case.reason:
        error = await ssh.refused("ssh_exec", **call)
        assert (error["reason"], error["ran"]) == (case.reason, "no"), error
        assert "no credential was sent" in error["message"]
        assert error["hint"]
        # Its own end of the connection: nothing it was asked can come later.
        if case.reason != BROKEN:
            await asyncio.to_thread(log.wait_for, "[preauth]", after=before)
        assert not log.count(ASKED, after=before)
    else:
        assert (await ssh.told("ssh_exec", **call))["stdout"] == "in\n"
    wanted = case.known if case.after is None else case.after
    assert sites.file(name).read_text() == sites.fill(wanted)


async def test_ssh_reads_what_was_learnt(sites: Sites, ssh: Tools) -> None:
    """AU-09: a key that accept-new wrote down is good enough for a strict ssh."""
    await ssh.told("ssh_connect", target="new-unknown")
    command = ("ssh", "-F", str(sites.directory / "config"), "-o", "BatchMode=yes")
    strict = ("-o", "StrictHostKeyChecking=yes", "new-unknown", "exit 7")
    process = await asyncio.create_subprocess_exec(*command, *strict)
    async with asyncio.timeout(40):
        assert await process.wait() == 7


async def test_who_is_strict_does_not_share_an_unchecked_connection(
    sites: Sites, ssh: Tools
) -> None:
    """AU-09: a connection that a call opened without a check is no way round it."""
    target = "unset-unknown"
    unchecked = {"host_key_checking": "no"}
    await ssh.told("ssh_connect", target=target, connect=unchecked)
    error = await ssh.refused("ssh_exec", target=target, command="true")
    assert (error["reason"], error["ran"]) == (UNKNOWN, "no")
    assert sites.file(target).read_text() == ""
