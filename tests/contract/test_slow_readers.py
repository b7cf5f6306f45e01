"""Who reads what the command line prints may take their time, or stand still."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import struct
import termios
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from fakes import forked
from fakes.nursery import CLI
from fakes.playhouse import Playhouse
from fakes.watch import PATIENCE, moment

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable
    from pathlib import Path

    from holdfast_daemon.session.frame import Frame

DEVNULL, PIPE = asyncio.subprocess.DEVNULL, asyncio.subprocess.PIPE
# More than a pipe takes, and what is read ahead.
PIECE = "x" * 8000
PIECES = 400
# What one who leaves waits for at most, and what a busy machine adds to that.
LEAVING = 20.0
# More than that, of which nothing is left out here.
LONG = 4.0
# What did not grow for so long has come to its end.
STILL = 0.3
TIMES = 4


@pytest.fixture
async def house(short_path: Path) -> AsyncIterator[Playhouse]:
    async with Playhouse(short_path) as one:
        yield one


def waiting(descriptor: int) -> int:
    """Return how many bytes are there to be read."""
    packed = fcntl.ioctl(descriptor, termios.FIONREAD, b"\0" * 4)
    return int(struct.unpack("i", packed)[0])


@asynccontextmanager
async def unread(
    house: Playhouse, *words: str
) -> AsyncGenerator[tuple[asyncio.subprocess.Process, int]]:
    """Start the command line; yield its process and what reads its stdout."""
    source, sink = os.pipe()
    try:
        try:
            process = await forked.begin(
                CLI,
                "--no-autostart",
                *words,
                env=house.environment,
                streams=(DEVNULL, sink, PIPE),
            )
        finally:
            os.close(sink)
        try:
            yield process, source
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()
    finally:
        os.close(source)


async def still(count: Callable[[], int], *, least: int) -> None:
    """Return when a count of at least so many stands still."""
    last = -1
    async with asyncio.timeout(PATIENCE):
        while not least <= count() == last:
            last = count()
            await asyncio.sleep(STILL)


async def full(source: int) -> None:
    """Return when the pipe takes no more; how much fits depends on the pieces."""
    await still(lambda: waiting(source), least=40_000)


def recording(directory: Path) -> Path:
    """Write a recording of more than a pipe takes."""
    file = directory / "x.cast"
    lines: list[object] = [{"version": 3, "term": {"cols": 80, "rows": 24}}]
    lines += [[0, "o", PIECE]] * PIECES
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.parametrize("much", [PIECES, 12], ids=["playing", "played"])
async def test_a_signal_ends_a_replay_that_nobody_reads(
    house: Playhouse, much: int
) -> None:
    """OB-06: whether all of it has been played by then or not."""
    file = recording(house.root)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[: much + 1]))
    async with unread(house, "replay", str(file)) as (process, source):
        await full(source)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LEAVING):
            assert await process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("words", [["--json"], ["--watch"]])
async def test_a_signal_ends_a_look_at_a_session_that_nobody_reads(
    house: Playhouse, words: list[str]
) -> None:
    """NF-05: it must not take a second, harder one."""
    stage = await house.open("loud", "sh", "-c", "read x; yes")
    async with unread(house, "attach", "loud", *words) as (process, source):
        await stage.watching.acquire()
        await stage.feed(b"\n")
        await full(source)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(LEAVING):
            assert await process.wait() == 128 + signal.SIGTERM


@pytest.mark.parametrize("words", [["--json"], ["--watch"]])
async def test_all_that_a_session_showed_arrives_however_late_it_is_read(
    house: Playhouse, words: list[str]
) -> None:
    """NF-05: it was cut off 2 s after the end, and told to be a success."""
    script = "read x; seq 14000; echo l''ast; exit 3"
    stage = await house.open("long", "sh", "-c", script)
    async with unread(house, "attach", "long", *words) as (process, source):
        await stage.watching.acquire()
        await stage.feed(b"\n")
        await full(source)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(process.wait(), LONG)

        def rest() -> bytes:
            with open(source, "rb", closefd=False) as file:
                return file.read()

        shown = await asyncio.to_thread(rest)
        assert await process.wait() == 3
        assert b"13999" in shown
        assert b"last" in shown


class Given:
    """Counts what a session gave to one who watches it."""

    def __init__(self, watch: Callable[[int], AsyncGenerator[Frame]]) -> None:
        self._watch = watch
        self._count = 0

    def frames(self) -> int:
        return self._count

    async def watch(self, offset: int) -> AsyncGenerator[Frame]:
        async for frame in self._watch(offset):
            self._count += 1
            yield frame


async def test_a_reader_that_is_killed_is_no_fault_of_the_daemon(
    house: Playhouse, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """OB-01, NF-05: a frame that could not be sent was recorded as an incident."""
    for number in range(TIMES):
        name = f"loud{number}"
        stage = await house.open(name, "sh", "-c", "read x; seq 900000; read x")
        given = Given(stage.watch)
        monkeypatch.setattr(stage, "watch", given.watch)
        async with unread(house, "attach", name, "--watch") as (process, _):
            await stage.watching.acquire()
            await stage.feed(b"\n")
            await still(given.frames, least=30)
            process.kill()
    async with asyncio.timeout(PATIENCE):
        while len(await ends(house)) < TIMES:
            await moment()
    assert {record["result"] for record in await ends(house)} == {"cancelled"}
    assert "incident" not in caplog.text


async def ends(house: Playhouse) -> list[dict[str, Any]]:
    """Return what is recorded of the looks that are over."""
    return [one for one in await house.records() if one["phase"] == "end"]
