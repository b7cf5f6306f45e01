"""Live input and output, also where a start-up file or a caller stands in the way."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.sshd import Sshd
from fakes.tools import QUICK, Tools, served
from fakes.watch import alive, connected, moment, soon
from fakes.world import World, program
from holdfast.v1 import common_pb2, exec_pb2, exec_pb2_grpc
from holdfast_shim.client import error_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from holdfast_shim.client import DaemonClient

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("exec_live"),
]

PIPE = asyncio.subprocess.PIPE
LOT = 8 * 1024 * 1024
LIMITS = (
    f"{QUICK}marker_seconds = 0.3\nquiet_seconds = 0.3\nlive_window_bytes = 65536\n"
)
# What a person may have in .bashrc, which bash reads for commands of ssh too.
MERGED, DROPPED = "exec 2>&1\n", "exec 2>/dev/null\n"


class Home:
    """The account's home directory on the host."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir()

    def start_with(self, lines: str) -> None:
        """Have the login shell read `lines` first."""
        (self.directory / ".bashrc").write_text(lines)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("live") / "home")


@pytest.fixture(scope="module")
def shared(home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("live-sshd")
    with Sshd(directory, options={"SetEnv": f"HOME={home.directory}"}) as server:
        if not server.login_shell.endswith("/bash"):
            pytest.skip("the login shell reads no .bashrc")
        with served(server, limits=LIMITS) as one:
            yield one


@pytest.fixture(autouse=True)
def _plain(home: Home) -> None:
    home.start_with("")


async def live(
    world: World, command: str, stdout: int = PIPE
) -> asyncio.subprocess.Process:
    """Begin `holdfast exec box -- command`."""
    words = [program("holdfast"), "exec", "-n", "box", "--", command]
    return await asyncio.create_subprocess_exec(
        *words, env=world.environment, stdout=stdout, stderr=PIPE
    )


async def test_a_start_up_file_that_merges_the_streams_spoils_no_output(
    ssh: Tools, home: Home
) -> None:
    """EX-01, EX-02: the buggy daemon showed its marker line, and knew no group."""
    home.start_with(MERGED)
    result = await ssh.run("echo out; echo err >&2; exit 4")
    assert (result["stdout"], result["stderr"]) == ("out\nerr\n", "")
    assert result["exit_code"] == 4
    result = await ssh.run("sleep 300 & echo $!; wait", timeout_seconds=8)
    assert (result["status"], "note" in result) == ("timed_out", False)
    assert not alive(int(result["stdout"]))


@pytest.mark.parametrize("lines", [MERGED, DROPPED], ids=["merged", "dropped"])
async def test_output_is_live_wherever_a_start_up_file_sends_errors(
    shared: World, home: Home, tmp_path: Path, lines: str
) -> None:
    """EX-15: the buggy daemon showed nothing until the end: no marker came."""
    home.start_with(lines)
    gate = tmp_path / "gate"
    command = f"echo first; until test -e {gate}; do sleep 0.02; done; echo last"
    process = await live(shared, command)
    assert process.stdout is not None
    try:
        assert await process.stdout.readline() == b"first\n"
    finally:
        gate.touch()
    out, err = await process.communicate()
    assert (out, err, process.returncode) == (b"last\n", b"", 0)


@pytest.mark.parametrize("lines", [MERGED, DROPPED], ids=["merged", "dropped"])
async def test_much_output_arrives_wherever_a_start_up_file_sends_errors(
    shared: World, home: Home, lines: str
) -> None:
    """EX-15: the buggy daemon waited for its marker while the host waited for it."""
    home.start_with(lines)
    process = await live(shared, f"head -c {LOT} /dev/zero; exit 5")
    out, err = await process.communicate()
    assert (len(out), err, process.returncode) == (LOT, b"", 5)


async def test_a_silent_command_ends_where_no_marker_comes(
    ssh: Tools, home: Home
) -> None:
    """EX-01: its code counts, and nothing waits for a line that never comes."""
    home.start_with(DROPPED)
    result = await ssh.run("exit 6")
    assert (result["exit_code"], result["stdout"]) == (6, "")


async def test_a_live_caller_that_does_not_read_can_be_stopped(
    shared: World, ssh: Tools
) -> None:
    """EX-16: the buggy daemon took its own pause for a process that had escaped."""
    unread, into = os.pipe()
    caller = await live(shared, "yes", stdout=into)
    os.close(into)
    try:
        job = await _job_of(ssh, "yes")
        await ssh.until(job, "y\n")
        # A read from the last byte on answers once nothing has come for a while.
        printed = 0
        while (read := await ssh.read(job, offset=0))["stdout_bytes"] != printed:
            printed = read["stdout_bytes"]
            await ssh.read(job, offset=printed - 1, wait_seconds=20)
        told = await ssh.stop(job)
        assert (told["stopped"], told["status"]) == (True, "cancelled")
        assert "note" not in told, told
    finally:
        caller.kill()
        await caller.communicate()
        os.close(unread)


async def _job_of(ssh: Tools, command: str) -> str:
    while True:
        rows = (await ssh.told("ssh_job_list", running_only=True))["jobs"]
        for row in rows:
            if row["command"] == command:
                return str(row["job_id"])
        await moment()


class Conversation:
    """An Interact call, frame by frame."""

    def __init__(self, client: DaemonClient, command: str) -> None:
        stub = exec_pb2_grpc.ExecServiceStub(client.channel)
        self.call: Any = stub.Interact(metadata=client.metadata())
        self.output = b""
        self.end: exec_pb2.JobEnd | None = None
        self._start = exec_pb2.RunRequest(target="box", command=command)

    async def begin(self) -> None:
        """Send the first frame, and read until there is a line of output."""
        await self.send(start=self._start)
        while b"\n" not in self.output:
            assert await self.read(), self.end

    async def send(self, **frame: Any) -> None:
        """Send one frame."""
        await self.call.write(exec_pb2.InteractRequest(**frame))

    async def read(self) -> bool:
        """Take one frame; False after the last."""
        async with asyncio.timeout(40):
            frame = await self.call.read()
        if frame is grpc.aio.EOF:
            return False
        self.output += frame.output.data
        if frame.HasField("end"):
            self.end = frame.end
        return True

    async def rest(self) -> None:
        """Take all frames that are left."""
        while await self.read():
            pass


async def test_a_wrong_frame_in_mid_command_ends_the_call_and_the_command(
    shared: World,
) -> None:
    """EX-19: the buggy daemon stopped listening and said nothing; both hung."""
    async with connected(shared) as client:
        talk = Conversation(client, "echo $$; exec sleep 300")
        await talk.begin()
        pid = int(talk.output)
        await talk.send(size=exec_pb2.TerminalSize(cols=80, rows=24, term="a\0b"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await talk.rest()
        error = error_of(caught.value)
        assert (error.reason, error.ran) == ("INVALID_ARGUMENT", "yes")
        assert error.code == "INVALID_ARGUMENT"
        await soon(lambda: not alive(pid), "the command is gone")


async def test_a_signal_that_can_not_be_sent_ends_no_forwarding(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """EX-21: on the buggy daemon input and its end were lost after such a signal."""
    directory = tmp_path_factory.mktemp("lone")
    limits = (
        f"{QUICK}connections_per_host = 1\nchannels_per_connection = 1\n"
        "connect_timeout_seconds = 15\nlogin_tries = 1\n"
    )
    options = {"SetEnv": f"HOME={directory}"}
    with Sshd(directory, options=options) as server, served(server, limits=limits) as w:
        async with connected(w) as client:
            talk = Conversation(client, "trap '' INT; echo up; cat; echo done")
            await talk.begin()
            # The one channel is taken, and nobody takes another connection.
            os.kill(server.pid, signal.SIGKILL)
            await talk.send(signal=common_pb2.SIGNAL_INT)
            await talk.send(stdin=b"typed\n")
            await talk.send(eof=True)
            await talk.rest()
            assert talk.output == b"up\ntyped\ndone\n"
            assert talk.end is not None
            assert talk.end.WhichOneof("outcome") == "exit_code"
            assert talk.end.exit_code == 0
