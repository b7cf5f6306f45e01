"""A person trusts hosts that are reached in other ways, in files of other shapes."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from fakes import forked, relay
from fakes.nursery import CLI
from fakes.sshd import Sshd, keygen
from fakes.tools import served, tools

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = pytest.mark.needs_sshd

# What sshd notes at the first word about a login, before any credential.
ASKED = "userauth-request"
TWO = 2


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    directory = tmp_path / "sshd"
    directory.mkdir()
    options = {"LogLevel": "DEBUG1", "SetEnv": f"HOME={directory}"}
    with Sshd(directory, options=options) as server:
        yield server


def public(path: Path) -> str:
    """Return type and key of a private key's file."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


async def trust(world: World, *words: str) -> subprocess.CompletedProcess[bytes]:
    """Run `holdfast hosts trust` where there is no terminal."""
    return await asyncio.to_thread(
        forked.run, CLI, "hosts", "trust", *words, env=world.environment
    )


async def decided(world: World, host: Sshd, *words: str) -> dict[str, Any]:
    """Trust the key of `box`; the host is asked nothing."""
    before = host.log.position
    pin = host.host_fingerprint()
    done = await trust(world, "box", "--fingerprint", pin, "--json", *words)
    assert done.returncode == 0, done.stderr
    assert not host.log.count(ASKED, after=before)
    told = json.loads(done.stdout)
    assert isinstance(told, dict)
    return told


async def test_a_host_behind_a_proxy_command(host: Sshd) -> None:
    """NF-13, AU-07: the key is fetched by the command, as a login would be."""
    stranger = public(keygen(host.directory / "stranger"))
    name = f"[127.0.0.1]:{host.port}"
    host.known_hosts.write_text(f"{name} {stranger}\n")
    extra = f"  ProxyCommand {relay.command(host.port)}\n"
    host.config.write_text(host.client_config(extra=extra))
    with served(host) as world:
        async with tools(world) as ssh:
            before = host.log.position
            error = await ssh.refused("ssh_exec", command="true")
            assert error["reason"] == "HOST_KEY_CHANGED"
            assert error["fingerprint"] == host.host_fingerprint()
            assert not host.log.count(ASKED, after=before)
            assert (await decided(world, host))["changed"] is True
            assert (await ssh.run("echo in"))["stdout"] == "in\n"
    assert host.known_hosts.read_text() == host.known_hosts_lines()


async def test_an_address_that_counts_is_trusted_with_the_name(host: Sshd) -> None:
    """NF-13: CheckHostIP has both written, unless the address is this machine's."""
    own = public(host.host_key())
    text = host.client_config(extra="  CheckHostIP yes\n  AddressFamily inet\n")
    host.config.write_text(text.replace("HostName 127.0.0.1", "HostName localhost"))
    host.known_hosts.write_text("")
    with served(host) as world:
        await decided(world, host)
        async with tools(world) as ssh:
            assert (await ssh.run("echo in"))["stdout"] == "in\n"
    lines = host.known_hosts.read_text().splitlines()
    assert lines[0] == f"[localhost]:{host.port} {own}"


async def test_what_is_not_about_this_host_stays_as_it_was(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-13: other names, remarks, revoked keys, a link, mode and the file before."""
    old, other = (public(keygen(tmp_path / one)) for one in ("old", "other"))
    name, own = f"[127.0.0.1]:{host.port}", public(host.host_key())
    kept = (
        f"# mine\n\nweb2 {other}\n@revoked {name} {other}\n"
        f"@cert-authority {name} {other}\nbroken\n"
    )
    real = tmp_path / "settings" / "known"
    real.parent.mkdir()
    before = f"{kept}{name},web3 {old} note\n{name} {other}\n"
    real.write_text(before)
    real.chmod(0o640)
    host.known_hosts.unlink()
    host.known_hosts.symlink_to(real)
    with served(host) as world:
        told = await decided(world, host)
        assert len(told["replaced"]) == TWO
        async with tools(world) as ssh:
            assert (await ssh.run("echo in"))["stdout"] == "in\n"
    assert real.read_text() == f"{kept}web3 {old} note\n{name} {own}\n"
    assert host.known_hosts.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o640
    assert real.with_name("known.old").read_text() == before
    assert sorted(path.name for path in real.parent.iterdir()) == ["known", "known.old"]


async def test_two_who_trust_at_once_write_one_line(host: Sshd) -> None:
    """NF-13: the second finds that it is done."""
    stranger = public(keygen(host.directory / "stranger"))
    host.known_hosts.write_text(f"[127.0.0.1]:{host.port} {stranger}\n")
    with served(host) as world:
        told = await asyncio.gather(*(decided(world, host) for _ in range(3)))
    assert [one["changed"] for one in told].count(True) == 1
    assert host.known_hosts.read_text() == host.known_hosts_lines()


async def test_a_file_that_can_t_be_written_is_named(host: Sshd) -> None:
    """NF-13: nothing is half done, and the next step is told."""
    extra = "  UserKnownHostsFile /dev/null\n"
    text = host.client_config().replace(f"{host.known_hosts}", "/dev/null")
    host.config.write_text(text + extra)
    with served(host) as world:
        async with tools(world) as ssh:
            error = await ssh.refused("ssh_exec", command="true")
            assert error["reason"] == "HOST_KEY_UNKNOWN"
        done = await trust(world, "box", "--fingerprint", host.host_fingerprint())
        assert done.returncode == 1
        assert b"UserKnownHostsFile is /dev/null" in done.stderr
        assert b"host_key in config.toml" in done.stderr


async def test_a_host_that_is_gone_is_told_as_such(host: Sshd) -> None:
    """NF-13: no key, no decision; the wrong arguments are named too."""
    with served(host) as world:
        bad = await trust(world, "box", "--fingerprint", "MD5:aa:bb")
        assert bad.returncode
        assert b"MD5:aa:bb" in bad.stderr
        await asyncio.to_thread(host.stop)
        before = host.known_hosts.read_text()
        done = await trust(world, "box")
        assert done.returncode == 1
        assert b"refused" in done.stderr.lower()
        nobody = await trust(world, "no-such-host.invalid")
        assert nobody.returncode == 1
        assert b"no-such-host.invalid" in nobody.stderr
    assert host.known_hosts.read_text() == before
