"""What is recorded of a kept session, and its size, over a daemon that is killed."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fakes.gate import Gate
from fakes.restarting import crash
from fakes.sshd import Sshd
from fakes.tools import served, tools
from fakes.watch import connected, soon
from holdfast.v1 import exec_pb2, session_pb2, session_pb2_grpc
from holdfast_daemon.clock import SystemClock
from holdfast_daemon.ids import SessionId
from holdfast_daemon.limits import Limits
from holdfast_daemon.secrets import Redactor
from holdfast_daemon.session.about import About
from holdfast_daemon.session.archive import Archive
from holdfast_daemon.session.observer import Observers
from holdfast_daemon.session.shell import Durability, Plan
from holdfast_shim.client import metadata_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakes.world import World
    from holdfast_daemon.session.session import Session

LINE = b"first\r\nunfin"
REST = b"ished\r\n$ "


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Sshd]:
    home = tmp_path / "remote-home"
    home.mkdir()
    with Sshd(tmp_path / "sshd", options={"SetEnv": f"HOME={home}"}) as one:
        yield one


async def test_a_line_that_was_half_recorded_is_whole(
    host: Sshd, tmp_path: Path
) -> None:
    """SE-16, NF-20: what the killed daemon had kept and not recorded is there."""
    gate = Gate(tmp_path / "gate")
    with served(host) as world:
        async with tools(world) as ssh:
            told = await ssh.told(
                "ssh_session_open", target="box", durability="remote", shell="/bin/sh"
            )
            session, transcript = told["session_id"], Path(told["transcript_path"])
            await ssh.told(
                "ssh_session_write",
                session=session,
                input=f"printf unf''in; {gate.wait}; echo ish''ed\n",
                wait_seconds=20,
                until="unfin$",
            )
            output = transcript.with_name("output")
            await soon(lambda: kept(output, b"unfin"), "it is kept")
        await asyncio.to_thread(crash, world)
        async with tools(world) as ssh:
            gate.open()
            told = await ssh.told(
                "ssh_session_read", session=session, wait_seconds=20, until="ished"
            )
            assert told["matched"] is True
            await ssh.told("ssh_session_close", session=session, force=True)
        text = await asyncio.to_thread(transcript.read_text)
        assert text.count("unfinished\n") == 1


def kept(output: Path, data: bytes) -> bool:
    """Whether it is in the output on disk, as what came last."""
    return any(data in path.read_bytes()[-100:] for path in output.glob("*"))


def archive_in(directory: Path, limits: Limits) -> Archive:
    observers = Observers(directory, socket=directory / "d.sock")
    return Archive(
        directory / "sessions",
        limits,
        SystemClock(),
        redactor=Redactor(),
        observers=observers,
    )


async def made(archive: Archive) -> Session:
    clock = SystemClock()
    about = About(
        id=SessionId("s1"),
        name="one",
        target="box",
        address="me@box",
        client="test/1",
        plan=Plan("", "", {}, 80, 24),
        durability=Durability.REMOTE,
        opened=clock.now(),
        begun=clock.monotonic(),
        idle_timeout=0,
        auto_close=False,
    )
    session = await archive.make(about, "box")
    await archive.keep(session)
    return session


async def after_a_kill(directory: Path, limits: Limits) -> Session:
    """Return it as the next daemon finds it, while the last one's is left alone."""
    later = directory / "later"
    await asyncio.to_thread(shutil.copytree, directory / "sessions", later / "sessions")
    (session,) = await archive_in(later, limits).recover()
    return session


async def text_of(session: Session) -> str:
    await session.close()
    path = session.recording.transcript_path
    return await asyncio.to_thread(path.read_text)


async def test_what_was_kept_and_not_recorded_is_recorded_late(tmp_path: Path) -> None:
    """SE-16, OB-06: bytes that are safe here do not come from the host again."""
    before = await made(archive_in(tmp_path, Limits()))
    before.printed(LINE)
    assert await before.spool.sync()
    after = await after_a_kill(tmp_path, Limits())
    assert after.spool.end == len(LINE)
    after.printed(REST)
    assert await text_of(after) == "first\nunfinished\n$ "
    await before.close()


async def test_what_was_recorded_and_not_kept_is_recorded_once(tmp_path: Path) -> None:
    """SE-16, OB-06: it comes from the host again."""
    slow = Limits(flush_seconds=60)
    before = await made(archive_in(tmp_path, slow))
    before.printed(LINE)
    await before.recording.sync()
    after = await after_a_kill(tmp_path, slow)
    assert after.spool.end == 0
    for start in range(0, len(LINE + REST), 3):
        after.printed((LINE + REST)[start : start + 3])
    assert await text_of(after) == "first\nunfinished\n$ "
    await before.close()


async def test_a_line_that_rested_is_whole_in_the_transcript(tmp_path: Path) -> None:
    """SE-16: its beginning is in the recording, and in no transcript yet."""
    before = await made(archive_in(tmp_path, Limits()))
    before.printed(LINE)
    cast = before.recording.path
    await soon(cast.exists, "a recording")
    await soon(lambda: "unfin" in cast.read_text(), "it rested")
    assert await before.spool.sync()
    after = await after_a_kill(tmp_path, Limits())
    after.printed(REST)
    assert await text_of(after) == "first\nunfinished\n$ "
    shown = await asyncio.to_thread(after.recording.path.read_text)
    assert shown.count("unfin") == 1
    await before.close()


async def test_what_is_recorded_late_has_a_bound(tmp_path: Path) -> None:
    """OB-06: a daemon that starts does not wait for it, and tells what is missing."""
    before = await made(archive_in(tmp_path, Limits()))
    await before.recording.close()
    line = b"y" * 78 + b"\r\n"
    for _ in range(30):
        before.printed(line * 1000)
        assert await before.spool.sync()
    after = await after_a_kill(tmp_path, Limits())
    found = await text_of(after)
    assert 1_000_000 < len(found) < 1_100_000
    shown = await asyncio.to_thread(after.recording.path.read_text)
    assert "1,351,424 bytes of output are not recorded" in shown
    await before.close()


async def size_of(world: World, session: str, cols: int = 0, rows: int = 0) -> Any:
    """Take part in a session, from a terminal of that size; return the session's."""
    async with connected(world) as client:
        stub = session_pb2_grpc.SessionServiceStub(client.channel)
        client.context.person = True
        call: Any = stub.AttachSession(metadata=metadata_of(client.context, ""))
        size = exec_pb2.TerminalSize(cols=cols, rows=rows)
        start = session_pb2.AttachStart(session=session, size=size, watch=not cols)
        await call.write(session_pb2.AttachSessionRequest(start=start))
        frame = await call.read()
        call.cancel()
    return frame.attached.size.cols, frame.attached.size.rows


async def test_its_size_is_on_record(host: Sshd) -> None:
    """SE-20, NF-20: the next daemon draws its screen as its terminal is."""
    with served(host) as world:
        async with tools(world) as ssh:
            told = await ssh.told(
                "ssh_session_open", target="box", durability="remote", shell="/bin/sh"
            )
            session = told["session_id"]
            record = Path(told["transcript_path"]).with_name("session.json")

            def rests() -> bool:
                return time.time() - record.stat().st_mtime > 1

            # what was read is noted a moment later, with all that is known then
            await soon(rests, "all is noted")
            assert await size_of(world, session, 101, 31) == (101, 31)

            def noted() -> bool:
                plan = json.loads(record.read_text())["plan"]
                return (plan["cols"], plan["rows"]) == (101, 31)

            await soon(noted, "its size is noted")
        await asyncio.to_thread(crash, world)
        assert await size_of(world, session) == (101, 31)
        async with tools(world) as ssh:
            await ssh.told("ssh_session_close", session=session, force=True)
