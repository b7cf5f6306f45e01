"""A terminal's size reaches its session: late, after a failure, and only the newest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from fakes.playhouse import Playhouse, Stage
from fakes.served import info_of, metadata
from fakes.terminal import sitting
from fakes.watch import moment
from fakes.world import program
from holdfast.v1 import exec_pb2, session_pb2, session_pb2_grpc
from holdfast_daemon.errors import LinkError, Reason
from holdfast_daemon.rpc import fitting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

Request = session_pb2.AttachSessionRequest
ME = metadata(name="cli", version="1", instance="me", person=True)
OTHER = metadata(name="cli", version="1", instance="other", person=True)


class Slow:
    """Stands before a session's resize: holds it up, has it fail, counts."""

    def __init__(self, stage: Stage, patch: pytest.MonkeyPatch) -> None:
        self._resize = stage.resize
        self.go = asyncio.Event()
        self.go.set()
        self.asked: list[tuple[int, int]] = []
        self.at_once = self.most = 0
        self.failures: list[Exception] = []
        self._changed = asyncio.Condition()
        patch.setattr(stage, "resize", self)

    async def __call__(self, cols: int, rows: int) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        async with self._changed:
            self.asked.append((cols, rows))
            self._changed.notify_all()
        try:
            await self.go.wait()
            if self.failures:
                raise self.failures.pop(0)
            await self._resize(cols, rows)
        finally:
            self.at_once -= 1

    async def was_asked(self, times: int) -> None:
        async with asyncio.timeout(40), self._changed:
            await self._changed.wait_for(lambda: len(self.asked) >= times)


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        yield one


@pytest.fixture
async def stage(house: Playhouse) -> Stage:
    return await house.open("build")


@pytest.fixture
def slow(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Slow:
    return Slow(stage, monkeypatch)


@pytest.fixture
async def stub(house: Playhouse) -> AsyncIterator[Any]:
    async with grpc.aio.insecure_channel(f"unix:{house.socket}") as channel:
        yield session_pb2_grpc.SessionServiceStub(channel)


def sized(cols: int, rows: int) -> Request:
    return Request(size=exec_pb2.TerminalSize(cols=cols, rows=rows))


async def begin(stub: Any, who: Any = ME, size: tuple[int, int] = (80, 24)) -> Any:
    call = stub.AttachSession(metadata=who)
    cols, rows = size
    start = session_pb2.AttachStart(
        session="build", size=exec_pb2.TerminalSize(cols=cols, rows=rows)
    )
    await call.write(Request(start=start))
    assert (await call.read()).HasField("attached")
    return call


async def quiet(slow: Slow) -> None:
    """Return once no other size is asked for any more."""
    async with asyncio.timeout(40):
        before = -1
        while before < len(slow.asked):
            before = len(slow.asked)
            for _ in range(25):
                await moment()


def failed() -> LinkError:
    return LinkError(Reason.CONNECTION_LOST, "the link was lost")


async def test_a_size_that_was_not_taken_is_given_again(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20, NF-05: a host that fails once is asked once more, without a key typed."""
    call = await begin(stub)
    slow.failures = [failed(), failed()]
    await call.write(sized(77, 22))
    await stage.until(lambda: (stage.cols, stage.rows) == (77, 22))
    assert slow.asked == [(77, 22)] * 3
    call.cancel()


async def test_only_the_newest_size_is_given(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20: never two at once; those between are left out."""
    call = await begin(stub)
    slow.go.clear()
    await call.write(sized(90, 30))
    await slow.was_asked(1)
    for number in range(20):
        await call.write(sized(100 + number, 40))
    await call.write(sized(77, 22))
    # after so many frames they are all in
    await call.write(Request(keys=b"echo a''ll\r"))
    await stage.until(lambda: b"all" in stage.output)
    slow.go.set()
    await stage.until(lambda: (stage.cols, stage.rows) == (77, 22))
    assert slow.most == 1
    assert (slow.asked[0], slow.asked[-1]) == ((90, 30), (77, 22))
    assert len(slow.asked) <= 3
    call.cancel()


async def test_keys_do_not_wait_for_a_size(
    stub: Any, stage: Stage, slow: Slow, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NF-05: a host that does not answer holds up no key."""
    monkeypatch.setattr(fitting, "_AHEAD_SECONDS", 0.05)
    call = await begin(stub)
    slow.go.clear()
    await call.write(sized(77, 22))
    await slow.was_asked(1)
    await call.write(Request(keys=b"echo ty''ped\r"))
    await stage.until(lambda: b"typed" in stage.output)
    assert stage.cols == 80
    slow.go.set()
    await stage.until(lambda: stage.cols == 77)
    call.cancel()


async def test_a_size_is_not_forced_on_who_has_the_keyboard(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20, NF-04: one's own terminal fits again once one types."""
    call = await begin(stub)
    other = await begin(stub, OTHER, (90, 30))
    await stage.until(lambda: stage.cols == 90)
    while True:
        frame = await call.read()
        if frame.HasField("keyboard") and not frame.keyboard.yours:
            break
    asked = len(slow.asked)
    await call.write(sized(77, 22))
    await other.write(sized(91, 31))
    await stage.until(lambda: stage.cols == 91)
    assert (77, 22) not in slow.asked[asked:]
    await call.write(Request(keys=b"x"))
    await stage.until(lambda: (stage.cols, stage.rows) == (77, 22))
    call.cancel()
    other.cancel()


async def test_who_is_left_has_their_size_again(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20, NF-04: without a key typed, once the other person has gone."""
    call = await begin(stub)
    other = await begin(stub, OTHER, (90, 30))
    async with asyncio.timeout(40):
        for _ in (call, other):
            await stage.watching.acquire()
    await stage.until(lambda: stage.cols == 90)
    await other.write(Request(detach=True))
    await stage.until(lambda: (stage.cols, stage.rows) == (80, 24))
    await quiet(slow)
    call.cancel()
    other.cancel()


async def test_a_size_that_an_agent_gives_does_not_stay(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20, NF-04: while a person has the keyboard it is theirs."""
    call = await begin(stub)
    for _ in range(3):
        await stage.resize(120, 24)
        await stage.until(lambda: (stage.cols, stage.rows) == (80, 24))
    await quiet(slow)
    call.cancel()
    await stage.until(lambda: not stage.keyboard.client)
    await stage.resize(120, 24)
    assert stage.cols == 120


async def test_a_size_given_while_one_arrives_does_not_stay(
    stub: Any, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-20, NF-04: before one is told what happens."""
    draw = stage.picture

    async def picture() -> tuple[bytes, int]:
        await stage.resize(120, 24)
        return await draw()

    monkeypatch.setattr(stage, "picture", picture)
    call = await begin(stub)
    await stage.until(lambda: (stage.cols, stage.rows) == (80, 24))
    call.cancel()


async def test_two_that_both_have_the_keyboard_do_not_fight_for_ever(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """SE-20, NF-04: two terminals of one instance, both of which have it."""
    call = await begin(stub)
    twin = await begin(stub, ME, (90, 30))
    await twin.write(sized(77, 22))
    await slow.was_asked(5)
    await quiet(slow)
    assert len(slow.asked) < 40
    assert (stage.cols, stage.rows) in {(80, 24), (77, 22)}
    call.cancel()
    twin.cancel()


async def test_a_fault_of_ours_ends_the_call_and_is_told(
    stub: Any, stage: Stage, slow: Slow
) -> None:
    """NF-05: a person's keys never go nowhere without a word."""
    call = await begin(stub)
    slow.failures = [RuntimeError("broken")]
    await call.write(sized(77, 22))

    async def read() -> None:
        while await call.read() is not grpc.aio.EOF:
            continue

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await asyncio.wait_for(read(), 20)
    assert info_of(caught.value).reason == "INTERNAL"
    assert not stage.keyboard.client


async def test_a_size_changed_while_one_arrives_is_not_missed(
    house: Playhouse, stage: Stage
) -> None:
    """SE-20, NF-05: before the command line listens for it."""
    async with sitting() as person:
        person.resize(101, 31)
        await person.run(program("holdfast"), "attach", "build", env=house.environment)
        person.resize(77, 22)
        await stage.until(lambda: (stage.cols, stage.rows) == (77, 22))
        person.type("\r~.")
        assert await person.ended() == 0
