"""OpenSSH options by a call: those it may not set, in every spelling, by each face."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from fakes.tools import Tools, served, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("option_spellings"),
    pytest.mark.needs_sshd,
]

# They run programs, open ports, lend things, go elsewhere or round the host's key.
DANGEROUS = (
    "ProxyCommand",
    "LocalCommand",
    "PermitLocalCommand",
    "KnownHostsCommand",
    "RemoteCommand",
    "PKCS11Provider",
    "SecurityKeyProvider",
    "ProxyUseFdpass",
    "LocalForward",
    "RemoteForward",
    "DynamicForward",
    "GatewayPorts",
    "Tunnel",
    "TunnelDevice",
    "ForwardAgent",
    "AddKeysToAgent",
    "ForwardX11",
    "ForwardX11Trusted",
    "SendEnv",
    "Include",
    "Match",
    "HostName",
    "ControlPath",
    "ControlMaster",
    "ControlPersist",
    "HostKeyAlias",
    "StrictHostKeyChecking",
    "UserKnownHostsFile",
    "GlobalKnownHostsFile",
    "UpdateHostKeys",
    "RevokedHostKeys",
    "VerifyHostKeyDNS",
    "NoHostAuthenticationForLocalhost",
    "CheckHostIP",
    "RequiredRSASize",
    "HostbasedAuthentication",
    "XAuthLocation",
    "EnableSSHKeysign",
    "ProxyJump",
    "SetEnv",
    "SmartcardDevice",
)
SPELLINGS = (
    "{}",
    " {} ",
    "\t{}",
    "{}=",
    "{}=/x",
    "{} = /x",
    "{} /x",
    "-o{}",
    "-o{}=/x",
    "-o {}",
    "-o {}=/x",
    "-vo{}=/x",
    "-To {}=/x",
    "--o{}",
    '"{}"',
    "'{}'",
    "{}\n",
    "User=a\n{}",
)


def cased(name: str) -> tuple[str, ...]:
    """Return a name as it may be written."""
    return name, name.lower(), name.upper(), name.swapcase()


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


@pytest.mark.parametrize("name", DANGEROUS)
async def test_no_spelling_gets_a_refused_option_through(
    ssh: Tools, sshd: Sshd, name: str
) -> None:
    """AU-08: `-oX`, `-o x=`, joined short flags, case, blanks, quotes: by the shim."""
    before = sshd.log.position
    written = [form.format(case) for form in SPELLINGS for case in cased(name)]
    calls = [
        ("ssh_exec", {"command": "true", "connect": {"options": {one: "/x"}}})
        for one in written
    ]
    for option, result in zip(written, await ssh.together(*calls), strict=True):
        assert result.get("isError") is True, option
        error = result["structuredContent"]["error"]
        assert error["reason"] == "INVALID_ARGUMENT", (option, error)
        assert error["field"] == "connect.options", (option, error)
        assert error["ran"] == "no"
        assert name.lower() in error["message"].lower(), (option, error)
        assert error["hint"], option
    assert sshd.log.count("Connection from", after=before) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "ProxyCommand=/x"],
        ["-oProxyCommand=/x"],
        ["-oproxycommand /x"],
        ["-o", "proxyCommand = /x"],
        ["-o", " PROXYCOMMAND=/x"],
        ["-o", "-oProxyCommand=/x"],
        ["-ttoProxyCommand=/x"],
        ["-o", "User=a", "-oProxyCommand=/x"],
    ],
)
async def test_the_command_line_refuses_them_too(
    world: World, sshd: Sshd, words: list[str]
) -> None:
    """AU-08: by `holdfast exec -o`, in ssh's own spellings."""
    before = sshd.log.position
    done = await asyncio.to_thread(
        world.cli, "exec", *words, "box", "--", "true", check=False
    )
    assert done.returncode != 0
    assert b"proxycommand" in done.stderr.lower()
    assert sshd.log.count("Connection from", after=before) == 0


@pytest.mark.parametrize(
    ("options", "command", "said"),
    [
        ({"BindAddress": "127.0.0.1"}, "echo ${SSH_CLIENT%% *}", "127.0.0.1\n"),
        ({"bindinterface": "lo"}, "echo ${SSH_CLIENT%% *}", "127.0.0.1\n"),
        ({"COMPRESSION": "yes", "IPQoS": "af21"}, "echo in", "in\n"),
        ({"RequestTTY": "no", "TCPKeepAlive": "no"}, "echo in", "in\n"),
        ({"ConnectionAttempts": "2", "RekeyLimit": "1G 1h"}, "echo in", "in\n"),
        ({"RemoteCommand": "none", "SessionType": "default"}, "echo in", "in\n"),
    ],
)
async def test_what_a_call_may_set_is_done(
    ssh: Tools, options: dict[str, str], command: str, said: str
) -> None:
    """AU-08: options that neither run, lend nor redirect anything."""
    told = await ssh.run(command, connect={"options": options})
    assert (told["stdout"], told["exit_code"]) == (said, 0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"EscapeChar": "none"}, "EscapeChar"),
        ({"LogLevel": "DEBUG"}, "LogLevel"),
        ({"NoSuchThing": "1"}, "NoSuchThing"),
        ({"IPQoS": "fast"}, "fast"),
        ({"AddressFamily": "inet7"}, "inet7"),
        ({"ConnectionAttempts": "none"}, "ConnectionAttempts"),
        ({"RekeyLimit": "lots"}, "lots"),
        ({"User": ""}, "User"),
        ({"User": "$HOME"}, "user name"),
        ({"User": "-oProxyCommand=x"}, "user name"),
        ({"IdentityFile": "~/${NAME}"}, "IdentityFile"),
        ({"Ciphers": "rot13"}, "rot13"),
    ],
)
async def test_what_can_t_be_set_or_means_nothing_is_told(
    ssh: Tools, options: dict[str, str], named: str
) -> None:
    """AU-08, bad input: the option and what is wrong with it; nothing is ignored."""
    error = await ssh.refused("ssh_exec", command="true", connect={"options": options})
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert error["field"] == "connect.options"
    assert named.lower() in error["message"].lower()
