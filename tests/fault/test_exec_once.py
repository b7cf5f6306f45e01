"""A call that was made runs once, and a job that was told of stays known."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import asyncssh
import pytest

from fakes.asyncssh_server import LOOPBACK, mute, raw_server
from fakes.tools import QUICK, Tools, served, tools
from fakes.watch import soon
from fakes.world import World
from holdfast_daemon.exec.claim import Claim

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_once"),
]

# Nothing is written by the way: what is on disk is what a call waited for.
UNHURRIED = f"{QUICK}job_write_seconds = 60\nstart_seconds = 0.2\n"
NO_MORE_FILES = """
import errno
from pathlib import Path
from holdfast_daemon.output import segment

def scarce(real):
    def call(*args, **more):
        if Path({flag!r}).exists():
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args, **more)
    return call

segment.read = scarce(segment.read)
segment.read_back = scarce(segment.read_back)
"""


@pytest.fixture(scope="module")
def shared(sshd: Sshd) -> Iterator[World]:
    with served(sshd, limits=UNHURRIED) as one:
        yield one


class Cutting(asyncssh.SSHServer):
    """Lets everybody in; runs commands and cuts the link instead of an answer."""

    def __init__(self, runs: list[str]) -> None:
        self._runs = runs

    def begin_auth(self, username: str) -> bool:  # noqa: ARG002 - the library asks
        return False

    def session_requested(self) -> asyncssh.SSHServerSession[bytes]:
        return CutSession(self._runs)


class CutSession(asyncssh.SSHServerSession[bytes]):
    def __init__(self, runs: list[str]) -> None:
        self._runs = runs

    def connection_made(self, chan: asyncssh.SSHServerChannel[bytes]) -> None:
        self._chan = chan

    def exec_requested(self, command: str) -> bool:
        # The probe of the login shell is answered, with nothing.
        if "run me" in command:
            self._runs.append(command)
            self._chan.get_extra_info("connection").abort()
        return True

    def session_started(self) -> None:
        self._chan.exit(0)


@contextlib.asynccontextmanager
async def cutting(runs: list[str]) -> AsyncGenerator[dict[str, Any]]:
    """Yield the arguments of a call to a server that cuts the link."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(
        lambda: Cutting(runs), LOOPBACK, 0, server_host_keys=[key], encoding=None
    )
    try:
        yield {
            "target": f"me@{LOOPBACK}:{server.get_port()}",
            "connect": {"host_key_checking": "no"},
        }
    finally:
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("end", ["kill", "stop"])
async def test_a_request_id_holds_over_a_new_daemon(
    shared: World, ssh: Tools, tmp_path: Path, end: str
) -> None:
    """NF-17: the buggy daemon kept request ids in memory, and ran the call again."""
    log = tmp_path / "runs"
    asked = {"command": f"echo run >> {log}; exit 6", "request_id": f"once-{end}"}
    first = await ssh.run(**asked)
    assert first["exit_code"] == 6
    getattr(shared, end)()
    shared.start()
    again = await ssh.run(**asked)
    assert log.read_text() == "run\n"
    assert again["job_id"] == first["job_id"]
    # A killed daemon had no time to note the outcome; then it is told as unknown.
    known = {"kill": ("lost", None), "stop": ("exited", 6)}
    assert (again["status"], again.get("exit_code")) == known[end]
    # What another daemon is asked under that id is still compared with the first call.
    error = await ssh.refused("ssh_exec", command="true", request_id=f"once-{end}")
    assert (error["reason"], error["ran"]) == ("REQUEST_ID_REUSED", "no")
    assert error["job_id"] == first["job_id"]


@pytest.mark.parametrize(("given", "lasting"), [("deploy-7", True), ("shim-1", False)])
async def test_only_ids_that_somebody_chose_must_outlive_the_daemon(
    given: str, lasting: bool
) -> None:
    """NF-17: a shim retries with its own id only at the daemon it asked first."""
    assert Claim("me", given, "").lasting is lasting


async def test_a_call_whose_answer_was_cut_off_runs_no_second_time(
    ssh: Tools,
) -> None:
    """NF-17, EX-01: the buggy daemon forgot the call, and the retry ran it again."""
    runs: list[str] = []
    async with cutting(runs) as where:
        asked = {**where, "command": "run me", "request_id": "cut"}
        error = await ssh.refused("ssh_exec", **asked)
        assert (error["reason"], error["ran"]) == ("CONNECTION_LOST", "unknown")
        again = await ssh.refused("ssh_exec", **asked)
        assert (again["job_id"], again["ran"]) == (error["job_id"], "unknown")
        assert len(runs) == 1
        lost = await ssh.read(error["job_id"])
        assert (lost["status"], lost["ok"]) == ("lost", False)
        assert "exit_code" not in lost
        assert "nothing ran" not in lost["note"]


async def test_a_job_that_was_told_of_is_known_after_a_crash(
    shared: World, ssh: Tools
) -> None:
    """EX-16: the buggy daemon wrote a job's record later than it told its id."""
    job = await ssh.start("exec sleep 20")
    shared.kill()
    shared.start()
    told = await ssh.read(job)
    assert (told["status"], told["ok"]) == ("lost", False)
    assert "exit_code" not in told
    assert "daemon" in told["note"]


async def test_a_stop_of_a_job_that_still_connects_is_one(ssh: Tools) -> None:
    """EX-16: the buggy daemon said `stopped: false`, though nothing had run."""
    async with raw_server(mute) as port:
        target = f"me@{LOOPBACK}:{port}"
        job = await ssh.start("true", target=target)
        told = await ssh.stop(job)
        assert (told["stopped"], told["status"]) == (True, "cancelled")
        assert "nothing ran" in told["note"]
        assert "nothing ran" in (await ssh.read(job))["note"]


async def test_a_job_that_never_reached_its_host_says_that_nothing_ran(
    ssh: Tools,
) -> None:
    """EX-16, NF-02: the buggy daemon left open whether it ran, or dropped the job."""
    async with raw_server(mute) as port:
        connect = {"connect_timeout_seconds": 1}
        target = f"me@{LOOPBACK}:{port}"
        job = await ssh.start("true", target=target, connect=connect)
        told = await ssh.ended(job)
        assert (told["status"], told["ok"]) == ("lost", False)
        assert "nothing ran" in told["note"]
        assert "exit_code" not in told


async def test_output_that_can_not_be_read_hides_no_outcome(
    short_path: Path, sshd: Sshd
) -> None:
    """EX-01: on EMFILE the buggy daemon answered a command that ran with `ran: no`."""
    flag, gate, hooks = (short_path / name for name in ("flag", "gate", "hooks"))
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(NO_MORE_FILES.format(flag=str(flag)))
    world = World(short_path, ssh_config=sshd.config)
    world.configure("[limits]\nflush_seconds = 0.001\n")
    world.start(PYTHONPATH=str(hooks))
    try:
        async with tools(world) as ssh:
            command = f"seq 1 300000; until test -e {gate}; do sleep 0.02; done; exit 3"
            asked = {"target": "box", "command": command}
            call = {"name": "ssh_exec", "arguments": asked}
            ident = await ssh.wire.start("tools/call", call)
            await soon(lambda: kept(world) > 2**20, "its output is on disk")
            flag.touch()
            gate.touch()
            answer = (await ssh.wire.reply(ident))["result"]
            assert "isError" not in answer, answer
            told = answer["structuredContent"]
            assert (told["status"], told["exit_code"]) == ("exited", 3)
            assert (told["stdout"], told["truncated"]) == ("", True)
            assert "could not be read" in told["note"]
            flag.unlink()
            page = await ssh.read(told["job_id"], offset=0)
            assert page["stdout"].startswith("1\n2\n")
    finally:
        world.close()


def kept(world: World) -> int:
    """Return how many bytes of output there are on disk."""
    files = (world.state / "jobs").glob("*/*")
    return sum(file.stat().st_size for file in files if file.name != "job.json.new")
