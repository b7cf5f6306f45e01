from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakes.links import find_host, make_pool, run
from fakes.sshd import Sshd, fingerprint, keygen
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.host import Overrides
from holdfast_daemon.hosts.known_hosts import hashed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_daemon.hosts.host import Host, HostKeyChecking

pytestmark = pytest.mark.needs_sshd


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Sshd]:
    kinds = ("ed25519", "ecdsa", "rsa")
    with Sshd(tmp_path / "sshd", host_key_types=kinds) as one:
        yield one


async def connects(host: Host) -> str:
    async with make_pool() as pool, await pool.lease(host) as lease:
        assert (await run(lease, "echo in"))[1] == b"in\n"
        return lease.link.host_key_fingerprint


async def refused(host: Host, server: Sshd) -> DaemonError:
    """Check that it is refused before any credential was sent."""
    before = server.log.position
    async with make_pool() as pool:
        with pytest.raises(DaemonError) as caught:
            await pool.lease(host)
    server.log.wait_for("Connection from", after=before)
    for word in ("Accepted", "Failed", "publickey"):
        assert server.log.count(word, after=before) == 0
    return caught.value


async def test_an_unknown_key_is_refused_before_any_credential(server: Sshd) -> None:
    """AU-09, A5 row 26: strict by default, with the fingerprint to compare."""
    server.known_hosts.write_text("")
    error = await refused(await find_host(server.config), server)
    assert error.reason is Reason.HOST_KEY_UNKNOWN
    assert error.metadata["fingerprint"] == server.host_fingerprint()
    assert "`holdfast hosts trust box`" in error.hint


@pytest.mark.parametrize("checking", ["yes", "accept-new", "no"])
async def test_a_changed_key_is_refused_whatever_the_flag(
    server: Sshd, checking: HostKeyChecking, tmp_path: Path
) -> None:
    """A5 row 26: a changed key is never accepted by a flag of the agent's own."""
    old = server.host_fingerprint()
    await asyncio.to_thread(server.restart, new_host_keys=True)
    mine = tmp_path / "mine"
    for over in (
        Overrides(host_key_checking=checking),
        Overrides(host_key_checking=checking, known_hosts_file=str(mine)),
    ):
        error = await refused(await find_host(server.config, overrides=over), server)
        assert error.reason is Reason.HOST_KEY_CHANGED
        assert error.metadata["fingerprint"] == server.host_fingerprint()
        assert old in error.metadata["known_fingerprint"]
        assert str(server.known_hosts) in error.metadata["known_in"]
    assert not mine.exists()


async def test_a_new_key_is_learned_once_and_then_known(server: Sshd) -> None:
    """AU-09: accept-new."""
    server.known_hosts.unlink()
    over = Overrides(host_key_checking="accept-new")
    await connects(await find_host(server.config, overrides=over))
    learned = server.known_hosts.read_text()
    assert learned.count("\n") == 1
    assert await connects(await find_host(server.config)) == server.host_fingerprint()
    assert server.known_hosts.read_text() == learned


async def test_a_key_is_used_without_being_learned_where_checking_is_off(
    server: Sshd,
) -> None:
    """AU-09: no."""
    server.known_hosts.write_text("")
    over = Overrides(host_key_checking="no")
    await connects(await find_host(server.config, overrides=over))
    assert server.known_hosts.read_text() == ""


async def test_another_known_hosts_file_can_be_named(
    server: Sshd, tmp_path: Path
) -> None:
    """AU-09: other known_hosts file."""
    mine = tmp_path / "mine"
    mine.write_text(server.known_hosts.read_text())
    server.known_hosts.write_text("")
    over = Overrides(known_hosts_file=str(mine))
    await connects(await find_host(server.config, overrides=over))


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
async def test_the_known_kind_of_key_is_asked_for(server: Sshd, kind: str) -> None:
    """A5 row 26: a server with several keys is known by any of them."""
    lines = server.known_hosts.read_text().splitlines(keepends=True)
    wanted = {"ed25519": "ssh-ed25519", "ecdsa": "ecdsa-sha2", "rsa": "ssh-rsa"}[kind]
    server.known_hosts.write_text("".join(one for one in lines if wanted in one))
    found = await connects(await find_host(server.config))
    assert found == server.host_fingerprint(kind)


async def test_hashed_names_and_aliases_are_found(server: Sshd) -> None:
    """A5 row 26: hashed; AU-06: HostKeyAlias."""
    keys = [one.split(" ", 1)[1] for one in server.known_hosts_lines().splitlines()]
    name = hashed(f"[127.0.0.1]:{server.port}")
    server.known_hosts.write_text("".join(f"{name} {key}\n" for key in keys))
    await connects(await find_host(server.config))
    server.known_hosts.write_text("".join(f"my-box {key}\n" for key in keys))
    server.config.write_text(server.client_config(extra="  HostKeyAlias my-box\n"))
    await connects(await find_host(server.config))


async def test_a_revoked_key_is_refused(server: Sshd) -> None:
    """A5 row 26: revoked."""
    lines = server.known_hosts.read_text()
    marks = "".join(
        f"@revoked * {line.split(' ', 1)[1]}\n" for line in lines.splitlines()
    )
    server.known_hosts.write_text(lines + marks)
    error = await refused(await find_host(server.config), server)
    assert error.reason is Reason.HOST_KEY_REVOKED


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
async def test_a_pinned_key_needs_no_known_hosts(server: Sshd, kind: str) -> None:
    """AU-10: key pinned per host, of whatever kind."""
    server.known_hosts.write_text("")
    host = await find_host(server.config)
    pin = server.host_fingerprint(kind)
    assert await connects(replace(host, pinned_fingerprint=pin)) == pin
    other = replace(host, pinned_fingerprint="SHA256:" + "A" * 43)
    error = await refused(other, server)
    assert error.reason is Reason.HOST_KEY_CHANGED


async def sign(authority: Path, key: Path, *more: str) -> None:
    command = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "host", *more]
    await asyncio.to_thread(
        subprocess.run, [*command, f"{key}.pub"], check=True, capture_output=True
    )


async def certain(tmp_path: Path, authority: Path, *more: str) -> Sshd:
    key = keygen(tmp_path / "sshd" / "host_ed25519")
    await sign(authority, key, *more)
    return Sshd(tmp_path / "sshd", options={"HostCertificate": f"{key}-cert.pub"})


async def test_a_host_certificate_of_a_known_authority_is_enough(
    tmp_path: Path,
) -> None:
    """A5 row 26: CA-signed; the name in it must be the host's."""
    (tmp_path / "sshd").mkdir()
    authority = keygen(tmp_path / "ca")
    public = authority.with_suffix(".pub").read_text()
    with await certain(tmp_path, authority, "-n", "127.0.0.1") as server:
        server.known_hosts.write_text(f"@cert-authority [127.0.0.1]:* {public}")
        await connects(await find_host(server.config))
        other = keygen(tmp_path / "other").with_suffix(".pub").read_text()
        server.known_hosts.write_text(f"@cert-authority * {other}")
        error = await refused(await find_host(server.config), server)
        assert error.reason is Reason.HOST_KEY_UNKNOWN
        assert error.metadata["fingerprint"] == server.host_fingerprint()
        assert fingerprint(authority) in error.message
        both = f"@cert-authority * {other}{server.known_hosts_lines()}"
        server.known_hosts.write_text(both)
        await connects(await find_host(server.config))
        server.known_hosts.write_text(f"@cert-authority * {public}@revoked * {public}")
        error = await refused(await find_host(server.config), server)
        assert error.reason is Reason.HOST_KEY_REVOKED


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sshd").mkdir()
    authority = keygen(tmp_path / "ca")
    public = authority.with_suffix(".pub").read_text()
    with await certain(tmp_path, authority, "-n", "elsewhere.example") as server:
        server.known_hosts.write_text(f"@cert-authority * {public}")
        error = await refused(await find_host(server.config), server)
        assert error.reason is Reason.HOST_KEY_UNKNOWN
        assert "not valid" in error.message
