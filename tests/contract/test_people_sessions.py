"""People and agents in one session: the real command line, daemon and sshd."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyte
import pytest
from grpc import aio

from fakes.served import info_of
from fakes.terminal import Terminal, sitting
from fakes.watch import connected, moment, soon
from fakes.world import World, program
from holdfast.v1 import session_pb2, session_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.sshd import Sshd
    from holdfast_shim.client import DaemonClient

pytestmark = [pytest.mark.needs_sshd, pytest.mark.usefixtures("terminals")]
MIB = 1024 * 1024
KINDS = ["held", "remote"]


@pytest.fixture
def world(short_path: Path, sshd: Sshd) -> Iterator[World]:
    """Yield a daemon; at the end its sessions are closed, on the host too."""
    with World(short_path, ssh_config=sshd.config) as one:
        yield one
        if not one.socket.exists():
            one.start()
        for session in one.cli_json("sessions")["sessions"]:
            one.cli("sessions", "--close", session["session_id"], "--force")


async def begin(world: World, person: Terminal, *words: str) -> None:
    """Run the command line at a terminal, until its keys reach the session."""
    await person.run(program("holdfast"), *words, env=world.environment)
    await person.until(r"(attached to|watching) session ")
    await person.until(r"(leave with|no keys leave it)[^\r]*\r\n")
    await person.until(r"\x1b\[0m")


async def open_shell(
    world: World, person: Terminal, name: str = "work", kind: str = "held"
) -> None:
    await begin(
        world, person, "shell", "box", "--name", name, "--durability", kind,
        "--shell", "/bin/sh", "--env", "PS1=$ ",
    )  # fmt: skip
    # what is typed before its prompt would stand before it
    await person.until(r"[#$]")


async def leave(person: Terminal) -> None:
    person.type("\r~.")
    await person.until("it goes on")
    assert await person.ended() == 0


async def cli(world: World, *words: str) -> Any:
    return await asyncio.to_thread(world.cli, *words, check=False)


async def run(client: DaemonClient, command: str) -> session_pb2.SessionRunResult:
    stub = session_pb2_grpc.SessionServiceStub(client.channel)
    request = session_pb2.RunInSessionRequest(session="work", command=command)
    async for frame in stub.RunInSession(request, metadata=client.metadata("agent")):
        if frame.HasField("result"):
            return frame.result
    raise AssertionError("no result came")


async def write(client: DaemonClient, keys: str) -> session_pb2.SessionWriteResult:
    stub = session_pb2_grpc.SessionServiceStub(client.channel)
    request = session_pb2.WriteSessionRequest(
        session="work", input=keys, wait_seconds=0, request_id=os.urandom(4).hex()
    )
    async for frame in stub.WriteSession(request, metadata=client.metadata("agent")):
        if frame.HasField("result"):
            return frame.result
    raise AssertionError("no result came")


@pytest.mark.parametrize("kind", KINDS)
async def test_a_person_opens_types_leaves_and_comes_back(
    world: World, kind: str
) -> None:
    """NF-05, SE-20: the size as `stty` on the host sees it; the screen as it stands."""
    async with sitting() as person:
        before = person.mode()
        person.resize(101, 31)
        await open_shell(world, person, kind=kind)
        person.type("x=kept; stty size\r")
        await person.until(r"\r\n31 101\r\n")
        # its prompt is back, or what is typed would stand before it
        await person.until(r"[#$] ")
        person.resize(77, 22)
        person.type(
            "until test \"$(stty size)\" = '22 77'; do sleep 0.1; done; echo is-$x\r"
        )
        await person.until(r"\r\nis-kept\r\n")
        await leave(person)
        assert person.mode() == before
    listed = (await asyncio.to_thread(world.cli_json, "sessions"))["sessions"]
    assert [(one["session_name"], one["running"]) for one in listed] == [("work", True)]
    assert listed[0]["durability"] == kind
    assert "holder" not in listed[0]
    async with sitting() as person:
        await begin(world, person, "attach", "work")
        await person.until("is-kept")
        person.type("echo still-$x\r")
        await person.until(r"\r\nstill-kept\r\n")
        person.type("exit 7\r")
        await person.until(r"session \S+ ended: exit 7")
        assert await person.ended() == 7
        assert person.mode() == before


async def test_several_take_part_and_who_watches_can_not_type(world: World) -> None:
    """NF-05, NF-03: each sees all of it."""
    async with sitting() as one, sitting() as two, sitting() as watcher:
        await open_shell(world, one)
        await begin(world, two, "attach", "work")
        await begin(world, watcher, "attach", "work", "--watch")
        two.type("echo by-$((1+1))\r")
        for each in (one, two, watcher):
            await each.until(r"\r\nby-2\r\n")
        # its prompt is back, or what is typed would stand before it
        await one.until(r"[#$] ")
        watcher.type("echo never\r")
        one.type("echo by-$((0+1))\r")
        for each in (one, two, watcher):
            await each.until(r"\r\nby-1\r\n")
            assert b"never" not in each.said
        await leave(one)
        await leave(two)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_an_agent_runs_is_seen_as_it_happens(
    world: World, kind: str
) -> None:
    """NF-05: its command, output and exit code."""
    async with sitting() as person, connected(world, "claude") as agent:
        await open_shell(world, person, kind=kind)
        await leave(person)
        async with sitting() as watcher:
            await begin(world, watcher, "attach", "work", "--watch")
            found = await run(agent, "echo out; echo err >&2; (exit 4)")
            assert found.exit_code == 4
            await watcher.until(r"claude/1 runs: echo out; echo err >&2; \(exit 4\)")
            # two streams, and the terminal's own between them
            both = r"(?s)\nout\r\n(.*\n)?err\r\n|\nerr\r\n(.*\n)?out\r\n"
            await watcher.until(both)
            await watcher.until("── exit 4 ")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_agent_waits_for_a_person_and_goes_on_after_them(
    world: World, kind: str
) -> None:
    """NF-04, NF-05, SE-14: busy says who; the snapshot tells the holder."""
    async with sitting() as person, connected(world, "claude") as agent:
        await open_shell(world, person, kind=kind)
        for attempt in (run(agent, "echo no"), write(agent, "echo no\n")):
            with pytest.raises(aio.AioRpcError) as caught:
                await attempt
            info = info_of(caught.value)
            assert (info.reason, info.metadata["ran"]) == ("SESSION_BUSY", "no")
            assert "cli/" in str(caught.value.details())
        stub = session_pb2_grpc.SessionServiceStub(agent.channel)
        listed = await stub.ListSessions(
            session_pb2.ListSessionsRequest(), metadata=agent.metadata()
        )
        assert listed.sessions[0].holder.client.startswith("cli/")
        assert b"echo no" not in person.said
        await leave(person)
        assert (await run(agent, "echo yes")).stdout == "yes\n"


@pytest.mark.timed
async def test_a_terminal_that_is_killed_frees_the_keyboard(world: World) -> None:
    """SE-14, NF-04: within 2 s."""
    async with sitting() as person, connected(world, "claude") as agent:
        await open_shell(world, person)
        assert person.process is not None
        person.process.kill()
        async with asyncio.timeout(2):
            while await refused(agent):
                await moment()


async def refused(agent: DaemonClient) -> bool:
    """Say whether the session is somebody else's."""
    try:
        await write(agent, "echo fr''ee\n")
    except aio.AioRpcError as error:
        return str(info_of(error).reason) == "SESSION_BUSY"
    return False


@pytest.mark.parametrize("kind", KINDS)
async def test_a_daemon_that_is_killed_is_told_and_the_terminal_set_back(
    world: World, kind: str
) -> None:
    """NF-05, SE-06: a remote session goes on, and is shown again."""
    async with sitting() as person:
        before = person.mode()
        await open_shell(world, person, kind=kind)
        person.type("x=kept; echo up-$x\r")
        await person.until(r"\r\nup-kept\r\n")
        await asyncio.to_thread(world.kill)
        await person.until("the holdfast daemon has gone")
        assert await person.ended() == 255
        assert person.mode() == before
    await asyncio.to_thread(world.start)
    if kind == "held":
        told = await cli(world, "attach", "work", "--watch")
        assert told.returncode == 255
        return
    async with sitting() as person:
        await begin(world, person, "attach", "work")
        await person.until("up-kept")
        person.type("echo still-$x\r")
        await person.until(r"\r\nstill-kept\r\n")
        await leave(person)


@pytest.mark.parametrize("kind", KINDS)
async def test_a_paste_arrives_exactly(world: World, kind: str, tmp_path: Path) -> None:
    """NF-05: 1 MiB of every byte, UTF-8 and controls."""
    data = os.urandom(MIB - 256) + bytes(range(256))
    got = tmp_path / "got"
    async with sitting(seconds=15) as person:
        await begin(
            world, person, "shell", "box", "--name", "work", "--durability", kind,
            "--shell", "/bin/sh", "--detach-keys", "none",
        )  # fmt: skip
        take = f"stty raw -echo; echo rea''dy; head -c {MIB} >{got}; stty sane"
        person.type(f"{take}; echo do''ne\r")
        await person.until("ready")
        await person.paste(data)
        await person.until("done")
    found = await asyncio.to_thread(got.read_bytes)
    assert hashlib.sha256(found).digest() == hashlib.sha256(data).digest()


@pytest.mark.parametrize("kind", KINDS)
async def test_what_is_shown_is_exact(world: World, kind: str, tmp_path: Path) -> None:
    """NF-05: every byte that the host prints, as it is."""
    data = b"begin" + os.urandom(MIB // 4) + "漢ü\x1b[31m\x9b\x07 end".encode()
    (tmp_path / "data").write_bytes(data)
    async with sitting() as person:
        await open_shell(world, person, kind=kind)
        take = f"stty raw -echo; cat {tmp_path}/data; stty sane"
        person.type(f"{take}; echo do''ne\r")
        await person.until("(?s) end.*done")
        assert data in person.said
        await leave(person)


@pytest.mark.parametrize("kind", KINDS)
async def test_who_comes_in_the_middle_sees_each_line_once(
    world: World, kind: str, tmp_path: Path
) -> None:
    """NF-05, NF-01: the screen as it stands, and then what follows it."""
    stop = tmp_path / "stop"
    step = "echo n$i; i=$((i+1)); [ $((i % 20)) != 0 ] || sleep 0.01"
    async with sitting() as person:
        await open_shell(world, person, kind=kind)
        person.type(f"i=0; until [ -e {stop} ]; do {step}; done; echo ov''er\r")
        for _ in range(4):
            await person.until(r"n\d+\r\n")
            async with sitting() as watcher:
                await begin(world, watcher, "attach", "work", "--watch")
                for _ in range(100):
                    await watcher.until(r"n\d+\r\n")
                # The last one may be on its way still.
                seen = numbers(watcher.said)[:-1]
                assert seen == list(range(seen[0], seen[0] + len(seen)))
        stop.touch()
        await person.until("over")
        await leave(person)


def numbers(said: bytes) -> list[int]:
    """Return the numbers that a very long screen shows."""
    screen = pyte.Screen(80, 8000)
    pyte.ByteStream(screen).feed(said)
    rows = "\n".join(row.rstrip() for row in screen.display)
    return [int(found) for found in re.findall(r"^n(\d+)$", rows, re.MULTILINE)]


async def test_a_daemon_that_stops_waits_for_no_person(world: World) -> None:
    """NF-05: told at once, with the terminal set back."""
    async with sitting() as person:
        before = person.mode()
        await open_shell(world, person, kind="remote")
        async with asyncio.timeout(40):
            await asyncio.to_thread(world.stop)
        await person.until("the daemon is stopping")
        assert await person.ended() == 255
        assert person.mode() == before


async def test_what_is_kept_on_the_host_is_listed_and_wiped(world: World) -> None:
    """NF-09: whichever daemon made it."""
    async with sitting() as person:
        await open_shell(world, person, kind="remote")
        await leave(person)
    listed = json.loads((await cli(world, "sessions", "--on", "box", "--json")).stdout)
    (kept,) = [one for one in listed["kept"] if one["name"] == "work"]
    assert (kept["kind"], kept["state"]) == ("session", "running")
    told = await cli(world, "sessions", "--on", "box", "--wipe", kept["id"])
    assert told.returncode == 1
    assert b"still runs" in told.stderr
    told = await cli(world, "sessions", "--on", "box", "--wipe-all", "--force")
    assert told.returncode == 0
    listed = json.loads((await cli(world, "sessions", "--on", "box", "--json")).stdout)
    assert listed.get("kept", []) == []


async def test_what_was_seen_is_played_back(world: World) -> None:
    """OB-06: also after the session has ended."""
    async with sitting() as person:
        await open_shell(world, person)
        person.type("printf '\\033[31m%s\\033[0m\\n' se''en\r")
        await person.until(r"\x1b\[31mseen")
        person.type("exit\r")
        await person.ended()
    told = await cli(world, "replay", "work", "--speed", "1000")
    assert told.returncode == 0
    assert b"\x1b[31mseen\x1b[0m\r\n" in told.stdout
    raw = await cli(world, "replay", "work", "--raw")
    assert json.loads(raw.stdout.splitlines()[0])["version"] == 3


async def test_of_sessions_that_had_a_name_the_newest_is_played(world: World) -> None:
    """OB-06: not the one that ran shortest."""
    for line in ("echo fir''st; exit", "echo sec''ond; sleep 3; exit"):
        async with sitting() as person:
            await open_shell(world, person)
            person.type(f"{line}\r")
            assert await person.ended() == 0
    told = await cli(world, "replay", "work", "--speed", "1000")
    assert b"second" in told.stdout
    assert b"first" not in told.stdout


@pytest.mark.parametrize("kind", KINDS)
async def test_what_starts_a_command_is_not_played_back(
    world: World, kind: str
) -> None:
    """OB-06: the lines that only holdfast types; the command, and its output, are."""
    async with sitting() as person:
        await open_shell(world, person, kind=kind)
        await leave(person)
    async with connected(world, "claude") as agent:
        for number in range(3):
            assert (await run(agent, f"echo out-{number}")).exit_code == 0
    await cli(world, "sessions", "--close", "work")
    raw = await cli(world, "replay", "work", "--raw")
    told = await cli(world, "replay", "work", "--speed", "1000")
    assert told.returncode == 0
    ours = re.compile(rb"'/[a-z]\b")
    assert ours.search(raw.stdout) is not None
    assert ours.search(told.stdout) is None
    for number in range(3):
        assert b"$ echo out-%d" % number in told.stdout
        assert b"out-%d\r\n" % number in told.stdout


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_typed_before_a_signal_is_typed(
    world: World, tmp_path: Path, kind: str
) -> None:
    """NF-05: a terminal's end, or a TERM, does not take the last line with it."""
    async with sitting() as person:
        await open_shell(world, person, kind=kind)
        await leave(person)
    for number in range(3):
        mark = tmp_path / f"typed-{number}"
        async with sitting() as person:
            await begin(world, person, "attach", "work")
            person.type(f"touch {mark}\r")
            assert person.process is not None
            person.process.send_signal(signal.SIGTERM)
            assert await person.ended() == 128 + signal.SIGTERM
            await soon(mark.exists, "the line that was typed last")


async def test_what_was_never_begun_on_a_host_is_wiped_too(
    world: World, sshd: Sshd
) -> None:
    """SE-21: what was left half-made is listed, and one being made is not."""
    home = Path(sshd.options["SetEnv"].removeprefix("HOME="))
    room = home / ".cache" / "holdfast" / "kept"
    old, new = room / "shalfmade", room / "sjustmade"
    oldest = room / "slongago"
    for place in (old, new, oldest):
        place.mkdir(parents=True)
    os.utime(oldest, (0, 0))
    before = time.time() - 600
    os.utime(old, (before, before))
    listed = json.loads((await cli(world, "sessions", "--on", "box", "--json")).stdout)
    (kept,) = listed["kept"]
    assert (kept["id"], kept["state"], kept["why"]) == (
        "shalfmade",
        "lost",
        "unfinished",
    )
    assert not oldest.exists()
    told = await cli(world, "sessions", "--on", "box", "--wipe-all")
    assert told.returncode == 0, told
    assert not old.exists()
    assert new.exists()
    new.rmdir()
