"""Nothing that a client says becomes words of a shell on this machine."""

from __future__ import annotations

import json
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest
import pytest_asyncio

from fakes.served import info_of
from fakes.tools import QUICK, Tools, tools
from fakes.watch import connected
from fakes.world import World
from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from fakes.sshd import Sshd

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("no_local_shell"),
    pytest.mark.needs_sshd,
]

SPY = """#!/bin/sh
{{ for word do printf '%s\\0' "$word"; done; printf '\\0'; }} >> {seen}
exec {ssh} "$@"
"""
CANARY = "canary-0f-the-daemon"
# A proxy that leads nowhere, and would run whatever reached its command line.
PROXIED = """
Host proxied
  HostName 127.0.0.1
  ProxyCommand echo %h %p %r %n >> {said}; exit 1
"""


class Place:
    """A daemon whose `ssh` is watched, and a file that must never come to be."""

    def __init__(self, sshd: Sshd, root: Path) -> None:
        self.trap = root / "trap"
        self.seen = root / "seen"
        self.said = root / "said"
        spy = root / "our-ssh"
        found = shutil.which("ssh")
        assert found is not None
        spy.write_text(SPY.format(seen=self.seen, ssh=found))
        spy.chmod(spy.stat().st_mode | stat.S_IXUSR)
        config = root / "ssh_config"
        config.write_text(sshd.client_config() + PROXIED.format(said=self.said))
        self.world = World(root, ssh_config=config)
        self.world.configure(f"[limits]\n{QUICK}")
        self.world.start(HOLDFAST_SSH_BIN=str(spy), HF_CANARY=CANARY)

    def argument_lists(self) -> list[list[str]]:
        """Return how `ssh` was called, word by word."""
        if not self.seen.exists():
            return []
        calls = self.seen.read_text().split("\0\0")
        return [call.split("\0") for call in calls if call]


@pytest.fixture(scope="module")
def place(sshd: Sshd) -> Iterator[Place]:
    root = Path(tempfile.mkdtemp(prefix="hf-"))
    one = Place(sshd, root)
    yield one
    one.world.close()
    shutil.rmtree(root, ignore_errors=True)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(place: Place) -> AsyncIterator[Tools]:
    async with tools(place.world, target="") as one:
        yield one


def hostile(trap: Path) -> list[str]:
    """Return texts that a shell would turn into a command."""
    touch = f"touch${{IFS}}{trap}"
    return [
        f"$({touch})",
        f"`{touch}`",
        f"x;{touch}",
        f"x|{touch}",
        f"x&{touch}",
        f"x\n{touch}",
        f"'{touch}'",
        f"-oProxyCommand={touch}",
        f"%$({touch})",
        # what ssh itself lets through
        "$HF_CANARY",
        "${HF_CANARY}",
        "evil.example #",
        "#evil.example",
    ]


def calls(text: str) -> list[dict[str, Any]]:
    """Return every argument that says where and how, with `text` in it."""
    return [
        {"target": text},
        {"target": f"{text}@127.0.0.1"},
        {"target": f"me@{text}"},
        {"target": f"ssh://{text}@proxied"},
        {"target": "proxied", "connect": {"user": text}},
        {"target": "box", "connect": {"user": text}},
        {"target": "box", "connect": {"jump": text}},
        {"target": "box", "connect": {"jump": f"{text}@box"}},
        {"target": "box", "connect": {"identity_file": text}},
        {"target": "box", "connect": {"known_hosts_file": text}},
        {"target": "box", "connect": {"options": {text: "x"}}},
        {"target": "box", "connect": {"options": {"HostName": text}}},
        {"target": "box", "connect": {"options": {"User": text}}},
        {"target": "proxied", "connect": {"options": {"Port": text}}},
        {"target": "proxied", "connect": {"options": {"User": text}}},
    ]


@pytest.mark.parametrize("written", ["$HF_CANARY", "${HF_CANARY}", "/x/${HF_CANARY}"])
@pytest.mark.parametrize("option", ["CertificateFile", "IdentityAgent", "IdentityFile"])
async def test_no_option_names_the_daemon_s_variables(
    ssh: Tools, written: str, option: str
) -> None:
    """SC-02, AU-08: an error about such a file told what the variable holds."""
    for more in ({}, {"identity_file": "/nonexistent"}, {"user": "nobody"}):
        connect = {"options": {option: written}, **more}
        told = await ssh.call("ssh_connect", target="box", connect=connect)
        assert CANARY not in json.dumps(told)
        error = told["structuredContent"]["error"]
        assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
        assert option in error["message"]


async def test_no_argument_becomes_a_command_of_this_machine(
    ssh: Tools, place: Place
) -> None:
    """SC-10: no local shell; `ssh` gets each argument as one word, or not at all."""
    texts = hostile(place.trap)
    for text in texts:
        for call in calls(text):
            result = await ssh.call("ssh_connect", **call)
            assert not place.trap.exists(), call
            if "isError" in result:
                assert result["structuredContent"]["error"]["ran"] == "no"
    # A proxy's command line is read by a shell, as with ssh: no text got into it.
    said = place.said.read_text() if place.said.exists() else ""
    for never in ("touch", "evil.example", CANARY):
        assert never not in said
    seen = place.argument_lists()
    assert seen
    for words in seen:
        assert words[0] == "-G"
        # Whatever of it reached ssh came in one word, and never as a switch.
        for word in words:
            assert "touch" not in word or any(text in word for text in texts)
        (name,) = words[words.index("--") + 1 :]
        assert not name.startswith("-")


async def test_the_proxy_above_runs_for_good_arguments(
    ssh: Tools, place: Place
) -> None:
    """SC-10: else the test above would see nothing, whatever the daemon did."""
    await ssh.refused("ssh_connect", target="proxied", connect={"user": "somebody"})
    assert "127.0.0.1 22 somebody proxied" in place.said.read_text()


@pytest.mark.parametrize(
    "name", ["", "A=B", "1A", "A B", "A;touch x", "$(x)", "Ä", "A\n", "-A", "A.B"]
)
async def test_a_name_that_is_no_variable_is_refused(ssh: Tools, name: str) -> None:
    """SC-10: env names; nothing ran."""
    error = await ssh.refused(
        "ssh_exec", target="box", command="true", env={name: "value"}
    )
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    assert error["field"].startswith("env")


@pytest.mark.parametrize(
    "arguments",
    [
        {"command": "echo a\0b"},
        {"command": "true", "cwd": "/tmp\0/etc"},
        {"command": "true", "shell": "/bin/sh\0-x"},
        {"command": "true", "env": {"A": "x\0y"}},
        {"command": "true", "env": {"A\0B": "x"}},
        {"command": "true", "target": "box\0.example"},
        {"command": "true", "connect": {"user": "me\0you"}},
        {"command": "true", "connect": {"identity_file": "/etc\0/passwd"}},
        {"command": "true", "connect": {"known_hosts_file": "/etc\0/passwd"}},
        {"command": "true", "connect": {"password": "a\0b"}},
        {"command": "true", "connect": {"jump": "box\0"}},
        {"command": "true", "connect": {"options": {"User": "a\0b"}}},
    ],
    ids=str,
)
async def test_a_nul_is_refused_wherever_it_stands(
    ssh: Tools, sshd: Sshd, arguments: dict[str, Any]
) -> None:
    """SC-10: NUL; the field is named, and nothing ran."""
    before = sshd.log.position
    error = await ssh.refused("ssh_exec", **{"target": "box", **arguments})
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no")
    named = next(iter(arguments.keys() - {"command"}), "command")
    assert error["field"].startswith(named)
    assert not sshd.log.count("Connection from", after=before)


@pytest.mark.parametrize(
    "request_",
    [
        exec_pb2.RunRequest(target="box", command="echo a\0b"),
        exec_pb2.RunRequest(target="box", command="true", cwd="/tmp\0/etc"),
        exec_pb2.RunRequest(target="box", command="true", shell="/bin/sh\0-x"),
        exec_pb2.RunRequest(target="box", command="true", env={"A": "x\0y"}),
        exec_pb2.RunRequest(target="box\0", command="true"),
        exec_pb2.RunRequest(
            target="box",
            command="true",
            connect=common_pb2.ConnectOptions(password="a\0b"),
        ),
    ],
    ids=lambda request: str(request).replace("\n", " "),
)
async def test_a_nul_is_refused_by_the_daemon_itself(
    place: Place, sshd: Sshd, request_: exec_pb2.RunRequest
) -> None:
    """SC-10: NUL, over gRPC, where no shim looked at it before."""
    before = sshd.log.position
    async with connected(place.world) as client:
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for _ in stub.Run(request_, metadata=client.metadata()):
                pass
    info = info_of(caught.value)
    assert (info.reason, info.metadata["ran"]) == ("INVALID_ARGUMENT", "no")
    assert not sshd.log.count("Connection from", after=before)


async def test_values_reach_the_host_as_they_are(ssh: Tools, tmp_path: Path) -> None:
    """SC-10, EX-08: what a shell of the host would read is given to it quoted."""
    trap = tmp_path / "trap"
    for text in hostile(trap):
        told = await ssh.run('printf %s "$A"', target="box", env={"A": text})
        assert told["stdout"] == text
        error = await ssh.refused(
            "ssh_exec", target="box", command="true", cwd=f"/none/{text}"
        )
        assert error["reason"] == "CWD_FAILED"
    assert not trap.exists()
