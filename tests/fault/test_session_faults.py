"""Sessions kept on a host: nothing is lost or done twice, whatever is cut or killed.

`make soak` runs them long: HOLDFAST_SESSION_MIB and HOLDFAST_SESSION_CUTS say how long.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

from fakes.proxy import Proxy
from fakes.sshd import Sshd, descendants
from fakes.tools import Result, Tools, served, tools
from fakes.watch import connected, soon
from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.client import metadata_of
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from fakes.world import World

MIB = 1024 * 1024
SIZE = int(float(os.environ.get("HOLDFAST_SESSION_MIB", "8")) * MIB)
CUTS = int(os.environ.get("HOLDFAST_SESSION_CUTS", "8"))
SEED = 4
SECONDS = 60 + SIZE / MIB + CUTS * 6
# slow enough to be cut in the middle of it
RATE = max(3 * MIB, SIZE // 100)
BEGIN, END = b"<BEGIN>", b"<END>"

pytestmark = [pytest.mark.needs_sshd, pytest.mark.timeout(SECONDS)]


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "remote-home"
    home.mkdir()
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


@contextlib.asynccontextmanager
async def opened(world: World) -> AsyncGenerator[tuple[Tools, str]]:
    """Open a session on the host, and end it there in the end."""
    async with tools(world) as ssh:
        told = await ssh.told(
            "ssh_session_open", target="box", session_name="one", durability="remote"
        )
        try:
            yield ssh, str(told["session_id"])
        finally:
            await patiently(ssh, "ssh_session_close", session="one", force=True)


async def patiently(ssh: Tools, tool: str, **arguments: Any) -> Result:
    """Call until the daemon is there again, and the host can be reached."""
    async with asyncio.timeout(60):
        while True:
            told = await ssh.call(tool, **arguments)
            if "isError" not in told:
                return dict(told["structuredContent"])
            error = told["structuredContent"]["error"]
            away = ("CONNECTION_LOST", "DAEMON_LOST", "DAEMON_UNAVAILABLE", "DRAINING")
            assert error["reason"] in {*away, "HOST_UNREACHABLE", "SESSION_BUSY"}, told
            await asyncio.sleep(0.1)


class Reader:
    """Reads a session's bytes on and on, whatever becomes of the daemon.

    Attributes:
        got: How many bytes there were behind the mark of the beginning.
        digest: Of the first SIZE of them.
        rest: What came behind those.
    """

    def __init__(self, world: World, session: str) -> None:
        self._world = world
        self._session = session
        self.offset = 0
        self.got = 0
        self.digest = hashlib.sha256()
        self.rest = b""
        self._before: bytes | None = b""
        self._grown = asyncio.Event()
        self._failed: AssertionError | None = None

    async def follow(self) -> None:
        while self._failed is None:
            try:
                with contextlib.suppress(grpc.aio.AioRpcError, CallError, OSError):
                    await self._attach()
            except AssertionError as error:
                self._failed = error
                self._grown.set()
            await asyncio.sleep(0.05)

    def _take(self, data: bytes) -> None:
        if self._before is not None:
            before, mark, data = (self._before + data).partition(BEGIN)
            self._before = None if mark else before
            if not mark:
                return
        room = max(0, SIZE - self.got)
        self.digest.update(data[:room])
        self.rest += data[room:]
        self.got += len(data)

    async def _attach(self) -> None:
        async with connected(self._world) as client:
            stub = session_pb2_grpc.SessionServiceStub(client.channel)
            start = session_pb2.AttachStart(
                session=self._session, watch=True, offset=self.offset
            )
            client.context.person = True
            call = stub.AttachSession(metadata=metadata_of(client.context, ""))
            await call.write(session_pb2.AttachSessionRequest(start=start))
            async for frame in call:
                if frame.HasField("output"):
                    assert not frame.output.skipped, frame
                    assert frame.output.next_offset == self.offset + len(
                        frame.output.data
                    )
                    self._take(frame.output.data)
                    self.offset = frame.output.next_offset
                    self._grown.set()

    async def until(self, size: int) -> None:
        while self.got < size:
            self._grown.clear()
            await self._grown.wait()
            if self._failed is not None:
                raise self._failed


def make(path: Path) -> bytes:
    """Write SIZE random bytes; return their digest."""
    dice, digest = random.Random(SEED), hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, SIZE, MIB):
            piece = dice.randbytes(min(MIB, SIZE - start))
            digest.update(piece)
            file.write(piece)
    return digest.digest()


async def test_every_byte_comes_once_through_cuts_of_everything(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-06, NF-09, NF-20: links, channels and daemons die; SHA-256 is equal."""
    source = host.directory / "data"
    wanted = await asyncio.to_thread(make, source)
    with Proxy(host.port, seed=SEED) as proxy:
        config = proxy.config(host, tmp_path / "config")
        with served(config) as world:
            async with opened(world) as (ssh, session):
                reader = Reader(world, session)
                following = asyncio.create_task(reader.follow())
                await patiently(
                    ssh,
                    "ssh_session_write",
                    session="one",
                    input=f"stty raw -echo; printf '<%s' 'BEGIN>'; cat {source};"
                    " printf '<%s' 'END>'; stty sane\n",
                    wait_seconds=0,
                )
                proxy.throttle(RATE)
                for number in range(CUTS):
                    await asyncio.wait_for(
                        reader.until(SIZE * (number + 1) // (CUTS + 2)), SECONDS
                    )
                    await asyncio.to_thread(cut, number, proxy, world, host)
                proxy.heal()
                proxy.throttle(0)
                await asyncio.wait_for(reader.until(SIZE + len(END)), SECONDS)
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
                assert reader.rest.startswith(END)
                assert reader.digest.digest() == wanted


def cut(number: int, proxy: Proxy, world: World, host: Sshd) -> None:
    """Break something: the link in two ways, the channel, the daemon."""
    match number % 4:
        case 0:
            proxy.rst()
        case 1:
            world.kill()
            world.start()
        case 2:
            proxy.fin()
        case _:
            for pid in descendants(host.pid):
                with contextlib.suppress(OSError):
                    told = Path(f"/proc/{pid}/cmdline").read_bytes()
                    if told.startswith(b"tail\0") or b"/tail\0" in told:
                        stat = Path(f"/proc/{pid}/stat").read_text()
                        os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGTERM)


async def test_a_command_is_run_once_though_the_daemon_dies_under_it(
    host: Sshd,
) -> None:
    """NF-20, NF-17: never "exited 0" for what nobody saw end, and never twice."""
    ran, gate = host.directory / "ran", host.directory / "gate"
    with served(host) as world:
        async with opened(world) as (ssh, _):
            told = await ssh.told(
                "ssh_session_run",
                session="one",
                command=f"echo once >> {ran}; until [ -e {gate} ]; do sleep 0.02; done;"
                f" echo end >> {ran}",
                wait_seconds=0,
            )
            await soon(ran.exists, "it began")
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            job = await patiently(ssh, "ssh_job_read", job_id=told["job_id"])
            assert job["status"] == "running"
            assert "exit_code" not in job
            listed = await patiently(ssh, "ssh_session_list")
            assert [one["running"] for one in listed["sessions"]] == [True]
            gate.touch()
            job = await ssh.ended(told["job_id"])
            assert (job["status"], job["exit_code"]) == ("exited", 0)

            async def again() -> Result:
                while True:
                    result = await ssh.call(
                        "ssh_session_run", session="one", command=f"cat {ran}"
                    )
                    if "isError" not in result:
                        return dict(result["structuredContent"])
                    await asyncio.sleep(0.1)

            async with asyncio.timeout(40):
                after = await again()
            assert (after["stdout"], after["exit_code"]) == ("once\nend\n", 0)


async def test_a_run_is_followed_on_when_its_link_is_lost(
    host: Sshd, tmp_path: Path
) -> None:
    """NF-09: each line once, the true exit code, and told that it was away."""
    with Proxy(host.port, seed=SEED) as proxy:
        config = proxy.config(host, tmp_path / "config")
        with served(config) as world:
            async with opened(world) as (ssh, _):
                command = "for n in $(seq 1 300); do echo line $n; sleep 0.005; done"
                told = await ssh.told(
                    "ssh_session_run",
                    session="one",
                    command=f"{command}; (exit 9)",
                    wait_seconds=0,
                )
                await ssh.until(told["job_id"], "line 50\n")
                proxy.rst()
                await ssh.until(told["job_id"], "line 150\n")
                proxy.fin()
                result = await ssh.ended(told["job_id"])
                assert result["exit_code"] == 9
                whole = await ssh.read(
                    told["job_id"], offset=0, max_output_chars=100_000
                )
                lines = [f"line {n}\n" for n in range(1, 301)]
                assert whole["stdout"] == "".join(lines)


async def test_a_held_session_is_lost_with_its_daemon_and_said_so(host: Sshd) -> None:
    """NF-20: and its last output is there still."""
    with served(host) as world:
        async with tools(world) as ssh:
            opened = await ssh.told(
                "ssh_session_open",
                target="box",
                session_name="old",
                durability="held",
                cwd="/usr",
            )
            await ssh.told(
                "ssh_session_write",
                session="old",
                input="echo last-$((1+1))\n",
                until="last-2",
            )
            await ssh.told("ssh_session_run", session="old", command="cd /usr/bin")
            # what is printed is on disk a moment later
            kept = world.state / "sessions" / opened["session_id"]
            await soon(lambda: list(kept.glob("output/*")), "it is on disk")
            await soon(
                lambda: "/usr/bin" in (kept / "session.json").read_text(), "so is that"
            )
            await asyncio.to_thread(world.kill)
            await asyncio.to_thread(world.start)
            told = await patiently(ssh, "ssh_session_read", session="old", offset=0)
            assert (told["running"], told["exit_reason"]) == (False, "connection_lost")
            assert "exit_code" not in told
            assert "last-2" in told["output"]
            again = await ssh.told(
                "ssh_session_open", target="box", session_name="old", durability="held"
            )
            assert again["matched_by"] == "restored"
            assert again["session_id"] != opened["session_id"]
            where = await ssh.told("ssh_session_run", session="old", command="pwd")
            assert where["stdout"] == "/usr/bin\n"
            await ssh.told("ssh_session_close", session="old", force=True)


async def test_a_shell_that_is_killed_on_its_host_is_told_so(host: Sshd) -> None:
    """SE-11: signal or loss, and never an exit code that nobody reported as 0."""
    with served(host) as world:
        async with opened(world) as (ssh, _):
            told = await ssh.told("ssh_session_run", session="one", command="echo $$")
            os.kill(int(told["stdout"]), signal.SIGKILL)

            async def ended() -> Result:
                while True:
                    found = await ssh.told(
                        "ssh_session_read", session="one", wait_seconds=1
                    )
                    if not found["running"]:
                        return found

            async with asyncio.timeout(40):
                found = await ended()
            assert found.get("exit_code") != 0
            assert found["exit_reason"] in {"exited", "signalled", "connection_lost"}


async def test_a_close_that_did_not_arrive_closes_nothing(host: Sshd) -> None:
    """SE-11: what its shell ends by later is told as it is."""
    with served(host) as world:
        async with opened(world) as (ssh, session):
            host.stop()
            error = await ssh.refused("ssh_session_close", session=session)
            assert error["ran"] == "no", error
            host.start()
            await patiently(ssh, "ssh_session_write", session=session, input="exit 3\n")
            async with asyncio.timeout(40):
                told = await ssh.told("ssh_session_read", session=session)
                while told["running"]:
                    told = await ssh.told(
                        "ssh_session_read", session=session, wait_seconds=5
                    )
            assert (told["exit_reason"], told["exit_code"]) == ("exited", 3)


async def test_one_behind_an_open_quote_is_lost_with_its_daemon(host: Sshd) -> None:
    """SE-02, NF-20: the next one tells that it never ran, and does not wait for it."""
    with served(host) as world:
        async with opened(world) as (ssh, session):
            await ssh.told("ssh_session_run", session=session, command="true")
            await ssh.told("ssh_session_write", session=session, input="echo 'ab\n")
            mark = host.directory / "ran"
            begun = await ssh.told(
                "ssh_session_run",
                session=session,
                command=f"touch {mark}",
                wait_seconds=0.5,
            )
            world.kill()
            world.start()
            async with tools(world) as other:
                told = await other.ended(begun["job_id"])
                assert told["status"] == "lost"
                assert "exit_code" not in told
                assert "never ran" in told["note"]
                await other.told("ssh_session_write", session=session, input="\x03")
                told = await other.told(
                    "ssh_session_run", session=session, command="echo on"
                )
                assert told["stdout"] == "on\n"
                assert not mark.exists()
