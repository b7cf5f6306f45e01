from __future__ import annotations

import asyncio
import hashlib
import os
import random
import stat
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from holdfast_daemon.output.spool import Piece, Slice, Spool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUT, ERR = Stream.OUT, Stream.ERR
KIB = 1024
MIB = 1024 * KIB


pytestmark = pytest.mark.usefixtures("collected")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx():
        yield


def make(
    directory: Path,
    *,
    limit: int = 64 * MIB,
    segment: int = MIB,
    backlog: int = 2 * MIB,
    flush: float = 0.1,
) -> Spool:
    return Spool(
        directory,
        limit_bytes=limit,
        segment_bytes=segment,
        backlog_bytes=backlog,
        flush_seconds=flush,
    )


async def recovered(directory: Path) -> Spool:
    return await asyncio.to_thread(
        Spool.recover,
        directory,
        limit_bytes=64 * MIB,
        segment_bytes=MIB,
        backlog_bytes=2 * MIB,
    )


async def everything(spool: Spool, page: int = 64 * KIB) -> list[Slice]:
    slices: list[Slice] = []
    position = 0
    while position < spool.end:
        found = await spool.read(position, page)
        assert found.next_offset > position
        slices.append(found)
        position = found.next_offset
    return slices


def joined(slices: list[Slice], stream: Stream | None = None) -> bytes:
    return b"".join(
        piece.data
        for found in slices
        for piece in found.pieces
        if stream in {None, piece.stream}
    )


async def test_both_streams_share_one_order_of_arrival(tmp_path: Path) -> None:
    """EX-01: stdout and stderr apart, in the order they came."""
    spool = make(tmp_path / "job")
    spool.append(OUT, b"one\n")
    spool.append(ERR, b"two\n")
    spool.append(OUT, b"three\n")
    found = await spool.read(0, 100)
    assert found.pieces == (
        Piece(OUT, b"one\n"),
        Piece(ERR, b"two\n"),
        Piece(OUT, b"three\n"),
    )
    assert (found.offset, found.next_offset, found.end) == (0, 14, 14)
    assert (await spool.read(2, 4)).pieces == (Piece(OUT, b"e\n"), Piece(ERR, b"tw"))


@pytest.mark.parametrize("on_disk", [False, True])
async def test_one_stream_is_read_without_the_other(
    tmp_path: Path, on_disk: bool
) -> None:
    spool = make(tmp_path / "job")
    for number in range(100):
        spool.append(OUT, b"out %d\n" % number)
        spool.append(ERR, b"err %d\n" % number)
    if on_disk:
        await spool.sync()
        assert spool.backlog == 0
    errors = b"".join(b"err %d\n" % number for number in range(100))
    found = await spool.read(0, 10, ERR)
    assert found.pieces == (Piece(ERR, errors[:10]),)
    rest = await spool.read(found.next_offset, 10_000, ERR)
    assert joined([rest]) == errors[10:]
    assert rest.next_offset == spool.end
    assert (spool.bytes_of(ERR), spool.lines_of(ERR)) == (len(errors), 100)


async def test_a_short_output_needs_no_file_until_it_ends(tmp_path: Path) -> None:
    spool = make(tmp_path / "job", flush=3600)
    spool.append(OUT, b"hello\n")
    assert joined(await everything(spool)) == b"hello\n"
    assert not await asyncio.to_thread((tmp_path / "job").exists)
    spool.close()
    await spool.sync()
    assert spool.backlog == 0
    assert joined(await everything(spool)) == b"hello\n"
    assert len(await asyncio.to_thread(list, (tmp_path / "job").iterdir())) == 1


async def test_an_empty_output_makes_no_file(tmp_path: Path) -> None:
    spool = make(tmp_path / "job")
    spool.append(OUT, b"")
    spool.close()
    await spool.sync()
    assert (spool.end, spool.earliest, spool.last_line, spool.fault) == (0, 0, "", "")
    assert not await asyncio.to_thread((tmp_path / "job").exists)
    back = await recovered(tmp_path / "job")
    assert (back.end, back.closed, back.fault) == (0, True, "")


async def test_a_slow_output_reaches_the_disk_without_being_asked(
    tmp_path: Path,
) -> None:
    spool = make(tmp_path / "job", flush=0.01)
    spool.append(OUT, b"tick\n")
    async with asyncio.timeout(30):
        back = await recovered(tmp_path / "job")
        while back.end == 0:
            back = await recovered(tmp_path / "job")
    assert joined(await everything(back)) == b"tick\n"
    await spool.sync()
    assert spool.backlog == 0
    assert "position 5 is lost" in back.fault


async def test_files_are_private(tmp_path: Path) -> None:
    spool = make(tmp_path / "deep" / "job")
    spool.append(OUT, b"secret\n")
    spool.close()
    await spool.sync()

    def modes() -> list[int]:
        deep = tmp_path / "deep"
        paths = [deep, deep / "job", *(deep / "job").iterdir()]
        return [stat.S_IMODE(path.stat().st_mode) for path in paths]

    assert await asyncio.to_thread(modes) == [0o700, 0o700, 0o600]


async def test_an_offset_beyond_the_end_counts_as_the_end(tmp_path: Path) -> None:
    spool = make(tmp_path / "job")
    spool.append(OUT, b"abc")
    found = await spool.read(1000, 10)
    assert (found.pieces, found.offset, found.next_offset) == ((), 3, 3)
    assert found.skipped == 0


async def test_the_oldest_segments_go_at_the_cap_and_the_reader_is_told(
    tmp_path: Path,
) -> None:
    """EX-14: discarded output is told by exact positions."""
    spool = make(tmp_path / "job", limit=256 * KIB, segment=64 * KIB, backlog=128 * KIB)
    content = random.Random(1).randbytes(2 * MIB)
    for at in range(0, len(content), 8 * KIB):
        spool.append(OUT if at % 3 else ERR, content[at : at + 8 * KIB])
        if spool.full:
            await spool.drained()
    spool.close()
    await spool.sync()
    earliest = spool.earliest
    assert 0 < len(content) - earliest <= 256 * KIB
    assert len(content) - earliest > 128 * KIB
    found = await spool.read(100, 10)
    assert (found.offset, found.skipped) == (earliest, earliest - 100)
    assert joined(await everything(spool)) == content[earliest:]
    assert spool.bytes_of(OUT) + spool.bytes_of(ERR) == len(content)

    def size() -> int:
        return sum(path.stat().st_size for path in (tmp_path / "job").iterdir())

    assert await asyncio.to_thread(size) == spool.disk_bytes <= 256 * KIB
    back = await recovered(tmp_path / "job")
    assert (back.earliest, back.end, back.fault) == (earliest, len(content), "")
    for stream in (OUT, ERR):
        assert back.bytes_of(stream) == spool.bytes_of(stream)
        assert back.lines_of(stream) == spool.lines_of(stream)
    assert joined(await everything(back)) == content[earliest:]


async def test_head_and_tail_of_one_stream(tmp_path: Path) -> None:
    """EX-14: head, tail and last lines of what is kept."""
    spool = make(tmp_path / "job", segment=4 * KIB, backlog=64 * KIB)
    wanted = b""
    for number in range(3000):
        line = b"line %d\n" % number
        wanted += line
        spool.append(OUT, line)
        spool.append(ERR, b"noise\n" if number < 1500 else b"")
        if spool.full:
            await spool.sync()
    assert await spool.head(OUT, 100) == wanted[:100]
    for size in (1, 99, 5000, 10**6):
        assert await spool.tail(OUT, size) == wanted[-size:]
    assert await spool.tail(ERR, 7) == b"\nnoise\n"
    assert await spool.tail_lines(OUT, 3, 10**6) == wanted[wanted.index(b"line 2997") :]
    assert await spool.tail_lines(OUT, 10**5, 10**6) == wanted
    assert await spool.tail_lines(OUT, 10**5, 20) == wanted[-20:]
    assert await spool.tail_lines(OUT, 0, 20) == b""
    spool.append(OUT, b"open")
    assert await spool.tail_lines(OUT, 1, 100) == b"open"
    assert spool.lines_of(OUT) == 3001


@pytest.mark.parametrize("on_disk", [False, True])
async def test_a_tail_keeps_within_its_positions(tmp_path: Path, on_disk: bool) -> None:
    spool = make(tmp_path / "job", segment=100, backlog=64 * KIB)
    for number in range(100):
        spool.append(OUT, b"%05d" % number)
        spool.append(ERR, b"-----")
    if on_disk:
        await spool.sync()
    # OUT has the positions 0-4, 10-14, …: 00000 ----- 00001 ----- 00002
    assert await spool.tail(OUT, 1000, since=983) == b"98" + b"00099"
    assert await spool.tail(OUT, 1000, since=12, until=33) == b"001" + b"00002" + b"000"
    assert await spool.tail(OUT, 5, since=12, until=33) == b"02000"
    assert await spool.tail(OUT, 1000, since=995) == b""


async def test_growth_wakes_every_waiter_and_no_cancelled_one(tmp_path: Path) -> None:
    """NF-03: any number of cursors wait without polling."""
    spool = make(tmp_path / "job")
    waiters = [asyncio.create_task(spool.grown(0)) for _ in range(50)]
    far = asyncio.create_task(spool.grown(100))
    await asyncio.sleep(0)
    waiters[0].cancel()
    spool.append(OUT, b"x")
    async with asyncio.timeout(30):
        await asyncio.gather(*waiters[1:])
        with pytest.raises(asyncio.CancelledError):
            await waiters[0]
        assert not far.done()
        await spool.grown(0)
        spool.close()
        await far
        await spool.grown(10**9)


async def test_a_full_backlog_asks_to_wait_and_drains(tmp_path: Path) -> None:
    """EX-12: a fast command waits for the disk; memory stays flat."""
    spool = make(tmp_path / "job", backlog=64 * KIB)
    while not spool.full:
        spool.append(OUT, b"x" * 1000)
    assert spool.backlog <= 64 * KIB + 1000
    async with asyncio.timeout(30):
        await asyncio.gather(spool.drained(), spool.drained())
    assert spool.backlog < 32 * KIB
    assert not spool.full
    await spool.drained()


async def test_who_does_not_wait_loses_the_oldest_and_is_told(tmp_path: Path) -> None:
    """EX-12: memory is bounded even by an appender that never waits."""
    spool = make(tmp_path / "job", backlog=64 * KIB)
    for number in range(10_000):
        spool.append(OUT, b"%07d\n" % number * 16)
        assert spool.backlog <= 3 * 64 * KIB
    assert "were not kept: the disk is too slow" in spool.fault
    spool.close()
    await spool.sync()
    slices = await everything(spool)
    kept, skipped = len(joined(slices)), sum(found.skipped for found in slices)
    assert kept + skipped == spool.end == 10_000 * 128
    assert f"{skipped} bytes" in spool.fault
    assert joined(slices).endswith(b"0009999\n")
    back = await recovered(tmp_path / "job")
    assert joined(await everything(back)) == joined(slices)
    assert "are missing" in back.fault


async def test_tiny_alternating_writes_stay_small_in_memory(tmp_path: Path) -> None:
    """EX-12: 100,000 one-byte writes on both streams in turn."""
    spool = make(tmp_path / "job")
    for number in range(100_000):
        spool.append(OUT if number % 2 else ERR, b"oe"[number % 2 : number % 2 + 1])
        if spool.full:
            await spool.drained()
    spool.close()
    await spool.sync()
    assert joined(await everything(spool), OUT) == b"e" * 50_000
    assert joined(await everything(spool, 1000), ERR) == b"o" * 50_000
    assert await spool.tail(ERR, 10) == b"o" * 10


async def test_one_long_line_needs_no_newline(tmp_path: Path) -> None:
    spool = make(tmp_path / "job", limit=4 * MIB)
    for _ in range(16):
        spool.append(OUT, b"x" * MIB)
        await spool.drained()
    spool.close()
    await spool.sync()
    assert (spool.end, spool.lines_of(OUT), spool.fault) == (16 * MIB, 1, "")
    assert spool.end - spool.earliest <= 4 * MIB
    assert await spool.tail_lines(OUT, 1, 100) == b"x" * 100


async def test_a_reader_during_a_flood_gets_every_byte_once(tmp_path: Path) -> None:
    """NF-03, EX-12: three cursors of different pace beside one appender."""
    spool = make(tmp_path / "job", segment=256 * KIB, backlog=512 * KIB)
    source = random.Random(2)
    blocks = [source.randbytes(source.randrange(1, 40_000)) for _ in range(600)]
    digest = hashlib.sha256()

    async def produce() -> None:
        for number, block in enumerate(blocks):
            digest.update(block)
            spool.append(OUT if number % 5 else ERR, block)
            if spool.full:
                await spool.drained()
            elif number % 7 == 0:
                await asyncio.sleep(0)
        spool.close()

    async def consume(page: int) -> str:
        seen, position = hashlib.sha256(), 0
        while not (spool.closed and position == spool.end):
            await spool.grown(position)
            found = await spool.read(position, page)
            assert (found.offset, found.skipped) == (position, 0)
            for piece in found.pieces:
                seen.update(piece.data)
                position += len(piece.data)
            assert found.next_offset == position
        return seen.hexdigest()

    async with asyncio.timeout(50), asyncio.TaskGroup() as group:
        group.create_task(produce())
        readers = [group.create_task(consume(page)) for page in (999, 64 * KIB, MIB)]
    assert {reader.result() for reader in readers} == {digest.hexdigest()}


async def test_the_last_line_is_the_newest_that_is_not_blank(tmp_path: Path) -> None:
    """EX-15: progress shows the last line of output, cleaned."""
    spool = make(tmp_path / "job")
    spool.append(OUT, b"first\n\x1b[32m 10%\r 20%\x1b[0m")
    assert spool.last_line == "20%"
    spool.append(ERR, b"warn")
    spool.append(ERR, b"ing: \xc3\xa9\n\n")
    assert spool.last_line == "warning: é"
    spool.append(OUT, b"\n  \n" + b"y" * 10_000)
    assert spool.last_line == "y" * 199 + "…"


async def test_what_comes_after_the_end_is_ignored_and_told(tmp_path: Path) -> None:
    spool = make(tmp_path / "job")
    spool.append(OUT, b"abc")
    spool.close()
    spool.close()
    spool.append(OUT, b"late")
    assert spool.end == 3
    assert "4 bytes came after the end" in spool.fault


async def test_a_removed_spool_leaves_nothing(tmp_path: Path) -> None:
    spool = make(tmp_path / "job")
    spool.append(OUT, b"x" * MIB)
    waiter = asyncio.create_task(spool.grown(2 * MIB))
    await asyncio.sleep(0)
    await spool.remove()
    async with asyncio.timeout(30):
        await waiter
    assert not await asyncio.to_thread((tmp_path / "job").exists)
    found = await spool.read(0, 100)
    assert (found.pieces, found.skipped) == ((), MIB)
    assert (spool.backlog, spool.fault) == (0, "")
    await spool.remove()


async def test_removal_spares_what_others_put_there(tmp_path: Path) -> None:
    spool = make(tmp_path)
    await asyncio.to_thread((tmp_path / "job.json").write_text, "{}")
    spool.append(OUT, b"x")
    spool.close()
    await spool.sync()
    await spool.remove()
    assert await asyncio.to_thread(os.listdir, tmp_path) == ["job.json"]


async def test_a_cancelled_sync_does_not_stop_the_writing(tmp_path: Path) -> None:
    spool = make(tmp_path / "job", flush=3600)
    spool.append(OUT, b"x" * MIB)
    task = asyncio.create_task(spool.sync())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    spool.append(OUT, b"end")
    spool.close()
    async with asyncio.timeout(30):
        await spool.sync()
    assert joined(await everything(spool)) == b"x" * MIB + b"end"


async def test_a_page_in_a_segment_of_tiny_frames_is_found_again(
    tmp_path: Path,
) -> None:
    """NF-03: cursors that take turns, backwards too, see the same bytes."""
    spool = make(tmp_path / "job")
    for number in range(4000):
        spool.append(OUT if number % 2 else ERR, b"%04d" % number)
    await spool.sync()
    whole = b"".join(b"%04d" % number for number in range(4000))
    positions = list(range(0, len(whole), 333))
    forward = [joined([await spool.read(at, 333)]) for at in positions]
    assert b"".join(forward) == whole
    backward = [joined([await spool.read(at, 333)]) for at in reversed(positions)]
    assert b"".join(reversed(backward)) == whole
