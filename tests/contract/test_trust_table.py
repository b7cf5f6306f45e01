"""Host keys: what holdfast decides is what the real ssh decides, file by file."""

from __future__ import annotations

import asyncio
import subprocess
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fakes import relay
from fakes.links import find_host, make_pool
from fakes.sshd import Sshd, keygen
from holdfast_daemon.errors import DaemonError, Reason
from holdfast_daemon.hosts.known_hosts import hashed

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = [pytest.mark.needs_sshd, pytest.mark.xdist_group("trust_table")]

YES, NO = "ssh takes it", "ssh refuses it"
# Where ssh goes on and holdfast does not: docs/host-keys.md names each of these.
STRICTER = "ssh takes it, holdfast does not"
REFUSALS = {
    Reason.HOST_KEY_UNKNOWN,
    Reason.HOST_KEY_CHANGED,
    Reason.HOST_KEY_REVOKED,
    Reason.BAD_CONFIGURATION,
}


class Case(NamedTuple):
    """One state of the files, and what comes of it.

    Attributes:
        known: The known_hosts file; names in braces are filled in.
        wanted: What ssh does.
        options: Further lines of the ssh configuration.
        server: Which server; see `servers`.
        second: Another known_hosts file, the system's.
    """

    known: str
    wanted: str = YES
    options: str = ""
    server: str = "plain"
    second: str = ""


ALIAS = "HostKeyAlias web1.example"
CASES = {
    "nothing": Case("", NO),
    "comments": Case("# {name} {ed}\n\n   # more\n", NO),
    "known": Case("{name} {ed}\n"),
    "known among several": Case("web2,{name},192.0.2.1 {ed} a comment\n"),
    "known with blanks before": Case("  \t{name} \t{ed}\n"),
    "known with CRLF": Case("{name} {ed}\r\n"),
    "capitals in the pattern": Case("[LOCALhost]:{port} {ed}\n"),
    "no last newline": Case("{name} {ed}"),
    "changed": Case("{name} {other}\n", NO),
    "changed and right": Case("{name} {other}\n{name} {ed}\n"),
    "right and changed": Case("{name} {ed}\n{name} {other}\n"),
    "right in the system's file": Case("", second="{name} {ed}\n"),
    "changed in the system's file": Case("{name} {ed}\n", second="{name} {other}\n"),
    "another name": Case("[web2]:{port} {ed}\n", NO),
    "another port": Case("[localhost]:1 {ed}\n", NO),
    "port 22 in brackets": Case("[localhost]:22 {ed}\n", NO),
    "the bare name vouches": Case("localhost {ed}\n"),
    "the bare name does not accuse": Case("localhost {other}\n", NO),
    "the bare name against the port": Case("{name} {other}\nlocalhost {ed}\n", NO),
    "the bare name revoked": Case("{name} {ed}\n@revoked localhost {ed}\n", STRICTER),
    "hashed": Case("{hashed} {ed}\n"),
    "hashed, changed": Case("{hashed} {other}\n", NO),
    "hashed, another name": Case("{hashed_other} {ed}\n", NO),
    "hashed, bare name": Case("{hashed_bare} {ed}\n"),
    "hashed, broken": Case("|1|zzzz {ed}\n", NO),
    "wildcard for all": Case("* {ed}\n"),
    "wildcard of one character": Case("[localhos?]:{port} {ed}\n"),
    "wildcard with the port": Case("[*]:{port} {ed}\n"),
    "wildcard, negated": Case("[*]:{port},!{name} {ed}\n", NO),
    "negated before the wildcard": Case("!{name},[*]:{port} {ed}\n", NO),
    "negated, another": Case("*,!web2 {ed}\n"),
    "only negated": Case("!web2 {ed}\n", NO),
    "brackets are no set": Case("[l]ocalhost {ed}\n", NO),
    "revoked": Case("@revoked {name} {ed}\n", NO),
    "revoked and known": Case("{name} {ed}\n@revoked * {ed}\n", NO),
    "revoked, hashed": Case("{name} {ed}\n@revoked {hashed} {ed}\n", NO),
    "another revoked": Case("{name} {ed}\n@revoked * {other}\n"),
    "revoked for others": Case("{name} {ed}\n@revoked web2 {ed}\n"),
    "revoked in the system's file": Case(
        "{name} {ed}\n", NO, second="@revoked * {ed}\n"
    ),
    "unheard-of marker": Case("@other {name} {ed}\n", NO),
    "two markers": Case("@revoked @revoked * {ed}\n{name} {ed}\n"),
    "broken key": Case("{name} ssh-ed25519 AAAA!\n", NO),
    "type and key differ": Case("{name} ssh-rsa {ed_data}\n", NO),
    "no key": Case("{name}\n{name} ssh-ed25519\n{name} {ed}\n"),
    "an authority's line is no key": Case("@cert-authority * {ed}\n", NO),
    "alias": Case("web1.example {ed}\n", options=ALIAS),
    "alias, with the port": Case("[web1.example]:{port} {ed}\n", NO, ALIAS),
    "alias, not the name": Case("{name} {ed}\n", NO, ALIAS),
    "alias, hashed": Case("{hashed_alias} {ed}\n", options=ALIAS),
    "alias in capitals": Case(
        "web1.example {ed}\n", options="HostKeyAlias WEB1.example"
    ),
    "alias, changed": Case("web1.example {other}\n", NO, ALIAS),
    "localhost is exempt": Case("", options="NoHostAuthenticationForLocalhost yes"),
    "localhost is exempt, changed": Case(
        "{name} {other}\n", options="NoHostAuthenticationForLocalhost yes"
    ),
    "localhost is exempt, revoked": Case(
        "@revoked * {ed}\n", STRICTER, "NoHostAuthenticationForLocalhost yes"
    ),
    "localhost by a proxy is not exempt": Case(
        "", NO, "NoHostAuthenticationForLocalhost yes\n  ProxyCommand {proxy}"
    ),
    "localhost by an alias is not exempt": Case(
        "", NO, f"NoHostAuthenticationForLocalhost yes\n  {ALIAS}"
    ),
    "localhost by an alias, changed": Case(
        "web1.example {other}\n", NO, f"NoHostAuthenticationForLocalhost yes\n  {ALIAS}"
    ),
    "by a proxy": Case("{name} {ed}\n", options="ProxyCommand {proxy}"),
    "by a proxy, changed": Case("{name} {other}\n", NO, "ProxyCommand {proxy}"),
    "revoked list": Case("{name} {ed}\n", NO, "RevokedHostKeys {list}"),
    "revoked list of others": Case(
        "{name} {ed}\n", YES, "RevokedHostKeys {list_other}"
    ),
    "revoked list, missing": Case("{name} {ed}\n", NO, "RevokedHostKeys {list}.none"),
    "revoked list, broken": Case("{name} {ed}\n", NO, "RevokedHostKeys {list_broken}"),
    "revoked by a KRL": Case("{name} {ed}\n", NO, "RevokedHostKeys {krl}"),
    "revoked by a KRL, others": Case(
        "{name} {ed}\n", YES, "RevokedHostKeys {krl_other}"
    ),
    "command knows": Case("", options="KnownHostsCommand {command} right %H"),
    "command says another": Case("", NO, "KnownHostsCommand {command} wrong %H"),
    "command says nothing": Case("{name} {ed}\n", YES, "KnownHostsCommand {command} -"),
    "command fails": Case("{name} {ed}\n", NO, "KnownHostsCommand {command} fail"),
    "command is not there": Case(
        "{name} {ed}\n", STRICTER, "KnownHostsCommand {command}.no x"
    ),
    "command echoes the key": Case(
        "", options='KnownHostsCommand {command} echo %H %t %K "%I" %f %% %h %p'
    ),
    "command revokes": Case(
        "{name} {ed}\n", NO, "KnownHostsCommand {command} revoke %H"
    ),
    "several kinds, one known": Case("{name} {ecdsa}\n", server="several"),
    "several kinds, the last known": Case("{name} {rsa}\n", server="several"),
    "several kinds, one changed": Case(
        "{name} {otherrsa}\n{name} {ed}\n", server="several"
    ),
    "several kinds, the known one revoked": Case(
        "{name} {rsa}\n@revoked * {rsa}\n", NO, server="several"
    ),
    "another kind than is known": Case("{name} {otherrsa}\n", NO),
    "certificate": Case("@cert-authority * {ca}\n", server="signed"),
    "certificate, by name": Case("@cert-authority {name} {ca}\n", server="signed"),
    "certificate, bare name": Case("@cert-authority localhost {ca}\n", server="signed"),
    "certificate, hashed name": Case(
        "@cert-authority {hashed} {ca}\n", server="signed"
    ),
    "certificate, others'": Case("@cert-authority web2 {ca}\n", NO, server="signed"),
    "certificate, negated": Case(
        "@cert-authority [*]:{port},!{name} {ca}\n", NO, server="signed"
    ),
    "certificate, unknown authority": Case(
        "@cert-authority * {other}\n", NO, server="signed"
    ),
    "certificate, unknown authority, key known": Case(
        "@cert-authority * {other}\n{name} {ed}\n", server="signed"
    ),
    "certificate, key changed": Case(
        "@cert-authority * {ca}\n{name} {other}\n", server="signed"
    ),
    "certificate, authority revoked": Case(
        "@cert-authority * {ca}\n@revoked * {ca}\n", NO, server="signed"
    ),
    "certificate, key revoked": Case(
        "@cert-authority * {ca}\n@revoked * {ed}\n", NO, server="signed"
    ),
    "certificate, revoked list": Case(
        "@cert-authority * {ca}\n", NO, "RevokedHostKeys {list}", server="signed"
    ),
    "certificate, authority in a list": Case(
        "@cert-authority * {ca}\n", NO, "RevokedHostKeys {list_ca}", server="signed"
    ),
    "certificate, serial in a KRL": Case(
        "@cert-authority * {ca}\n", NO, "RevokedHostKeys {krl_serial}", server="signed"
    ),
    "certificate, other serial in a KRL": Case(
        "@cert-authority * {ca}\n", YES, "RevokedHostKeys {krl_second}", server="signed"
    ),
    "certificate for the alias": Case(
        "@cert-authority * {ca}\n", YES, ALIAS, server="signed"
    ),
    "certificate for another alias": Case(
        "@cert-authority * {ca}\n", NO, "HostKeyAlias web2", server="signed"
    ),
    "certificate, from a command": Case(
        "", options="KnownHostsCommand {command} authority %H", server="signed"
    ),
    "certificate, only these are allowed": Case(
        "@cert-authority * {ca}\n",
        options="HostKeyAlgorithms ssh-ed25519-cert-v01@openssh.com",
        server="signed",
    ),
    "certificate, expired": Case("@cert-authority * {ca}\n", NO, server="expired"),
    "certificate, expired, key known": Case(
        "@cert-authority * {ca}\n{name} {ed}\n", server="expired"
    ),
    "certificate, not yet valid": Case("@cert-authority * {ca}\n", NO, server="early"),
    "certificate, another principal": Case(
        "@cert-authority * {ca}\n", NO, server="else"
    ),
    "certificate, wildcard principal": Case(
        "@cert-authority * {ca}\n", NO, server="wild"
    ),
    "certificate, a user's": Case("@cert-authority * {ca}\n", NO, server="user"),
}

# What each server's certificate is made with; without one it has none.
SIGNED = {
    "signed": ("-h", "-n", "localhost,web1.example", "-z", "7"),
    "expired": ("-h", "-n", "localhost", "-V", "20200101:20200102"),
    "early": ("-h", "-n", "localhost", "-V", "20990101:20990102"),
    "else": ("-h", "-n", "web2.example"),
    "wild": ("-h", "-n", "local*"),
    "user": ("-n", "localhost"),
}
COMMAND = """#!/bin/sh
case $1 in
right) echo "$2 {ed}" ;;
wrong) echo "$2 {other}" ;;
revoke) echo "@revoked $2 {ed}" ;;
authority) echo "@cert-authority $2 {ca}" ;;
echo) [ "$7" = % ] && [ "$8" = localhost ] && [ "$3" != NONE ] && echo "$2 $3 $4" ;;
fail) exit 3 ;;
esac
exit 0
"""


def public(path: Path) -> str:
    """Return type and key of a public key's file."""
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


class Table:
    """The servers, and the keys that the files speak of."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers: dict[str, Sshd] = {}
        self.keys = {
            "other": keygen(directory / "other"),
            "otherrsa": keygen(directory / "otherrsa", kind="rsa"),
            "ca": keygen(directory / "ca"),
        }

    def server(self, name: str) -> Sshd:
        """Start a server, once."""
        if name in self.servers:
            return self.servers[name]
        kinds = ("ed25519", "ecdsa", "rsa") if name == "several" else ("ed25519",)
        home = self.directory / name
        home.mkdir()
        options = {"SetEnv": f"HOME={home}"}
        sshd = Sshd(home, host_key_types=kinds, options=options)
        if name in SIGNED:
            command = ["ssh-keygen", "-q", "-s", str(self.keys["ca"]), "-I", "host"]
            key = f"{sshd.host_key()}.pub"
            subprocess.run([*command, *SIGNED[name], key], check=True)
            sshd.options["HostCertificate"] = f"{sshd.host_key()}-cert.pub"
        sshd.start()
        self.servers[name] = sshd
        return sshd

    def values(self, sshd: Sshd, case: Path, options: str) -> dict[str, str]:
        """Return what the braces stand for; of KRLs those that `options` name."""
        name = f"[localhost]:{sshd.port}"
        keys = {kind: public(sshd.host_key(kind)) for kind in sshd.host_key_types}
        values = {
            "name": name,
            "port": str(sshd.port),
            "hashed": hashed(name),
            "hashed_other": hashed("web2"),
            "hashed_bare": hashed("localhost"),
            "hashed_alias": hashed("web1.example"),
            "ed": keys["ed25519"],
            "ed_data": keys["ed25519"].split()[1],
            "ecdsa": keys.get("ecdsa", ""),
            "rsa": keys.get("rsa", ""),
            **{key: public(path) for key, path in self.keys.items()},
            "proxy": relay.command(sshd.port),
        }
        return values | self._files(case, values, sshd, options)

    def _files(
        self, case: Path, values: Mapping[str, str], sshd: Sshd, options: str
    ) -> dict[str, str]:
        texts = {
            "list": f"# revoked\n{values['ed']} comment\n",
            "list_other": f"{values['other']}\n",
            "list_ca": f"{values['ca']}\n",
            "list_broken": f"{values['other']}\nnonsense\n",
            "spec_serial": "serial: 7\n",
            "spec_second": "serial: 8\n",
        }
        for name, text in texts.items():
            (case / name).write_text(text)
        command = case / "command"
        command.write_text(COMMAND.format(**values))
        command.chmod(0o755)
        krls = {
            "krl": [f"{sshd.host_key()}.pub"],
            "krl_other": [f"{self.keys['other']}.pub"],
            "krl_serial": ["-s", f"{self.keys['ca']}.pub", str(case / "spec_serial")],
            "krl_second": ["-s", f"{self.keys['ca']}.pub", str(case / "spec_second")],
        }
        for name, words in krls.items():
            if f"{{{name}}}" not in options:
                continue
            made = ["ssh-keygen", "-q", "-k", "-f", str(case / name), *words]
            subprocess.run(made, check=True, capture_output=True)
        return {name: str(case / name) for name in (*texts, *krls, "command")}

    def write(self, case: Case, directory: Path) -> Path:
        """Write the files of a case; return the ssh configuration."""
        sshd = self.server(case.server)
        values = self.values(sshd, directory, case.options)
        known, second = directory / "known", directory / "second"
        known.write_text(case.known.format(**values))
        second.write_text(case.second.format(**values))
        config = directory / "config"
        config.write_text(
            "Host box\n"
            "  HostName localhost\n"
            "  AddressFamily inet\n"
            f"  Port {sshd.port}\n"
            f"  User {sshd.user}\n"
            f"  IdentityFile {sshd.key}\n"
            "  IdentitiesOnly yes\n"
            "  StrictHostKeyChecking yes\n"
            f"  UserKnownHostsFile {known}\n"
            f"  GlobalKnownHostsFile {second}\n"
            f"  {case.options.format(**values)}\n"
        )
        return config


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Table]:
    one = Table(tmp_path_factory.mktemp("table"))
    yield one
    for sshd in one.servers.values():
        sshd.stop()


def contents(directory: Path) -> dict[Path, bytes]:
    """Return every file as it is."""
    return {path: path.read_bytes() for path in directory.iterdir()}


async def by_ssh(config: Path) -> bool:
    """Ask the real ssh."""
    process = await asyncio.create_subprocess_exec(
        *("ssh", "-F", str(config), "-o", "BatchMode=yes", "box", "exit 7"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(40):
        _, said = await process.communicate()
    assert process.returncode in (7, 255), said
    assert b"Permission denied" not in said
    assert b"Connection refused" not in said
    return process.returncode == 7


async def by_holdfast(config: Path) -> DaemonError | None:
    """Ask holdfast."""
    async with make_pool() as pool:
        try:
            async with await pool.lease(await find_host(config)):
                return None
        except DaemonError as error:
            return error


@pytest.mark.parametrize("name", CASES)
async def test_a_key_is_taken_exactly_where_ssh_takes_it(
    name: str, table: Table, tmp_path: Path
) -> None:
    """AU-09, A5 row 26: the same files, the same server, the same decision."""
    case = CASES[name]
    config = await asyncio.to_thread(table.write, case, tmp_path)
    before = contents(tmp_path)
    taken, error = await asyncio.gather(by_ssh(config), by_holdfast(config))
    assert taken is (case.wanted is not NO)
    if error is not None:
        assert error.reason in REFUSALS, error.message
        assert "no credential was sent" in error.message
    assert (error is None) is (case.wanted is YES), error and error.message
    assert contents(tmp_path) == before
