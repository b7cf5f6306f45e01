"""Each reason for a failure, brought about and told through the shim."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.asyncssh_server import Odd, mute, raw_server
from fakes.audit import block, unblock
from fakes.sshd import free_port, keygen
from fakes.tools import QUICK, Result, Tools, failure, served, tools
from fakes.watch import soon
from fakes.world import World
from holdfast.v1.common_pb2 import ErrorReason

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("reasons_told"),
    pytest.mark.needs_sshd,
]

# Reasons that cannot be had here, and why. One that is in no list fails the last test.
NOT_HERE = {
    "SESSION_NOT_FOUND": "tests of sessions show it",
    "SESSION_BUSY": "tests of sessions show it",
    "SESSION_ENDED": "tests of sessions show it",
    "OUTPUT_DISCARDED": "told as a note, with earliest_offset, and not as a failure",
    "POLICY_DENIED": "told where a rule closes connections while a call waits for one",
    "INTERNAL": "a fault of ours, which cannot be asked for",
    "LOGIN_NEEDED": "tests of logins that need a person show it",
    "SUDO_REFUSED": "tests of sudo show it",
    "NOT_KEPT": "test_kept_start shows it",
    "LOCAL_PATH_DENIED": "tests of copies show it",
}
HOSTS = """
[hosts.off]
host = "192.0.2.1"
enabled = false
[hosts.pinned]
host = "box"
host_key = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
[hosts.revoked]
host = "box"
known_hosts_file = "{revoked}"
[hosts.strange]
host = "box"
known_hosts_file = "/dev/null"
"""
BAD = """
Host broken
  Port not-a-port
"""


class Bench:
    """What a way to fail needs."""

    def __init__(self, world: World, ssh: Tools, sshd: Sshd, directory: Path) -> None:
        self.world = world
        self.ssh = ssh
        self.sshd = sshd
        self.directory = directory

    async def exec(self, target: str = "box", **arguments: Any) -> Result:
        asked = {"command": "true", **arguments, "target": target}
        return await self.ssh.call("ssh_exec", **asked)


@pytest.fixture(scope="module")
def world(sshd: Sshd, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("hosts")
    revoked = directory / "revoked"
    lines = sshd.known_hosts_lines().splitlines()
    revoked.write_text("".join(f"@revoked {line}\n" for line in lines))
    config = directory / "ssh_config"
    config.write_text(sshd.client_config())
    limits = f"{QUICK}jobs_running = 3\nconnect_timeout_seconds = 3\n"
    with served(config, limits=limits, more=HOSTS.format(revoked=revoked)) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, target="") as one:
        yield one


@pytest.fixture
def bench(world: World, ssh: Tools, sshd: Sshd, tmp_path: Path) -> Bench:
    return Bench(world, ssh, sshd, tmp_path)


async def forward_refused(at: Bench) -> Result:
    return await at.ssh.call(
        "ssh_forward_open",
        target="box",
        direction="remote",
        remote_port=at.sshd.port,
        local_port=1,
    )


async def no_target(at: Bench) -> Result:
    return await at.ssh.call("ssh_exec", command="true")


async def auth_failed(at: Bench) -> Result:
    key = str(keygen(at.directory / "stranger"))
    return await at.exec(connect={"identity_file": key})


async def passphrase_needed(at: Bench) -> Result:
    key = str(keygen(at.directory / "locked", passphrase="words"))
    return await at.exec(connect={"identity_file": key})


async def key_unreadable(at: Bench) -> Result:
    return await at.exec(connect={"identity_file": str(at.directory / "none")})


async def host_unreachable(at: Bench) -> Result:
    return await at.exec(f"me@127.0.0.1:{free_port()}")


async def connect_timeout(at: Bench) -> Result:
    async with raw_server(mute) as port:
        limit = {"connect_timeout_seconds": 0.3}
        return await at.exec(f"me@127.0.0.1:{port}", connect=limit)


async def protocol_error(at: Bench) -> Result:
    # What only servers of long ago took.
    old = {"KexAlgorithms": "diffie-hellman-group1-sha1"}
    return await at.exec(connect={"options": old})


async def connection_lost(at: Bench) -> Result:
    async with Odd(cut="channel") as odd:
        unchecked = {"host_key_checking": "no"}
        return await at.exec(f"me@127.0.0.1:{odd.port}", connect=unchecked)


async def shell_failed(at: Bench) -> Result:
    return await at.exec(shell="/nonexistent/shell")


async def unsupported(at: Bench) -> Result:
    async with Odd() as odd:
        unchecked = {"host_key_checking": "no"}
        where = f"me@127.0.0.1:{odd.port}"
        return await at.exec(where, connect=unchecked, cwd="/", env={"A": "b"})


async def host_not_allowed(at: Bench) -> Result:
    async with tools(at.world, env={"SSH_ALLOWED_HOSTS": "db"}) as other:
        return await other.call("ssh_exec", command="true")


async def read_only(at: Bench) -> Result:
    async with tools(at.world, "--read-only") as other:
        return await other.call("ssh_exec", command="true")


async def audit_unavailable(at: Bench) -> Result:
    audit, aside = at.world.state / "audit", at.directory / "aside"
    block(audit, aside)
    try:
        return await at.exec()
    finally:
        unblock(audit, aside)


async def limit_reached(at: Bench) -> Result:
    jobs = [await at.ssh.start(f"exec sleep 20{n}", target="box") for n in range(3)]
    try:
        return await at.exec()
    finally:
        for job in jobs:
            await at.ssh.stop(job, signal="KILL")


async def in_use(at: Bench) -> Result:
    job = await at.ssh.start("exec sleep 300", target="box")
    try:
        return await at.ssh.call("ssh_disconnect", target="box")
    finally:
        await at.ssh.stop(job, signal="KILL")


async def request_id_reused(at: Bench) -> Result:
    await at.ssh.run("true", target="box", request_id="one-id")
    return await at.exec(command="false", request_id="one-id")


async def bad_configuration(at: Bench) -> Result:
    config = at.directory / "config"
    config.write_text(at.sshd.client_config() + BAD)
    with served(config) as one:
        async with tools(one, target="broken") as other:
            return await other.call("ssh_exec", command="true")


async def draining(at: Bench) -> Result:
    with served(at.sshd, limits=f"{QUICK}stop_seconds = 10\n") as one:
        async with tools(one) as other:
            # It ends by itself a second after the hang-up: so long the stop takes.
            job = await other.start(
                "trap 'sleep 1; exit' HUP; echo up; sleep 60 & wait"
            )
            await other.until(job, "up")
            os.kill(one.pid, signal.SIGTERM)
            await soon(lambda: "stopping" in one.log.read_text(), "the stop began")
            return await other.call("ssh_exec", command="true")


async def daemon_unavailable(at: Bench) -> Result:
    nowhere = World(at.directory)
    async with tools(nowhere, "--no-autostart") as other:
        return await other.call("ssh_exec", command="true")


async def daemon_lost(at: Bench) -> Result:
    with served(at.sshd) as one:
        async with tools(one, "--no-autostart") as other:
            call = {"target": "box", "command": "echo up > up; sleep 60"}
            call["cwd"] = str(at.directory)
            ident = await other.wire.start(
                "tools/call", {"name": "ssh_exec", "arguments": call}
            )
            await soon((at.directory / "up").exists, "it runs")
            one.kill()
            reply = await other.wire.reply(ident)
            result = reply["result"]
            assert isinstance(result, dict)
            return result


def on_file(tool: str, **arguments: Any) -> Way:
    """Ask for something of a file of one line."""

    async def way(at: Bench) -> Result:
        path = at.directory / "file"
        path.write_text("one\n")
        return await at.ssh.call(
            tool, **{"target": "box", "path": str(path), **arguments}
        )

    return way


def simple(target: str = "box", **arguments: Any) -> Way:
    return lambda at: at.exec(target, **arguments)


if TYPE_CHECKING:
    Way = Callable[[Bench], Awaitable[Result]]

# A reason, whether anything may have run, and a way to have it.
TABLE: dict[str, tuple[str, Way]] = {
    "INVALID_ARGUMENT": ("no", simple(command=" ")),
    "NO_TARGET": ("no", no_target),
    "HOST_NOT_FOUND": ("no", simple("no-such-host.invalid")),
    "JOB_NOT_FOUND": ("no", lambda at: at.ssh.call("ssh_job_read", job_id="jnone123")),
    "AUTH_FAILED": ("no", auth_failed),
    "PASSPHRASE_NEEDED": ("no", passphrase_needed),
    "KEY_UNREADABLE": ("no", key_unreadable),
    "HOST_KEY_UNKNOWN": ("no", simple("strange")),
    "HOST_KEY_CHANGED": ("no", simple("pinned")),
    "HOST_KEY_REVOKED": ("no", simple("revoked")),
    "HOST_UNREACHABLE": ("no", host_unreachable),
    "CONNECT_TIMEOUT": ("no", connect_timeout),
    "PROTOCOL_ERROR": ("no", protocol_error),
    "CONNECTION_LOST": ("no", connection_lost),
    "HOST_NOT_ALLOWED": ("no", host_not_allowed),
    "HOST_DISABLED": ("no", simple("off")),
    "READ_ONLY": ("no", read_only),
    "AUDIT_UNAVAILABLE": ("no", audit_unavailable),
    "LIMIT_REACHED": ("no", limit_reached),
    "DRAINING": ("no", draining),
    "BAD_CONFIGURATION": ("no", bad_configuration),
    "UNSUPPORTED": ("no", unsupported),
    "CWD_FAILED": ("no", simple(cwd="/nonexistent")),
    "SHELL_FAILED": ("no", shell_failed),
    "DAEMON_UNAVAILABLE": ("no", daemon_unavailable),
    "DAEMON_LOST": ("unknown", daemon_lost),
    "UNKNOWN_TOOL": ("no", lambda at: at.ssh.call("ssh_exce")),
    "REQUEST_ID_REUSED": ("no", request_id_reused),
    "FORWARD_NOT_FOUND": (
        "no",
        lambda at: at.ssh.call("ssh_forward_close", forward="none"),
    ),
    "FORWARD_REFUSED": ("no", forward_refused),
    "IN_USE": ("no", in_use),
    "FILE_NOT_FOUND": ("no", on_file("ssh_file_read", path="/nonexistent")),
    "FILE_EXISTS": ("no", on_file("ssh_file_write", content="two")),
    "FILE_CHANGED": (
        "no",
        on_file(
            "ssh_file_write", content="x", mode="overwrite", expected_sha256="0" * 64
        ),
    ),
    "EDIT_REFUSED": (
        "no",
        on_file("ssh_file_edit", edits=[{"old": "two", "new": "three"}]),
    ),
    "NOT_TEXT": ("no", on_file("ssh_file_read", path="/dev/zero")),
    "SENSITIVE_PATH": ("no", on_file("ssh_file_read", path="/etc/shadow")),
    "FILE_FAILED": ("no", on_file("ssh_dir_list")),
}


@pytest.mark.parametrize("reason", TABLE)
async def test_a_failure_is_a_result_with_its_reason(bench: Bench, reason: str) -> None:
    """EX-20: typed, in words, with whether anything ran and the next step."""
    ran, way = TABLE[reason]
    error = failure(await way(bench))
    assert (error["reason"], error["ran"]) == (reason, ran), error
    assert len(error["message"]) > len("failed")
    # A wrong argument is named, which is the next step already.
    assert error["hint"] or error["field"], error
    # And whatever failed, the next call is served.
    assert (await bench.ssh.run("echo on", target="box"))["stdout"] == "on\n"


async def test_a_command_that_meets_its_limit_is_a_result_of_that_type(
    bench: Bench,
) -> None:
    """EX-20: command timeout is apart from all of the above: it ran."""
    told = await bench.ssh.run("echo a; sleep 60", target="box", timeout_seconds=2)
    assert (told["status"], told["timed_out"], told["stdout"]) == (
        "timed_out",
        True,
        "a\n",
    )


async def test_no_reason_is_left_out_here() -> None:
    """EX-20: each reason of the contract is in a table above, once."""
    reasons = {
        name.removeprefix("ERROR_REASON_")
        for name in ErrorReason.DESCRIPTOR.values_by_name
    }
    reasons -= {"UNSPECIFIED"}
    assert TABLE.keys() & NOT_HERE.keys() == set()
    assert reasons - (TABLE.keys() | NOT_HERE.keys()) == set()
    assert (TABLE.keys() | NOT_HERE.keys()) - reasons == set()
