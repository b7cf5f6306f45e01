from __future__ import annotations

import asyncio
import os
import random
import resource
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from holdfast_daemon.errors import LimitError
from holdfast_daemon.output.spool import Slice, Spool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

OUT, ERR = Stream.OUT, Stream.ERR
KIB = 1024


pytestmark = pytest.mark.usefixtures("collected")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx():
        yield


@contextmanager
def soft_limit(kind: int, value: int) -> Generator[None]:
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))


def make(directory: Path) -> Spool:
    return Spool(
        directory,
        limit_bytes=1024 * KIB,
        segment_bytes=64 * KIB,
        backlog_bytes=64 * KIB,
        flush_seconds=0.001,
    )


def recover(directory: Path) -> Spool:
    return Spool.recover(
        directory,
        limit_bytes=1024 * KIB,
        segment_bytes=64 * KIB,
        backlog_bytes=64 * KIB,
    )


async def everything(spool: Spool) -> list[Slice]:
    slices: list[Slice] = []
    position = 0
    while position < spool.end:
        slices.append(await spool.read(position, 10_000))
        assert slices[-1].next_offset > position
        position = slices[-1].next_offset
    return slices


def joined(slices: list[Slice]) -> bytes:
    return b"".join(piece.data for found in slices for piece in found.pieces)


def agrees(slices: list[Slice], content: bytes) -> bool:
    """Whether each piece stands where it was appended and the gaps are told exactly."""
    position = 0
    for found in slices:
        if found.offset != position + found.skipped:
            return False
        data = b"".join(piece.data for piece in found.pieces)
        if data != content[found.offset : found.next_offset]:
            return False
        position = found.next_offset
    return position == len(content)


async def test_a_disk_that_refuses_neither_wedges_nor_hides_it(tmp_path: Path) -> None:
    """A5-18: no place to write; the command runs on, the newest output can be read."""
    await asyncio.to_thread((tmp_path / "job").write_text, "a file in the way")
    spool = make(tmp_path / "job")
    content = random.Random(3).randbytes(640 * KIB)
    async with asyncio.timeout(20):
        for at in range(0, len(content), KIB):
            spool.append(OUT, content[at : at + KIB])
            if at % (32 * KIB) == 0:
                await spool.sync()
            if spool.full:
                await spool.drained()
    assert "Not a directory" in spool.fault
    assert not spool.full
    assert spool.backlog <= 64 * KIB
    slices = await everything(spool)
    assert agrees(slices, content)
    assert len(joined(slices)) >= 8 * KIB
    assert await spool.tail(OUT, KIB) == content[-KIB:]
    assert (spool.end, spool.bytes_of(OUT)) == (len(content), len(content))


async def test_a_disk_that_accepts_again_is_used_again(tmp_path: Path) -> None:
    """A5-18: recovery without a restart, and the fault goes when nothing was lost."""
    await asyncio.to_thread((tmp_path / "job").write_text, "a file in the way")
    spool = make(tmp_path / "job")
    spool.append(OUT, b"kept in memory\n")
    await spool.sync()
    assert spool.fault == "the output can't be written to disk: Not a directory"
    assert joined(await everything(spool)) == b"kept in memory\n"
    await asyncio.to_thread((tmp_path / "job").unlink)
    spool.append(OUT, b"more\n")
    async with asyncio.timeout(30):
        while spool.backlog:
            await spool.sync()
    assert spool.fault == ""
    spool.close()
    await spool.sync()
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert (back.fault, joined(await everything(back))) == (
        "",
        b"kept in memory\nmore\n",
    )


async def test_what_its_host_keeps_too_is_waited_for(tmp_path: Path) -> None:
    """A5-18, SE-02: nothing goes for a disk that refuses: who prints it has to wait."""
    await asyncio.to_thread((tmp_path / "job").write_text, "a file in the way")
    spool = make(tmp_path / "job")
    spool.patient = True
    content = random.Random(7).randbytes(80 * KIB)
    for at in range(0, len(content), 8 * KIB):
        spool.append(OUT, content[at : at + 8 * KIB])
        assert not await spool.sync()
    assert spool.full
    drained = asyncio.create_task(spool.drained())
    spool.close()
    assert not await spool.sync()
    assert (spool.backlog, drained.done()) == (len(content), False)
    await asyncio.to_thread((tmp_path / "job").unlink)
    async with asyncio.timeout(30):
        while spool.backlog:
            await spool.sync()
        await drained
    assert (spool.fault, spool.backlog, spool.full) == ("", 0, False)
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert joined(await everything(back)) == content


async def test_nobody_waits_for_what_was_deleted(tmp_path: Path) -> None:
    """A5-18: who wants it safe before a host forgets it would ask without an end."""
    await asyncio.to_thread((tmp_path / "job").write_text, "a file in the way")
    spool = make(tmp_path / "job")
    spool.patient = True
    spool.append(OUT, b"x")
    assert not await spool.sync()
    await spool.remove()
    assert await spool.sync()


async def test_a_file_that_may_not_grow_keeps_what_was_whole(tmp_path: Path) -> None:
    """A5-18: a write that stops half-way (RLIMIT_FSIZE) leaves no torn frame."""
    spool = make(tmp_path / "job")
    content = random.Random(4).randbytes(100 * KIB)
    spool.append(OUT, content[: 20 * KIB])
    await spool.sync()
    with soft_limit(resource.RLIMIT_FSIZE, 33_333):
        for at in range(20 * KIB, 60 * KIB, 10 * KIB):
            spool.append(OUT, content[at : at + 10 * KIB])
            await spool.sync()
        assert "File too large" in spool.fault
    for at in range(60 * KIB, 100 * KIB, 10 * KIB):
        spool.append(ERR, content[at : at + 10 * KIB])
        await spool.sync()
    spool.close()
    await spool.sync()
    assert spool.backlog == 0
    slices = await everything(spool)
    assert agrees(slices, content)
    assert joined(slices).startswith(content[: 20 * KIB])
    assert joined(slices).endswith(content[60 * KIB :])
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert await everything(back) == slices
    assert (back.end, back.lines_of(OUT)) == (spool.end, spool.lines_of(OUT))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a file system of 200 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", "size=200k,mode=700", "tmpfs", str(place)]
    if subprocess.run(["mount", *options], check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_loses_the_oldest_only(small_disk: Path) -> None:
    """A5-18: ENOSPC on a real file system; it goes on after space is made."""
    spool = make(small_disk / "job")
    content = random.Random(5).randbytes(600 * KIB)
    for at in range(0, 400 * KIB, 4 * KIB):
        spool.append(OUT, content[at : at + 4 * KIB])
        await spool.sync()
    assert "No space left on device" in spool.fault
    await asyncio.to_thread(_delete_first_file, small_disk / "job")
    for at in range(400 * KIB, 600 * KIB, 4 * KIB):
        spool.append(OUT, content[at : at + 4 * KIB])
        await spool.sync()
    spool.close()
    await spool.sync()
    assert spool.end == len(content)
    slices = await everything(spool)
    assert agrees(slices, content)
    assert len(joined(slices)) >= 100 * KIB
    assert await spool.tail(OUT, KIB) == content[-KIB:]


def _delete_first_file(directory: Path) -> None:
    min(directory.iterdir()).unlink()


async def test_too_few_descriptors_are_told_and_lose_nothing(tmp_path: Path) -> None:
    """A5-18: a read without a free descriptor is refused, not answered with a gap."""
    spool = make(tmp_path / "job")
    spool.append(OUT, b"x" * 1000)
    await spool.sync()
    with soft_limit(resource.RLIMIT_NOFILE, 3), pytest.raises(LimitError):
        await spool.read(0, 10)
    assert joined(await everything(spool)) == b"x" * 1000
    assert spool.fault == ""


async def lay(directory: Path, segments: int = 5) -> bytes:
    """Write a closed spool of several segments."""
    spool = make(directory)
    content = random.Random(6).randbytes(segments * 60 * KIB)
    for at in range(0, len(content), 20 * KIB):
        spool.append(OUT if at % 3 else ERR, content[at : at + 20 * KIB])
        await spool.sync()
    spool.close()
    await spool.sync()
    return content


async def test_garbage_beside_the_segments_is_passed_over(tmp_path: Path) -> None:
    content = await lay(tmp_path / "job")

    def spoil() -> None:
        (tmp_path / "job" / "notes.txt").write_text("not ours")
        (tmp_path / "job" / "1.seg").write_text("no segment's name")
        (tmp_path / "job" / ("9" * 20 + ".seg")).write_bytes(b"\1garbage" * 100)
        (tmp_path / "job" / ("8" * 20 + ".seg")).touch()
        (tmp_path / "job" / ("7" * 20 + ".seg")).mkdir()
        (tmp_path / "job" / ("6" * 20 + ".seg")).symlink_to("/etc/passwd")

    await asyncio.to_thread(spoil)
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert joined(await everything(back)) == content
    assert back.fault.count("unreadable") == 4


async def test_a_missing_segment_is_told_and_skipped(tmp_path: Path) -> None:
    content = await lay(tmp_path / "job")
    paths = await asyncio.to_thread(lambda: sorted((tmp_path / "job").iterdir()))
    await asyncio.to_thread(paths[1].unlink)
    start, end = int(paths[1].stem), int(paths[2].stem)
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert f"{end - start} bytes from position {start} are missing" in back.fault
    slices = await everything(back)
    assert agrees(slices, content)
    assert sum(found.skipped for found in slices) == end - start
    for stream in Stream:
        assert content.endswith(await back.tail(OUT, 100))
        assert await back.head(stream, 100)


async def test_a_cut_segment_in_the_middle_is_told_and_skipped(tmp_path: Path) -> None:
    content = await lay(tmp_path / "job")
    paths = await asyncio.to_thread(lambda: sorted((tmp_path / "job").iterdir()))
    await asyncio.to_thread(os.truncate, paths[2], 30_000)
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert "are missing" in back.fault
    assert agrees(await everything(back), content)


async def test_a_segment_that_vanishes_while_in_use_is_told_and_skipped(
    tmp_path: Path,
) -> None:
    content = await lay(tmp_path / "job")
    back = await asyncio.to_thread(recover, tmp_path / "job")
    paths = await asyncio.to_thread(lambda: sorted((tmp_path / "job").iterdir()))
    await asyncio.to_thread(paths[1].unlink)
    await asyncio.to_thread(paths[3].write_bytes, b"\7" * 100_000)
    await asyncio.to_thread(os.truncate, paths[2], 30_000)
    assert len(await back.tail(OUT, 10**6)) > 0
    slices = await everything(back)
    assert agrees(slices, content)
    assert "No such file or directory" in back.fault
    assert "damaged on disk" in back.fault


async def test_a_directory_that_is_none_is_told(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "job").write_text, "a file")
    back = await asyncio.to_thread(recover, tmp_path / "job")
    assert (back.end, back.closed) == (0, True)
    assert "can't be read" in back.fault
    await back.remove()
    assert "could not be deleted" in back.fault


async def test_an_ended_job_keeps_little_in_memory_when_the_disk_refuses(
    tmp_path: Path,
) -> None:
    await asyncio.to_thread((tmp_path / "job").write_text, "a file in the way")
    spool = make(tmp_path / "job")
    content = random.Random(7).randbytes(60 * KIB)
    for at in range(0, len(content), KIB):
        spool.append(OUT, content[at : at + KIB])
    spool.close()
    await spool.sync()
    await spool.sync()
    assert 0 < spool.backlog <= 32 * KIB
    assert await spool.tail(OUT, KIB) == content[-KIB:]
    assert agrees(await everything(spool), content)
