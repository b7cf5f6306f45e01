"""AU-06: what we resolve beside what ssh itself says, over a corpus of configurations.

The reading of `ssh -G` here is the test's own.
"""

from __future__ import annotations

import os
import pwd
import subprocess
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import pytest

from fakes.corpus import CASES, Case
from holdfast_daemon.config import Config
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.inventory import Inventory
from holdfast_daemon.limits import Limits

if TYPE_CHECKING:
    from pathlib import Path

    from holdfast_daemon.hosts.host import Host

ME = pwd.getpwuid(os.getuid())
ENVIRONMENT = {"HF_CORPUS": "/from-the-environment"}
# What the answer is made of besides ssh's: it says nothing of the configuration.
OURS = {"name", "environment", "update_host_keys", "notes", "control_path"}
NO = {"no", "false", "none"}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


def filled(value: Any, directory: Path) -> Any:
    """Fill in what a case can't know."""
    if isinstance(value, str):
        known = {"d": directory, "me": ME.pw_name, "home": ME.pw_dir, "uid": ME.pw_uid}
        for name, text in known.items():
            value = value.replace(f"{{{name}}}", str(text))
        return value
    if isinstance(value, tuple):
        return tuple(filled(item, directory) for item in value)
    return value


def written(case: Case, directory: Path) -> Path:
    for name, text in {**case.files, "config": case.text}.items():
        whole = filled(text, directory).replace("{{", "{").replace("}}", "}")
        (directory / name).write_text(whole)
    return directory / "config"


async def resolved(config: Path, target: str) -> Host:
    inventory = Inventory(Config, Limits(), config_file=config, environ=ENVIRONMENT)
    return await inventory.resolve(target)


class Told:
    """What `ssh -G` says, read anew."""

    def __init__(self, config: Path | str, target: str) -> None:
        done = subprocess.run(
            ["ssh", "-G", "-F", str(config), target],
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        self.status = done.returncode
        self.error = done.stderr
        self.pairs = [
            (line.partition(" ")[0].lower(), line.partition(" ")[2])
            for line in done.stdout.splitlines()
        ]

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.pairs if key == name]

    def one(self, name: str) -> str:
        found = self.all(name)
        return found[0] if found else ""

    def yes(self, name: str) -> bool:
        return self.one(name) not in NO

    def changed(self, name: str, plain: Told) -> tuple[str, ...]:
        value = self.one(name)
        return () if value == plain.one(name) else tuple(value.split(","))


def set_or(value: str, none: Any, kind: type) -> Any:
    return none if value in ("", "none", "0") else kind(value)


def agrees(host: Host, told: Told) -> None:
    """Compare every field that `ssh -G` tells without tokens or paths."""
    plain = Told("/dev/null", "localhost")
    lists = host.algorithms
    tty = {"true": "yes", "false": "no"}
    pairs: list[tuple[Any, Any]] = [
        (host.hostname, told.one("hostname")),
        (str(host.port), told.one("port")),
        (host.user, told.one("user")),
        (host.identities_only, told.yes("identitiesonly")),
        (host.hash_known_hosts, told.yes("hashknownhosts")),
        (host.host_key_alias, told.one("hostkeyalias")),
        (host.address_family, told.one("addressfamily")),
        (host.bind_address, told.one("bindaddress")),
        (host.compression, told.yes("compression")),
        (host.check_host_ip, told.yes("checkhostip")),
        (str(host.required_rsa_size), told.one("requiredrsasize")),
        (bool(host.forward_agent), told.yes("forwardagent")),
        (host.request_tty, tty.get(told.one("requesttty"), told.one("requesttty"))),
        (host.session_type, told.one("sessiontype")),
        (str(host.wire.attempts), told.one("connectionattempts")),
        (host.wire.tcp_keepalive, told.yes("tcpkeepalive")),
        (host.wire.bind_interface, told.one("bindinterface")),
        (
            f"{host.wire.rekey_bytes} {host.wire.rekey_seconds}",
            told.one("rekeylimit"),
        ),
        (host.connect_timeout, set_or(told.one("connecttimeout"), None, float)),
        (host.keepalive_seconds, set_or(told.one("serveraliveinterval"), None, float)),
        (
            len(host.identity_files),
            len([v for v in told.all("identityfile") if v != "none"]),
        ),
        (len(host.certificate_files), len(told.all("certificatefile"))),
        (bool(host.proxy_jump), told.one("proxyjump") not in ("", "none")),
        (bool(host.proxy_command), told.one("proxycommand") not in ("", "none")),
        (lists.ciphers, told.changed("ciphers", plain)),
        (lists.macs, told.changed("macs", plain)),
        (lists.key_exchange, told.changed("kexalgorithms", plain)),
        (lists.host_keys, told.changed("hostkeyalgorithms", plain)),
        (lists.signatures, told.changed("pubkeyacceptedalgorithms", plain)),
        (lists.authorities, told.changed("casignaturealgorithms", plain)),
        (
            [pair for pair in host.environment if pair[0] not in ENVIRONMENT],
            [tuple(value.split("=", 1)) for value in told.all("setenv")],
        ),
    ]
    assert [ours for ours, _ in pairs] == [theirs for _, theirs in pairs]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
async def test_a_configuration_means_what_it_means_to_ssh(
    case: Case, tmp_path: Path
) -> None:
    """AU-06: at least 60 configurations, beside an independent reading of `ssh -G`."""
    config = written(case, tmp_path)
    target = case.target
    if ":" in target and not target.startswith(("ssh://", ":")):
        target = f"ssh://{target}"
    told = Told(config, target)
    if case.fails:
        with pytest.raises(DaemonError) as caught:
            await resolved(config, case.target)
        assert caught.value.reason is Reason.BAD_CONFIGURATION
        assert case.fails.lower() in caught.value.message.lower()
        return
    assert told.status == 0, told.error
    host = await resolved(config, case.target)
    agrees(host, told)
    found = {name: getattr(host, name) for name in case.expect}
    assert found == {name: filled(v, tmp_path) for name, v in case.expect.items()}
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.title)
async def test_without_an_ssh_it_means_the_same_or_is_refused(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: no ssh program: the same answer, or an error that says why not."""
    config = written(case, tmp_path)
    usual = tmp_path / "usual"
    usual.write_text("")
    pair = (config, usual)
    told = [] if case.fails else [await resolved(path, case.target) for path in pair]
    monkeypatch.setenv("PATH", str(tmp_path))
    if case.alone == "is told when it connects":
        return
    if case.fails or case.alone:
        with pytest.raises(DaemonError) as caught:
            await resolved(config, case.target)
        assert caught.value.reason is Reason.BAD_CONFIGURATION
        assert (case.alone or case.fails).lower() in caught.value.message.lower()
        return
    by_ssh, usual_by_ssh = told
    alone, usual_alone = [await resolved(path, case.target) for path in pair]
    for item in fields(alone):
        if item.name in OURS:
            continue
        ours, theirs = getattr(alone, item.name), getattr(by_ssh, item.name)
        if theirs == getattr(usual_by_ssh, item.name):
            theirs = getattr(usual_alone, item.name)
        if item.name == "proxy_jump" and ours and theirs:
            ours, theirs = ours.display, theirs.display
        assert ours == theirs, item.name


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
