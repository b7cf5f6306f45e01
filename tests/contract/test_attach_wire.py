"""`AttachSession` on the wire: wrong frames, wrong callers, slow and silent ones."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fakes.playhouse import Playhouse, Stage
from fakes.served import info_of, metadata
from holdfast.v1 import exec_pb2, session_pb2, session_pb2_grpc
from holdfast_daemon.errors import LinkError, Ran, Reason
from holdfast_daemon.session.frame import KeyboardChanged

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Request = session_pb2.AttachSessionRequest
START = Request(start=session_pb2.AttachStart(session="build"))
WATCH = Request(start=session_pb2.AttachStart(session="build", watch=True))
ME = metadata(name="cli", version="1", instance="me", person=True)


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        yield one


@pytest.fixture
async def stage(house: Playhouse) -> Stage:
    return await house.open("build")


@pytest.fixture
async def stub(house: Playhouse) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{house.socket}") as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)


async def begin(stub: Any, start: Request = START, who: Any = ME) -> Any:
    """Attach and return the call, its first frame read."""
    call = stub.AttachSession(metadata=who)
    await call.write(start)
    frame = await call.read()
    assert frame.HasField("attached")
    return call


async def until(call: Any, kind: str) -> Any:
    """Return the next frame of a kind."""
    async with asyncio.timeout(40):
        while True:
            frame = await call.read()
            assert frame is not grpc.aio.EOF, f"it ended before {kind}"
            if frame.WhichOneof("frame") == kind:
                return getattr(frame, kind)


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    async with asyncio.timeout(40):
        try:
            while await call.read() is not grpc.aio.EOF:
                continue
        except grpc.aio.AioRpcError as error:
            return error
    pytest.fail("it was not refused")


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        (Request(keys=b"x"), "start"),
        (Request(), "start"),
        (Request(start=session_pb2.AttachStart()), "start.session"),
    ],
)
async def test_a_first_frame_that_is_no_start_is_refused(
    stub: Any, stage: Stage, frame: Request, field: str
) -> None:
    call = stub.AttachSession(metadata=ME)
    await call.write(frame)
    info = info_of(await refusal(call))
    assert (info.reason, info.metadata["ran"]) == ("INVALID_ARGUMENT", "no")
    assert info.metadata["field"] == field
    assert not stage.keyboard.client


async def test_only_a_person_takes_part(stub: Any, stage: Stage) -> None:
    """NF-05: no agent gets the keyboard this way, nor a session it may not see."""
    for who in (metadata(name="claude"), metadata(name="claude", read_only=True)):
        call = stub.AttachSession(metadata=who)
        await call.write(START)
        error = await refusal(call)
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
    who = metadata(name="cli", instance="x", person=True, allowed_hosts=["db*"])
    call = stub.AttachSession(metadata=who)
    await call.write(START)
    assert info_of(await refusal(call)).reason == "HOST_NOT_ALLOWED"
    assert not stage.keyboard.client


async def test_an_unknown_session_is_named(stub: Any, stage: Stage) -> None:
    call = stub.AttachSession(metadata=ME)
    await call.write(Request(start=session_pb2.AttachStart(session="nosuch")))
    error = await refusal(call)
    assert info_of(error).reason == "SESSION_NOT_FOUND"
    assert "nosuch" in str(error.details())


@pytest.mark.parametrize("frame", [Request(keys=b"x"), START])
async def test_what_a_watcher_must_not_send_ends_the_call(
    stub: Any, stage: Stage, frame: Request
) -> None:
    call = await begin(stub, WATCH)
    await call.write(frame)
    assert info_of(await refusal(call)).reason == "INVALID_ARGUMENT"
    assert stage.typed == b""
    assert not stage.keyboard.client


async def test_the_keyboard_is_taken_from_an_agent_and_who_had_it_is_told(
    stub: Any, stage: Stage
) -> None:
    """NF-04, NF-05: at any time; it is free again when the person leaves."""
    await stage.tell(KeyboardChanged("claude/2", "agent", "2026-11-21T08:00:00Z"))
    call = stub.AttachSession(metadata=ME)
    await call.write(START)
    attached = (await call.read()).attached
    assert attached.holder.client == "claude/2"
    assert (stage.keyboard.client, stage.keyboard.person) == ("cli/1", True)
    assert (await until(call, "keyboard")).yours
    await call.write(Request(detach=True))
    await until(call, "detached")
    await stage.until(lambda: not stage.keyboard.client)


@pytest.mark.timed
@pytest.mark.parametrize("how", ["detach", "end of input", "cancel"])
async def test_however_one_leaves_the_keyboard_is_free(
    stub: Any, stage: Stage, how: str
) -> None:
    """SE-14: and the session goes on."""
    call = await begin(stub)
    assert stage.keyboard.instance == "me"
    if how == "detach":
        await call.write(Request(detach=True))
    elif how == "end of input":
        await call.done_writing()
    else:
        call.cancel()
    async with asyncio.timeout(2):
        await stage.until(lambda: not stage.keyboard.client)
    assert stage.running


async def test_keys_that_a_lost_host_did_not_get_are_told_and_one_may_go_on(
    stub: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-09: nothing is typed twice, and nothing is silently dropped."""
    call = await begin(stub)
    real = stage.type

    async def lost(*_: object) -> None:
        raise LinkError(Reason.CONNECTION_LOST, "the link was lost", ran=Ran.NO)

    monkeypatch.setattr(stage, "type", lost)
    await call.write(Request(keys=b"x"))
    assert await until(call, "away") == "not typed: the link was lost"
    monkeypatch.setattr(stage, "type", real)
    await call.write(Request(keys=b"y"))
    await stage.until(lambda: stage.typed == b"y")
    await call.write(Request(detach=True))
    await until(call, "detached")


async def test_the_last_size_that_was_told_is_the_one_of_who_types(
    stub: Any, stage: Stage
) -> None:
    """SE-20: of two, the session has the size of the one who types."""
    you = metadata(name="cli", version="1", instance="you", person=True)
    mine = await begin(
        stub,
        Request(
            start=session_pb2.AttachStart(
                session="build", size=exec_pb2.TerminalSize(cols=100, rows=30)
            )
        ),
    )
    yours = await begin(
        stub,
        Request(
            start=session_pb2.AttachStart(
                session="build", size=exec_pb2.TerminalSize(cols=60, rows=20)
            )
        ),
        you,
    )
    assert (stage.cols, stage.rows) == (60, 20)
    while (await until(mine, "keyboard")).yours:
        continue
    await mine.write(Request(size=exec_pb2.TerminalSize(cols=110, rows=33)))
    await mine.write(Request(keys=b"x"))
    await stage.until(lambda: stage.cols == 110)
    for call in (mine, yours):
        await call.write(Request(detach=True))
        await until(call, "detached")


async def test_who_reads_nothing_holds_nobody(stub: Any, stage: Stage) -> None:
    """NF-03: a watcher that stalls costs neither the session nor the others."""
    stalled = await begin(stub, WATCH)
    call = await begin(stub)
    await call.write(Request(keys=b"yes | head -c 6000000; echo; echo do''ne\n"))
    async with asyncio.timeout(100):
        while b"done" not in (await until(call, "output")).data:
            continue
    await call.write(Request(detach=True))
    await until(call, "detached")
    stalled.cancel()


async def test_an_ended_session_shows_its_screen_and_its_end(
    house: Playhouse, stub: Any
) -> None:
    stage = await house.open("build", "sh", "-c", "echo last words; exit 3")
    await stage.until(lambda: not stage.running)
    call = stub.AttachSession(metadata=ME)
    await call.write(START)
    attached = (await call.read()).attached
    assert b"last words" in attached.screen
    end = await until(call, "end")
    assert (end.exit_code, end.exit_reason) == (3, "exited")
    assert await call.read() is grpc.aio.EOF


async def test_a_daemon_that_stops_ends_the_call_at_once(
    house: Playhouse, stub: Any, stage: Stage
) -> None:
    call = await begin(stub)
    house.servicer.close()
    info = info_of(await refusal(call))
    assert info.reason == "DRAINING"
    await stage.until(lambda: not stage.keyboard.client)
    assert stage.running
