"""The daemon dies at each named place around opening, using and closing a session.

Afterwards the session is attached to again, or lost, and said to be so.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc.aio
import pytest

import holdfast_daemon
from fakes.sshd import Sshd
from fakes.tools import QUICK, Result, Tools, tools
from fakes.watch import alive, connected, moment, soon
from fakes.world import World, program
from holdfast.v1 import session_pb2, session_pb2_grpc
from holdfast_shim.client import metadata_of
from holdfast_shim.errors import CallError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

pytestmark = [
    pytest.mark.needs_sshd,
]

# What a session may be after the crash of its daemon, where it runs no more.
LOST = {"connection_lost", "host_restarted"}
# How a shell ends that was hung up on, when nobody was there to see it.
HUNG_UP = {"signalled", "exited", "closed"}
CODE = 7


@dataclass(frozen=True)
class Row:
    """One place.

    Attributes:
        act: What gets the daemon there.
        after: What may have become of the session: again, lost, ended, nothing.
        ran: How often a command that was on its way may have run.
    """

    place: str
    act: str
    after: frozenset[str]
    ran: frozenset[int] = frozenset({0})
    durability: str = "remote"

    def __str__(self) -> str:
        return f"{self.place}-{self.durability}"


def row(
    place: str, *after: str, ran: tuple[int, ...] = (0,), held: bool = False
) -> Row:
    kind = "held" if held else "remote"
    act = place.split(".")[1]
    return Row(place, act, frozenset(after), frozenset(ran), kind)


TABLE = [
    row("session.open.made", "nothing", "again"),
    row("session.record.written", "nothing", "again"),
    row("session.open.recorded", "lost", "again"),
    row("session.open.started", "again"),
    row("session.open.kept", "again"),
    row("session.open.kept", "lost", "again", held=True),
    row("session.adopt", "again"),
    row("session.run.begun", "again", ran=(0, 1)),
    row("session.run.typed", "again", ran=(1,)),
    row("session.run.ended", "again", ran=(1,)),
    row("session.run.forgotten", "again", ran=(1,)),
    row("session.write.begun", "again"),
    row("session.write.typed", "again", ran=(0, 1)),
    row("session.attach.taken", "again"),
    row("session.attach.left", "again"),
    row("session.close.begun", "again"),
    row("session.close.ended", "ended", "lost"),
    row("session.close.ended", "lost", held=True),
    row("session.close.recorded", "ended", "lost"),
    row("session.close.wiped", "ended", "lost"),
]


def test_every_place_in_the_code_is_in_the_table() -> None:
    """Issue 4: so each of them is shown to be reached, by dying there."""
    source = Path(holdfast_daemon.__file__).parent
    found = [
        name
        for path in source.rglob("*.py")
        for name in re.findall(r"failpoint\.reach\(\s*\"([^\"]+)\"", path.read_text())
    ]
    assert len(found) == len(set(found))
    ours = {place for place in found if place.startswith("session.")}
    assert ours == {one.place for one in TABLE}


async def test_no_place_is_fatal_without_the_second_switch(
    ssh: Tools, world: World
) -> None:
    """Issue 4: one variable, set by accident, does nothing."""
    more = {"HOLDFAST_FAILPOINT": "session.open.made"}
    await asyncio.to_thread(world.start, **more)
    opened = await told(ssh, "ssh_session_open", target="box", durability="held")
    assert opened["running"] is True
    await told(ssh, "ssh_session_close", session=opened["session_id"])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    directory = tmp_path_factory.mktemp("failpoints")
    with Sshd(directory, options={"SetEnv": f"HOME={directory}"}) as one:
        yield one


@pytest.fixture
def world(host: Sshd, short_path: Path) -> Iterator[World]:
    """Yield a user's machine; it is the test that starts daemons there."""
    one = World(short_path, ssh_config=host.config)
    one.configure(f"[limits]\n{QUICK}")
    yield one
    one.close()


@pytest.fixture
async def ssh(world: World) -> AsyncIterator[Tools]:
    async with tools(world, "--no-autostart") as one:
        yield one


def switched_on(place: str) -> dict[str, str]:
    return {"HOLDFAST_FAILPOINT": place, "HOLDFAST_TESTING": "1"}


async def restart(world: World, place: str = "") -> None:
    """Have a new daemon serve; the one before is gone."""
    await asyncio.to_thread(world.start, **switched_on(place))


async def died(world: World) -> None:
    """Wait until the daemon killed itself, and clear up after it."""
    await soon(lambda: not alive(world.pid), "the daemon died at its place")
    await asyncio.to_thread(world.kill)


async def told(ssh: Tools, tool: str, **arguments: Any) -> Result:
    """Call, again where the daemon or the keyboard is not to be had yet."""
    async with asyncio.timeout(40):
        while True:
            found = await ssh.call(tool, **arguments)
            if "isError" not in found:
                return dict(found["structuredContent"])
            error = found["structuredContent"]["error"]
            assert error["ran"] == "no", error
            assert error["reason"] in {"DAEMON_UNAVAILABLE", "SESSION_BUSY"}, error
            await asyncio.sleep(0.05)


async def attach(world: World, session: str) -> None:
    """Take part as a person does, and leave."""
    with contextlib.suppress(grpc.aio.AioRpcError, CallError):
        async with connected(world) as client:
            stub = session_pb2_grpc.SessionServiceStub(client.channel)
            client.context.person = True
            call = stub.AttachSession(metadata=metadata_of(client.context, ""))
            start = session_pb2.AttachStart(session=session)
            await call.write(session_pb2.AttachSessionRequest(start=start))
            await call.read()
            await call.write(session_pb2.AttachSessionRequest(detach=True))
            while await call.read() is not grpc.aio.EOF:
                continue


async def act(ssh: Tools, world: World, one: Row, name: str, ran: Path) -> Result:
    """Do what gets the daemon to its place; return what the caller was told."""
    command = f"echo once >> {ran}"
    match one.act:
        case "open" | "record":
            return await ssh.call(
                "ssh_session_open",
                target="box",
                session_name=name,
                durability=one.durability,
            )
        case "run":
            return await ssh.call(
                "ssh_session_run", session=name, command=f"{command}; (exit {CODE})"
            )
        case "write":
            return await ssh.call(
                "ssh_session_write", session=name, input=f"{command}\n"
            )
        case "close":
            return await ssh.call("ssh_session_close", session=name)
        case _:
            await attach(world, name)
            return {}


async def start_to_die(world: World, place: str) -> None:
    """Start a daemon that dies before, or soon after, it serves."""
    daemon = await asyncio.create_subprocess_exec(
        program("holdfastd"),
        env={**world.environment, **switched_on(place)},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(40):
            assert await daemon.wait() == -signal.SIGKILL
    finally:
        if daemon.returncode is None:
            daemon.kill()
            await daemon.wait()


@pytest.mark.parametrize("one", TABLE, ids=str)
async def test_a_daemon_dies_there_and_the_next_one_knows(
    ssh: Tools, world: World, host: Sshd, one: Row
) -> None:
    """NF-20, NF-17: attached again or lost, never "exited 0", nothing twice."""
    name = str(one).replace(".", "-")
    ran = host.directory / f"ran-{name}"
    before = one.act in {"open", "record", "adopt"}
    await restart(world, "" if one.act == "adopt" else one.place)
    if not before or one.act == "adopt":
        await told(
            ssh,
            "ssh_session_open",
            target="box",
            session_name=name,
            durability=one.durability,
        )
    answer: Result = {}
    if one.act == "adopt":
        await asyncio.to_thread(world.kill)
        await start_to_die(world, one.place)
        await restart(world)
    else:
        # the client's call is under way all the time, and may be made again by its shim
        acting = asyncio.create_task(act(ssh, world, one, name, ran))
        await died(world)
        await restart(world)
        answer = await acting

    listed = await told(ssh, "ssh_session_list", session_name=name, include_exited=True)
    assert [found["running"] for found in listed["sessions"]].count(True) <= 1
    became = [await outcome(ssh, found) for found in listed["sessions"]] or ["nothing"]
    assert set(became) <= one.after
    times = await asyncio.to_thread(lines_of, ran)
    assert times in one.ran
    check_answer(one, answer, times)
    await check_host(ssh, world, host, name)


def lines_of(ran: Path) -> int:
    return len(ran.read_text().splitlines()) if ran.exists() else 0


def check_answer(one: Row, answer: Result, times: int) -> None:
    """What the caller was told is so."""
    content = answer.get("structuredContent", {})
    if "isError" in answer:
        assert content["error"]["ran"] != "no" or not times, content
    elif one.act == "run" and content["status"] == "exited":
        assert (content["exit_code"], times) == (CODE, 1)
    elif one.act == "run":
        assert content["status"] in {"running", "lost"}, content
        assert "exit_code" not in content


async def outcome(ssh: Tools, found: Result) -> str:
    """Return what became of a session, which a living one shows by running again."""
    session = found["session_id"]
    async with asyncio.timeout(40):
        while found["running"]:
            again = await ssh.call(
                "ssh_session_run", session=session, command="echo al''ive"
            )
            if "isError" not in again:
                result = again["structuredContent"]
                assert (result["stdout"], result["exit_code"]) == ("alive\n", 0)
                return "again"
            error = again["structuredContent"]["error"]
            assert error["reason"] in {"SESSION_BUSY", "SESSION_ENDED"}, error
            assert error["ran"] == "no", error
            await moment()
            found = await told(ssh, "ssh_session_read", session=session)
    assert found.get("exit_code") != 0, found
    if found["exit_reason"] in LOST:
        assert "exit_code" not in found
        return "lost"
    assert found["exit_reason"] in HUNG_UP, found
    return "ended"


async def check_host(ssh: Tools, world: World, host: Sshd, name: str) -> None:
    """What the host keeps is known, can be listed and wiped, and then is gone."""
    kept = await asyncio.to_thread(world.cli_json, "sessions", "--on", "box")
    listed = await told(ssh, "ssh_session_list", include_exited=True)
    known = {found["session_id"] for found in listed["sessions"]}
    assert {thing["id"] for thing in kept["kept"]} <= known
    for found in listed["sessions"]:
        if found["session_name"] == name and found["running"]:
            await told(ssh, "ssh_session_close", session=found["session_id"])
    wipe = ("sessions", "--on", "box", "--wipe-all", "--force")
    await asyncio.to_thread(world.cli, *wipe)
    room = host.directory / ".cache" / "holdfast"
    await soon(lambda: not room.exists(), "nothing is left on the host")
