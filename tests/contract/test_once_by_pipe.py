"""A call that is made again after a pipe broke runs once: by client, and by shim."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio

from fakes.tools import Tools, content, failure, served, tools
from fakes.watch import soon

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator
    from pathlib import Path

    from fakes.sshd import Sshd
    from fakes.world import World

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.xdist_group("once_by_pipe"),
    pytest.mark.needs_sshd,
]


@pytest.fixture(scope="module")
def world(sshd: Sshd) -> Iterator[World]:
    with served(sshd) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world) as one:
        yield one


class Once:
    """A command that notes each of its runs and ends when it is let."""

    def __init__(self, directory: Path) -> None:
        self._runs, self._gate = directory / "runs", directory / "gate"

    @property
    def command(self) -> str:
        return (
            f"echo run >> {self._runs}; "
            f"while ! test -e {self._gate}; do sleep 0.02; done; echo out; exit 6"
        )

    def open(self) -> None:
        self._gate.touch()

    @property
    def runs(self) -> int:
        return self._runs.read_text().count("run") if self._runs.exists() else 0

    async def begun(self) -> None:
        """Wait for its first run."""
        await soon(lambda: self.runs, "the command runs")


@pytest.fixture
def once(tmp_path: Path) -> Once:
    return Once(tmp_path)


async def begin(ssh: Tools, **arguments: Any) -> int:
    """Send a call of ssh_exec without waiting for its answer."""
    asked = {"target": "box", **arguments}
    return await ssh.wire.start("tools/call", {"name": "ssh_exec", "arguments": asked})


@pytest.mark.parametrize("how", ["kill", "close"])
async def test_a_client_that_calls_again_gets_the_first_result(
    world: World, ssh: Tools, once: Once, how: str
) -> None:
    """NF-17: the shim is killed in mid-call, or its client's pipe breaks."""
    asked = {"command": once.command, "request_id": f"again-{how}"}
    async with tools(world) as first:
        await begin(first, **asked)
        await once.begun()
        if how == "kill":
            first.wire.process.kill()
        else:
            first.wire.close_stdin()
        await first.wire.ended(10)
    again = asyncio.create_task(ssh.run(**asked))
    # Whoever comes third, while the second still waits, waits for the same.
    async with tools(world) as third:
        ident = await begin(third, **asked)
        once.open()
        told = await again
        other = (await third.wire.reply(ident))["result"]["structuredContent"]
    assert (told["exit_code"], told["stdout"]) == (6, "out\n")
    assert other["job_id"] == told["job_id"]
    assert once.runs == 1
    rows = (await ssh.told("ssh_job_list"))["jobs"]
    assert [row["command"] for row in rows].count(once.command) == 1


async def test_without_a_request_id_a_second_call_is_a_second_run(
    world: World, ssh: Tools, once: Once
) -> None:
    """NF-17: what the key above makes the difference to."""
    once.open()
    for _ in range(2):
        assert (await ssh.run(once.command))["exit_code"] == 6
    assert once.runs == 2


class Relay:
    """A socket before the daemon's, whose connections can be cut."""

    def __init__(self, path: Path, behind: Path) -> None:
        self.path = path
        self._behind = behind
        self._cut: list[asyncio.StreamWriter] = []
        self._pumps: set[asyncio.Task[None]] = set()

    async def accept(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        back_reader, back = await asyncio.open_unix_connection(str(self._behind))
        self._cut += [writer, back]
        for source, sink in ((reader, back), (back_reader, writer)):
            task = asyncio.create_task(pump(source, sink))
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    def cut(self) -> int:
        """Cut every connection as a broken pipe does; return how many there were."""
        count = len(self._cut) // 2
        for writer in self._cut:
            writer.transport.abort()
        self._cut.clear()
        return count

    async def end(self) -> None:
        self.cut()
        for task in self._pumps:
            task.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()


@contextlib.asynccontextmanager
async def relay(world: World) -> AsyncGenerator[Relay]:
    """Yield a relay on a socket of its own beside the daemon's."""
    path = world.run / "relay.sock"
    one = Relay(path, world.socket)
    before = os.umask(0o177)
    try:
        server = await asyncio.start_unix_server(one.accept, str(path))
    finally:
        os.umask(before)
    try:
        yield one
    finally:
        server.close()
        await one.end()
        await server.wait_closed()
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("when", ["at once", "after progress"])
async def test_a_shim_whose_own_pipe_breaks_calls_again_and_runs_nothing_twice(
    world: World, once: Once, when: str
) -> None:
    """NF-17: the client sees one result, of the one run, though the call was cut.

    On BUGGY code: not once the call had told any progress, so after a second.
    """
    async with relay(world) as between:
        env = {"HOLDFAST_SOCKET": str(between.path)}
        async with tools(world, "--no-autostart", env=env) as ssh:
            asked = {"target": "box", "command": once.command}
            call = {"name": "ssh_exec", "arguments": asked}
            more = {"_meta": {"progressToken": "p"}} if when != "at once" else {}
            ident = await ssh.wire.start("tools/call", {**call, **more})
            await once.begun()
            if more:
                note = await ssh.wire.receive()
                assert note["method"] == "notifications/progress"
            assert between.cut() >= 1
            once.open()
            told = content((await ssh.wire.reply(ident))["result"])
            assert (told["exit_code"], told["stdout"]) == (6, "out\n")
            assert once.runs == 1
            # And the shim goes on over the new pipe.
            assert (await ssh.run("echo on"))["stdout"] == "on\n"


async def test_a_pipe_that_stays_broken_is_told_and_claims_nothing(
    world: World, ssh: Tools, once: Once
) -> None:
    """NF-17, EX-20: whether it ran is unknown to the shim; it did, once."""
    async with relay(world) as between:
        env = {"HOLDFAST_SOCKET": str(between.path)}
        async with tools(world, "--no-autostart", env=env) as cut:
            ident = await begin(cut, command=once.command, request_id="stays-broken")
            await once.begun()
            between.path.unlink()
            between.cut()
            error = failure((await cut.wire.reply(ident))["result"])
            assert (error["reason"], error["ran"]) == ("DAEMON_LOST", "unknown")
            assert error["hint"]
    once.open()
    told = await ssh.run(once.command, request_id="stays-broken")
    assert told["exit_code"] == 6
    assert once.runs == 1
