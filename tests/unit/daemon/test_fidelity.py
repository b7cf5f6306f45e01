from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from fakes.links import write
from holdfast_daemon.config import Config, Defaults
from holdfast_daemon.errors import DaemonError, InputError, Reason, StateError
from holdfast_daemon.hosts import options
from holdfast_daemon.hosts.inventory import Inventory
from holdfast_daemon.hosts.meaning import MEANINGS, Kind
from holdfast_daemon.limits import Limits

DOCUMENT = Path(__file__).parents[3] / "docs" / "ssh-config.md"

# Everything that can be set, set: so that `ssh -G` prints all it knows.
EVERYTHING = """
Host box
  AddKeysToAgent yes
  BindAddress 127.0.0.1
  BindInterface lo
  CertificateFile /c
  ControlPath /s
  DynamicForward 1080
  HostKeyAlias x
  IdentityAgent /a
  IgnoreUnknown nothing
  KnownHostsCommand /bin/k
  LocalCommand echo
  LocalForward 8080 localhost:80
  PermitLocalCommand yes
  PKCS11Provider /p
  PreferredAuthentications publickey
  ProxyCommand nc
  RemoteCommand ls
  RemoteForward 8081 localhost:80
  RevokedHostKeys /r
  SetEnv A=1
"""

# What newer releases print besides: 9.4 to 10.2.
NEWER = (
    "channeltimeout",
    "obscurekeystroketiming",
    "refuseconnection",
    "tag",
    "versionaddendum",
    "warnweakcrypto",
)


def printed(config: str) -> set[str]:
    done = subprocess.run(
        ["ssh", "-G", "-F", config, "box"],
        check=True,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    return {line.split()[0].lower() for line in done.stdout.splitlines()}


def test_every_option_that_ssh_prints_has_a_meaning(tmp_path: Path) -> None:
    """AU-06: none is forgotten, whatever is set."""
    config = tmp_path / "config"
    config.write_text(EVERYTHING)
    found = printed(str(config)) | printed("/dev/null") | set(NEWER)
    assert not found - set(MEANINGS)
    for meaning in MEANINGS.values():
        assert meaning.text


def test_the_manual_s_options_all_have_a_meaning() -> None:
    """AU-06: what `man ssh_config` describes, where there is a manual."""
    done = subprocess.run(
        ["man", "-P", "cat", "ssh_config"],
        check=False,
        capture_output=True,
        text=True,
        env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    if done.returncode:
        assert len(MEANINGS) > 100
        return
    text = re.sub(".\b", "", done.stdout)
    named = set(re.findall(r"^ {5}([A-Z][A-Za-z0-9]+)(?: {2,}|$)", text, re.MULTILINE))
    assert not {n.lower() for n in named} - set(MEANINGS) - {"match", "include"}


def test_every_option_has_an_answer_for_a_call() -> None:
    """AU-08: accepted, refused with a reason, or told to have no effect."""
    for name, meaning in MEANINGS.items():
        if name in options.ACCEPTED:
            assert meaning.kind is Kind.HONOURED
            assert list(options.check({meaning.name: "x"})) == [meaning.name]
            continue
        with pytest.raises(InputError) as caught:
            options.check({meaning.name: "x"})
        assert meaning.name.lower() in caught.value.message.lower()
        assert caught.value.hint


def test_the_document_says_what_the_table_says() -> None:
    """Each option of the table has its row in docs/ssh-config.md, word for word."""
    rows = [
        f"| {meaning.name} | {meaning.kind.value} | {meaning.text} |"
        for _, meaning in sorted(MEANINGS.items())
    ]
    text = DOCUMENT.read_text("utf-8")
    shown = [line for line in text.splitlines() if re.match(r"\| [A-Z]\w+ \| ", line)]
    missing = "\n".join(row for row in rows if row not in shown)
    assert shown == rows, f"docs/ssh-config.md should have:\n{missing}"


class Newer:
    """An ssh that knows an option nobody here has heard of."""

    def __init__(self, directory: Path) -> None:
        self.config = directory / "config"
        self.config.write_text("Host box\n")
        self.ssh = directory / "newer-ssh"

    def says(self, value: str, plain: str = "no") -> None:
        # our own question about its defaults is asked with no file
        self.ssh.write_text(
            "#!/bin/sh\n"
            'case "$*" in\n'
            f'*/dev/null*) echo "quantumleap {plain}";;\n'
            f'*) echo "quantumleap {value}";;\n'
            "esac\n"
            'exec ssh "$@"\n'
        )
        self.ssh.chmod(0o755)

    def inventory(self, *ignored: str) -> Inventory:
        config = Config(defaults=Defaults(ssh_options_ignored=ignored))
        return Inventory(
            lambda: config,
            Limits(),
            config_file=self.config,
            environ={"HOLDFAST_SSH_BIN": str(self.ssh)},
        )


async def test_an_option_newer_than_this_release_is_refused_where_it_is_set(
    tmp_path: Path,
) -> None:
    """AU-06: it may be there to protect, so nobody goes on without a person's word."""
    newer = Newer(tmp_path)
    newer.says("yes")
    with pytest.raises(StateError) as caught:
        await newer.inventory().resolve("box")
    assert caught.value.reason is Reason.UNSUPPORTED
    assert "quantumleap yes" in caught.value.message
    assert "box" in caught.value.message
    assert "ssh_options_ignored" in caught.value.hint
    assert caught.value.metadata["option"] == "quantumleap"
    host = await newer.inventory("QuantumLeap").resolve("box")
    assert host.notes == ("quantumleap yes: ignored, as the configuration says",)


async def test_an_option_newer_than_this_release_is_harmless_at_its_default(
    tmp_path: Path,
) -> None:
    newer = Newer(tmp_path)
    newer.says("automatic", plain="automatic")
    assert (await newer.inventory().resolve("box")).notes == ()


async def test_a_configuration_that_refuses_a_host_is_obeyed(tmp_path: Path) -> None:
    """AU-06: RefuseConnection, of OpenSSH 10; its text is told."""
    newer = Newer(tmp_path)
    newer.says("SET")
    script = newer.ssh.read_text()
    newer.ssh.write_text(
        script.replace("quantumleap SET", "refuseconnection use a VPN")
    )
    with pytest.raises(DaemonError) as caught:
        await newer.inventory().resolve("box")
    assert "use a VPN" in caught.value.message


async def refusal(config: Path, text: str, *ignored: str) -> DaemonError | None:
    write(config, f"Host box\n{text}")
    wanted = Config(defaults=Defaults(ssh_options_ignored=ignored))
    inventory = Inventory(lambda: wanted, Limits(), config_file=config, environ={})
    try:
        await inventory.resolve("box")
    except StateError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Tunnel yes", "Tunnel point-to-point"),
        ("Tunnel ethernet", "Tunnel ethernet"),
        ("Tunnel no", ""),
        ("PKCS11Provider /x", "PKCS11Provider /x"),
        ("PKCS11Provider none", ""),
        ("SecurityKeyProvider /x", "SecurityKeyProvider /x"),
        ("SecurityKeyProvider internal", ""),
        ("HostbasedAuthentication yes", "HostbasedAuthentication yes"),
        ("HostbasedAuthentication no", ""),
        ("GSSAPIDelegateCredentials yes", ""),
        (
            "GSSAPIAuthentication yes\n GSSAPIDelegateCredentials yes",
            "GSSAPIDelegateCredentials yes",
        ),
        ("ProxyUseFdpass yes", ""),
        ("ProxyCommand nc\n ProxyUseFdpass yes", "ProxyUseFdpass yes"),
        ("ProxyCommand none\n ProxyUseFdpass yes", ""),
        ("GSSAPIAuthentication yes", ""),
        ("VerifyHostKeyDNS yes", ""),
        ("LocalForward 1 localhost:1", ""),
        ("ForwardX11 yes", ""),
        ("EscapeChar none\n LogLevel DEBUG3\n VisualHostKey yes\n BatchMode yes", ""),
    ],
)
async def test_only_what_changes_something_is_refused(
    tmp_path: Path, text: str, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AU-06: by ssh's resolution, and by our own where there is no ssh."""
    config = tmp_path / "config"
    for alone in (False, True):
        if alone:
            monkeypatch.setenv("PATH", str(tmp_path))
        error = await refusal(config, f" {text}\n")
        if not named:
            assert error is None
            continue
        assert error is not None
        assert error.reason is Reason.UNSUPPORTED
        option, value = named.split(" ", 1)
        assert option in error.message
        assert alone or value in error.message
        assert await refusal(config, f" {text}\n", option.upper()) is None
