"""A server that is not the right one gets to see no word of a login, whoever asks."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import asyncssh
import pytest

from fakes import forked
from fakes.nursery import CLI
from fakes.tools import served, tools

if TYPE_CHECKING:
    from pathlib import Path

    from fakes.world import World

PASSWORD = "canary-Passw0rd"
RIGHT = asyncssh.generate_private_key("ssh-ed25519")
WRONG = asyncssh.generate_private_key("ssh-ed25519")


@dataclass
class Seen:
    """What a server was asked."""

    connections: int = 0
    logins: list[str] = field(default_factory=list[str])
    secrets: list[str] = field(default_factory=list[str])


class Honeypot:
    """Takes every login, and notes it.

    Attributes:
        shown: The key it shows; it signs with its own.
    """

    def __init__(
        self, key: asyncssh.SSHKey, shown: asyncssh.SSHKey | None = None
    ) -> None:
        self.seen = Seen()
        self.port = 0
        (pair,) = asyncssh.load_keypairs([key])
        if shown is not None:
            pair.public_data = shown.public_data
        self._pair = pair
        self._server: asyncssh.SSHAcceptor | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncssh.create_server(
            lambda: _Host(self.seen), "127.0.0.1", 0, server_host_keys=[self._pair]
        )
        self.port = self._server.get_port()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()


class _Host(asyncssh.SSHServer):
    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        del conn
        self._seen.connections += 1

    def begin_auth(self, username: str) -> bool:
        self._seen.logins.append(username)
        return True

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        del username
        self._seen.secrets.append(password)
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def connection_requested(
        self, dest_host: str, dest_port: int, orig_host: str, orig_port: int
    ) -> bool:
        del dest_host, dest_port, orig_host, orig_port
        return True


def line(port: int, key: asyncssh.SSHKey, marker: str = "") -> str:
    public = key.export_public_key().decode().strip()
    return f"{marker} [127.0.0.1]:{port} {public}\n".lstrip()


def configure(directory: Path, honeypot: Honeypot, known: str) -> Path:
    """Write a person's files: `pot`, and `inner` behind it; a key to offer is there."""
    key = directory / "id"
    WRONG.write_private_key(str(key))
    key.chmod(0o600)
    file = directory / "known_hosts"
    file.write_text(known)
    common = (
        f"  HostName 127.0.0.1\n  User me\n  IdentityFile {key}\n"
        f"  UserKnownHostsFile {file}\n  GlobalKnownHostsFile none\n"
    )
    config = directory / "config"
    config.write_text(
        f"Host pot\n  Port {honeypot.port}\n{common}"
        f"Host inner\n  Port {honeypot.port}\n  ProxyJump pot\n{common}"
    )
    return config


async def everything_tried(world: World, target: str) -> None:
    """Go every way there is to a host."""
    env = {"SSH_DEFAULT_PASSWORD": PASSWORD}
    async with tools(world, target=target, env=env) as ssh:
        for connect in (
            {},
            {"password": PASSWORD},
            {"host_key_checking": "yes", "known_hosts_file": "/dev/null"},
        ):
            for tool, more in (("ssh_exec", {"command": "true"}), ("ssh_connect", {})):
                error = await ssh.refused(tool, connect=connect, **more)
                assert error["ran"] == "no"
    for words in (
        ("exec", target, "--", "true"),
        ("hosts", "test", target),
        ("login", target),
        ("doctor", target),
        ("hosts", "trust", target),
    ):
        done = await asyncio.to_thread(
            forked.run, CLI, *words, env={**world.environment, **env}
        )
        assert done.returncode, done.stdout
        assert PASSWORD.encode() not in done.stdout + done.stderr


@pytest.mark.parametrize("target", ["pot", "inner"])
@pytest.mark.parametrize("known", ["changed", "unknown", "revoked", "stolen"])
async def test_a_wrong_server_never_sees_a_login(
    tmp_path: Path, known: str, target: str
) -> None:
    """NF-13, AU-09: by any verb, with a password at hand, also as the jump host.

    A stolen key is shown, but not held: the proof fails.
    """
    stolen = known == "stolen"
    async with Honeypot(WRONG, RIGHT if stolen else None) as honeypot:
        port = honeypot.port
        text = {
            "changed": line(port, RIGHT),
            "unknown": "",
            "revoked": line(port, WRONG) + line(port, WRONG, "@revoked"),
            "stolen": line(port, RIGHT),
        }[known]
        config = configure(tmp_path, honeypot, text)
        with served(config) as world:
            await everything_tried(world, target)
        assert honeypot.seen.connections > 5
        assert honeypot.seen.logins == []
        assert honeypot.seen.secrets == []
        assert (tmp_path / "known_hosts").read_text() == text


async def test_the_same_honeypot_sees_the_login_of_who_knows_it(
    tmp_path: Path,
) -> None:
    """The test above can fail: where the key is the known one, the password comes."""
    async with Honeypot(RIGHT) as honeypot:
        config = configure(tmp_path, honeypot, line(honeypot.port, RIGHT))
        with served(config) as world:
            async with tools(world, target="pot") as ssh:
                told = await ssh.told("ssh_connect", connect={"password": PASSWORD})
        assert told["connected"] is True
        assert honeypot.seen.logins == ["me"]
        assert honeypot.seen.secrets == [PASSWORD]


async def test_a_stolen_key_is_not_learnt(tmp_path: Path) -> None:
    """AU-09: accept-new writes down only what a host has proved to hold."""
    async with Honeypot(WRONG, RIGHT) as honeypot:
        config = configure(tmp_path, honeypot, "")
        with served(config) as world:
            async with tools(world, target="pot") as ssh:
                connect = {"host_key_checking": "accept-new"}
                await ssh.refused("ssh_connect", connect=connect)
        assert honeypot.seen.logins == []
        assert (tmp_path / "known_hosts").read_text() == ""
