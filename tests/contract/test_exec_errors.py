"""Why a command did not run: every cause has a type, words and a next step."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.asyncssh_server import Odd, hang_up, mute, raw_server, talk_http
from fakes.sshd import fingerprint, free_port, keygen
from fakes.tools import Tools, tools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_errors"),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(shared: World) -> AsyncIterator[Tools]:
    async with tools(shared, target="") as one:
        yield one
        # Whatever went wrong before, shim and daemon go on working.
        assert (await one.run("echo on", target="box"))["stdout"] == "on\n"


@pytest.fixture
def direct(sshd: Sshd) -> dict[str, Any]:
    """Arguments that reach the sshd without its alias."""
    return {
        "target": f"{sshd.user}@127.0.0.1:{sshd.port}",
        "command": "echo ran",
        "connect": {
            "identity_file": str(sshd.key),
            "known_hosts_file": str(sshd.known_hosts),
        },
    }


def at(port: int, **connect: object) -> dict[str, Any]:
    connect = {"host_key_checking": "no", **connect}
    return {"target": f"me@127.0.0.1:{port}", "command": "true", "connect": connect}


async def refused(ssh: Tools, arguments: dict[str, Any], reason: str) -> dict[str, Any]:
    error = await ssh.refused("ssh_exec", **arguments)
    assert (error["reason"], error["ran"]) == (reason, "no"), error
    assert error["hint"]
    return error


async def test_a_key_the_host_does_not_know_is_an_auth_failure(
    ssh: Tools, direct: dict[str, Any], tmp_path: Path
) -> None:
    """EX-20: auth; what was allowed and what was tried."""
    direct["connect"]["identity_file"] = str(keygen(tmp_path / "stranger"))
    error = await refused(ssh, direct, "AUTH_FAILED")
    assert "publickey" in error["methods"]
    assert "stranger" in error["tried"]


async def test_a_wrong_password_is_an_auth_failure_and_never_shown(
    ssh: Tools, shared: World, tmp_path: Path
) -> None:
    """EX-20, bad input: a wrong password."""
    async with Odd(password="correct horse") as odd:
        asked = at(odd.port, password="wrong-battery-staple")
        error = await refused(ssh, asked, "AUTH_FAILED")
        assert odd.attempts == ["wrong-battery-staple"]
    assert "wrong-battery-staple" not in str(error)
    assert "wrong-battery-staple" not in shared.log.read_text()


async def test_an_encrypted_key_without_its_passphrase_says_so(
    ssh: Tools, direct: dict[str, Any], tmp_path: Path
) -> None:
    """EX-20, bad input: a key with a passphrase; the file is named."""
    key = keygen(tmp_path / "locked", passphrase="secret words")
    direct["connect"]["identity_file"] = str(key)
    error = await refused(ssh, direct, "PASSPHRASE_NEEDED")
    assert error["path"] == str(key)


@pytest.mark.parametrize("kind", ["directory", "garbage", "missing"])
async def test_an_unreadable_key_says_which_file(
    ssh: Tools, direct: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    """EX-20, bad input: an unreadable key."""
    key = tmp_path / "key"
    if kind == "directory":
        key.mkdir()
    elif kind == "garbage":
        key.write_bytes(b"\x00\xff not a key at all")
    direct["connect"]["identity_file"] = str(key)
    error = await refused(ssh, direct, "KEY_UNREADABLE")
    assert error["path"] == str(key)


async def test_an_unknown_host_key_is_refused_with_its_fingerprint(
    ssh: Tools, direct: dict[str, Any], sshd: Sshd, tmp_path: Path
) -> None:
    """EX-20, AU-09: host key unknown; nothing was sent to that host."""
    direct["connect"]["known_hosts_file"] = str(tmp_path / "nobody")
    error = await refused(ssh, direct, "HOST_KEY_UNKNOWN")
    assert error["fingerprint"] == sshd.host_fingerprint()


async def test_a_changed_host_key_is_refused_with_both_fingerprints(
    ssh: Tools, direct: dict[str, Any], sshd: Sshd, tmp_path: Path
) -> None:
    """EX-20, AU-09: host key changed is another error than unknown."""
    other = keygen(tmp_path / "other")
    public = other.with_suffix(".pub").read_text()
    known = tmp_path / "known_hosts"
    known.write_text(f"[127.0.0.1]:{sshd.port} {public}")
    direct["connect"]["known_hosts_file"] = str(known)
    error = await refused(ssh, direct, "HOST_KEY_CHANGED")
    assert error["fingerprint"] == sshd.host_fingerprint()
    assert error["known_fingerprint"] == fingerprint(other)


async def test_a_refused_port_names_address_and_port(ssh: Tools) -> None:
    """EX-20, bad input: connect; a port nobody listens on."""
    port = free_port()
    error = await refused(ssh, at(port), "HOST_UNREACHABLE")
    assert error["port"] == str(port)
    assert "refused" in error["message"]


async def test_a_name_that_does_not_resolve_is_told(ssh: Tools) -> None:
    """EX-20, bad input: an unknown target."""
    asked = {"target": "no-such-host.invalid", "command": "true"}
    error = await refused(ssh, asked, "HOST_NOT_FOUND")
    assert "no-such-host.invalid" in error["message"]


async def test_a_host_that_accepts_and_never_speaks_is_given_up(ssh: Tools) -> None:
    """EX-20, AU-11, bad input: connect timeout is apart from the command's limit."""
    async with raw_server(mute) as port:
        asked = at(port, connect_timeout_seconds=0.5)
        error = await refused(ssh, asked, "CONNECT_TIMEOUT")
        assert "0.5 s" in error["message"]


async def test_a_client_may_set_the_connect_timeout_for_all_its_calls(
    shared: World,
) -> None:
    """EX-20: SSH_CONNECT_TIMEOUT_SEC."""
    async with raw_server(mute) as port:
        env = {"SSH_CONNECT_TIMEOUT_SEC": "0.5"}
        async with tools(shared, target="", env=env) as ssh:
            await refused(ssh, at(port), "CONNECT_TIMEOUT")


async def test_the_commands_own_limit_covers_connecting_too(ssh: Tools) -> None:
    """EX-05, EX-20: total wall clock; nothing ran, and that is said."""
    async with raw_server(mute) as port:
        asked = {**at(port, connect_timeout_seconds=30), "timeout_seconds": 0.5}
        error = await refused(ssh, asked, "CONNECT_TIMEOUT")
        assert "0.5 s" in error["message"]


async def test_the_commands_own_limit_covers_its_start_too(ssh: Tools) -> None:
    """EX-05: a server that opens no channel."""
    async with Odd(open_channels=False) as odd:
        asked = {**at(odd.port), "timeout_seconds": 1}
        error = await ssh.refused("ssh_exec", **asked)
        assert error["reason"] == "CONNECT_TIMEOUT"
        assert error["ran"] == "no"


@pytest.mark.parametrize("habit", [hang_up, talk_http])
async def test_what_is_no_ssh_server_is_told(ssh: Tools, habit: Any) -> None:
    """EX-20: connect; a port where something else listens."""
    async with raw_server(habit) as port:
        error = await ssh.refused("ssh_exec", **at(port))
        assert error["reason"] in {"PROTOCOL_ERROR", "HOST_UNREACHABLE"}
        assert error["ran"] == "no"


async def test_a_command_timeout_is_a_result_with_its_type(ssh: Tools) -> None:
    """EX-20: command timeout; the command ran, so there is output and a job."""
    result = await ssh.run("echo a; sleep 60", target="box", timeout_seconds=8)
    assert (result["status"], result["timed_out"]) == ("timed_out", True)
    assert result["job_id"]


async def test_policy_refuses_with_what_is_allowed(shared: World) -> None:
    """EX-20, SC-01: policy; the refusal names the allowed hosts."""
    env = {"SSH_ALLOWED_HOSTS": "web-*,db1"}
    async with tools(shared, env=env) as ssh:
        error = await ssh.refused("ssh_exec", command="true")
        assert (error["reason"], error["ran"]) == ("HOST_NOT_ALLOWED", "no")
        assert "web-*" in error["message"] + error["hint"]
        assert "db1" in error["message"] + error["hint"]


async def test_a_read_only_client_runs_nothing(shared: World) -> None:
    """EX-20: policy; the daemon refuses what the shim does not even list."""
    async with tools(shared, "--read-only") as ssh:
        error = await ssh.refused("ssh_exec", command="true")
        assert (error["reason"], error["ran"]) == ("READ_ONLY", "no")
        assert isinstance((await ssh.told("ssh_job_list"))["jobs"], list)


async def test_a_full_backlog_does_not_hang_a_call(ssh: Tools) -> None:
    """EX-20: connect timeout, also where the network swallows everything."""
    with contextlib.ExitStack() as stack:
        deaf = stack.enter_context(socket.socket())
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(deaf.getsockname())
        port = deaf.getsockname()[1]
        await refused(ssh, at(port, connect_timeout_seconds=0.5), "CONNECT_TIMEOUT")


@pytest.mark.parametrize("seconds", [-1e38, 601, 1e38, 1e300])
async def test_a_time_that_no_login_may_take_is_refused_as_that(
    ssh: Tools, seconds: float
) -> None:
    """EX-20: whatever its size; nothing ran."""
    asked = {"target": "box", "connect": {"connect_timeout_seconds": seconds}}
    error = await ssh.refused("ssh_exec", command="true", **asked)
    assert (error["reason"], error["ran"]) == ("INVALID_ARGUMENT", "no"), error
    assert "connect_timeout_seconds" in error["field"]
