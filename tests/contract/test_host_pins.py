"""A host proves who it is, by a pinned key or a certificate, before it is told more."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.sshd import Sshd, fingerprint, keygen
from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("host_pins"),
    pytest.mark.needs_sshd,
]

# What sshd notes at the first word about a login, before any credential.
ASKED = "userauth-request"


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """Yield a server with keys of two kinds that tells of everything it is asked."""
    directory = tmp_path_factory.mktemp("pinned")
    with Sshd(
        directory,
        options={"LogLevel": "DEBUG1", "SetEnv": f"HOME={directory}"},
        host_key_types=("ed25519", "ecdsa"),
    ) as server:
        yield server


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return keygen(tmp_path_factory.mktemp("stranger") / "key")


@pytest.fixture(scope="module")
def pinned(
    host: Sshd, stranger: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """Yield a daemon with the same server under several names, each pinned apart."""
    directory = tmp_path_factory.mktemp("known")
    nothing = directory / "nothing"
    nothing.touch()
    wrong = directory / "wrong"
    public = stranger.with_suffix(".pub").read_text()
    wrong.write_text(f"[127.0.0.1]:{host.port} {public}")
    revoked = directory / "revoked"
    revoked.write_text(
        "".join(f"@revoked {line}\n" for line in host.known_hosts_lines().splitlines())
    )

    def entry(name: str, known: Path, pin: str) -> str:
        return f'[hosts.{name}]\nhost = "box"\nknown_hosts_file = "{known}"\n' + (
            f'host_key = "{pin}"\n' if pin else ""
        )

    right, second = host.host_fingerprint(), host.host_fingerprint("ecdsa")
    more = (
        entry("right", nothing, right)
        + entry("second", nothing, second)
        + entry("bare", nothing, "")
        + entry("other", host.known_hosts, fingerprint(stranger))
        + entry("above", wrong, right)
        + entry("revoked", revoked, right)
    )
    with served(host, more=more) as world:
        yield world


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(pinned: World) -> AsyncIterator[Tools]:
    async with tools(pinned, target="") as one:
        yield one


async def refused(ssh: Tools, host: Sshd, target: str, **more: Any) -> dict[str, Any]:
    """Return why a target was refused; the host was told nothing of a login."""
    before, logins = host.log.position, host.logins
    error = await ssh.refused("ssh_exec", target=target, command="true", **more)
    assert error["ran"] == "no"
    # Its own end of the connection: nothing it was asked can come later.
    await asyncio.to_thread(host.log.wait_for, "[preauth]", after=before)
    assert not host.log.count(ASKED, after=before)
    assert host.logins == logins
    return error


@pytest.mark.parametrize(
    ("target", "kind"), [("right", "ed25519"), ("second", "ecdsa")]
)
async def test_a_pinned_key_needs_no_known_hosts(
    ssh: Tools, host: Sshd, target: str, kind: str
) -> None:
    """AU-10: host_key of the entry is enough, for whichever of the server's keys."""
    before = host.log.position
    told = await ssh.told("ssh_connect", target=target)
    assert told["host_key_fingerprint"] == host.host_fingerprint(kind)
    assert (await ssh.run("echo in", target=target))["stdout"] == "in\n"
    assert host.log.count(ASKED, after=before)


async def test_without_a_pin_the_same_host_is_unknown(ssh: Tools, host: Sshd) -> None:
    """AU-09, AU-10: what the pin above makes up for."""
    error = await refused(ssh, host, "bare")
    assert error["reason"] == "HOST_KEY_UNKNOWN"


async def test_a_wrong_pin_is_refused_whatever_known_hosts_say(
    ssh: Tools, host: Sshd, stranger: Path
) -> None:
    """AU-10: nothing was sent; both fingerprints are told."""
    error = await refused(ssh, host, "other")
    assert error["reason"] == "HOST_KEY_CHANGED"
    assert error["fingerprint"] in {
        host.host_fingerprint(kind) for kind in host.host_key_types
    }
    assert fingerprint(stranger) in str(error)


@pytest.mark.parametrize("checking", ["no", "accept-new"])
async def test_no_call_gets_round_a_wrong_pin(
    ssh: Tools, host: Sshd, checking: str, tmp_path: Path
) -> None:
    """AU-10: neither by checking less nor by another file."""
    connect = {
        "host_key_checking": checking,
        "known_hosts_file": str(host.known_hosts),
    }
    error = await refused(ssh, host, "other", connect=connect)
    assert error["reason"] == "HOST_KEY_CHANGED"
    assert host.known_hosts.read_text() == host.known_hosts_lines()


async def test_a_pin_stands_above_known_hosts_but_not_above_a_revocation(
    ssh: Tools, host: Sshd
) -> None:
    """AU-10: the entry is the person's last word, a revoked key is nobody's."""
    assert (await ssh.run("true", target="above"))["exit_code"] == 0
    error = await refused(ssh, host, "revoked")
    assert error["reason"] == "HOST_KEY_REVOKED"


class Certified:
    """A server that shows a certificate for one of its names."""

    def __init__(self, directory: Path, names: str) -> None:
        self.authority = keygen(directory / "authority")
        self.sshd = Sshd(directory / "sshd", options={"LogLevel": "DEBUG1"})
        key = self.sshd.host_key()
        command = ["ssh-keygen", "-q", "-s", str(self.authority), "-I", "host", "-h"]
        subprocess.run([*command, "-n", names, f"{key}.pub"], check=True)
        self.sshd.options["HostCertificate"] = f"{key}-cert.pub"

    def trust(self, pattern: str, *markers: str) -> None:
        public = self.authority.with_suffix(".pub").read_text()
        lines = [f"{marker} {pattern} {public}" for marker in markers]
        self.sshd.known_hosts.write_text("".join(lines))


async def connect(sshd: Sshd, target: str = "box") -> dict[str, Any]:
    """Return what a client of a daemon of its own is told when it connects."""
    with served(sshd) as world:
        async with tools(world, target=target) as ssh:
            result = await ssh.call("ssh_connect")
    told = result["structuredContent"]
    assert isinstance(told, dict)
    return told


async def test_a_host_certificate_of_a_trusted_authority_is_enough(
    tmp_path: Path,
) -> None:
    """AU-14: @cert-authority, for the name the certificate is for, and no other."""
    certified = Certified(tmp_path, "127.0.0.1")
    with certified.sshd as host:
        here, trusted = f"[127.0.0.1]:{host.port}", "@cert-authority"
        certified.trust(here, trusted)
        assert (await connect(host))["connected"] is True
        for pattern, markers, reason in (
            ("elsewhere.example", [trusted], "HOST_KEY_UNKNOWN"),
            (here, [trusted, "@revoked"], "HOST_KEY_REVOKED"),
        ):
            before = host.log.position
            certified.trust(pattern, *markers)
            error = (await connect(host))["error"]
            assert (error["reason"], error["ran"]) == (reason, "no")
            await asyncio.to_thread(host.log.wait_for, "[preauth]", after=before)
            assert not host.log.count(ASKED, after=before)


async def test_a_host_certificate_of_another_authority_is_refused(
    tmp_path: Path,
) -> None:
    """AU-14: whoever signed it must be the one that known_hosts trusts for it."""
    certified = Certified(tmp_path, "127.0.0.1")
    with certified.sshd as host:
        other = keygen(tmp_path / "other").with_suffix(".pub").read_text()
        host.known_hosts.write_text(f"@cert-authority * {other}")
        before = host.log.position
        error = (await connect(host))["error"]
        assert error["reason"] in {"HOST_KEY_CHANGED", "HOST_KEY_UNKNOWN"}
        assert error["ran"] == "no"
        await asyncio.to_thread(host.log.wait_for, "[preauth]", after=before)
        assert not host.log.count(ASKED, after=before)


async def test_a_host_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    """AU-14: signed by the trusted authority, but for somebody else."""
    certified = Certified(tmp_path, "other.example")
    with certified.sshd as host:
        certified.trust("*", "@cert-authority")
        before = host.log.position
        error = (await connect(host))["error"]
        assert (error["reason"], error["ran"]) == ("HOST_KEY_UNKNOWN", "no")
        assert fingerprint(certified.authority) in error["message"]
        await asyncio.to_thread(host.log.wait_for, "[preauth]", after=before)
        assert not host.log.count(ASKED, after=before)
