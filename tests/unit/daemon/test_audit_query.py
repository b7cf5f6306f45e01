from __future__ import annotations

import asyncio
import json
import threading
from contextlib import aclosing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.audit import a_record, audit_log, records
from fakes.watch import soon
from holdfast_daemon.audit import cursor, files, query
from holdfast_daemon.audit.snapshot import snapshot

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Generator

    from holdfast_daemon.audit.chain import AuditLog
    from holdfast_daemon.audit.snapshot import Snapshot


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
async def log(directory: Path) -> AsyncIterator[AuditLog]:
    """Rotates about every 25 records and keeps 40 files."""
    log = audit_log(directory, file_bytes=10_000, files=40)
    await log.open()
    yield log
    await log.close()


async def append(log: AuditLog, numbers: range) -> None:
    await asyncio.gather(*(log.append(a_record(n)) for n in numbers))


def seqs(lines: list[str]) -> list[int]:
    return [json.loads(line)["seq"] for line in lines]


def test_a_log_that_never_was_is_told(directory: Path) -> None:
    assert not query.verify(directory).intact
    with pytest.raises(FileNotFoundError):
        list(query.read(directory))


async def test_an_empty_log_is_intact(log: AuditLog, directory: Path) -> None:
    assert query.verify(directory) == query.Verdict(intact=True, records=0, faults=())
    assert list(query.read(directory)) == []
    assert list(query.read(directory, 5)) == []


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (0, range(1, 101)),
        (1, range(100, 101)),
        (30, range(71, 101)),
        (100, range(1, 101)),
        (5000, range(1, 101)),
    ],
)
async def test_the_newest_records_are_read_oldest_first(
    log: AuditLog, directory: Path, last: int, expected: range
) -> None:
    """OB-01: across rotated files."""
    await append(log, range(100))
    assert len(files.numbers(directory)) > 2
    assert seqs(list(query.read(directory, last))) == list(expected)


async def test_every_number_of_records_can_be_asked_for(
    log: AuditLog, directory: Path
) -> None:
    await append(log, range(60))
    for last in range(1, 61):
        found = seqs(list(query.read(directory, last)))
        assert found == list(range(61 - last, 61))


async def test_a_line_is_read_as_it_stands_in_the_log(
    log: AuditLog, directory: Path
) -> None:
    await log.append(a_record(command="a\u2028b\x0bc"))
    (line,) = query.read(directory)
    assert line + "\n" == (directory / files.CURRENT).read_text()


async def test_a_flood_of_faults_is_cut(log: AuditLog, directory: Path) -> None:
    log_of_one = audit_log(directory.with_name("other"))
    await log_of_one.open()
    await append(log_of_one, range(500))
    await log_of_one.close()
    path = log_of_one.directory / files.CURRENT
    path.write_bytes(path.read_bytes().replace(b"echo", b"Echo"))
    verdict = query.verify(log_of_one.directory)
    assert len(verdict.faults) == 101
    assert verdict.faults[-1] == "and 400 more"


async def test_what_is_dropped_while_it_is_read_is_read_all_the_same(
    directory: Path,
) -> None:
    """`read` once went from name to name, and lost what was dropped meanwhile."""
    log = audit_log(directory, file_bytes=10_000, files=3)
    await log.open()
    await append(log, range(60))
    lines = query.read(directory)
    found = [next(lines)]
    await append(log, range(60, 400))
    found += lines
    await log.close()
    assert seqs(found) == list(range(1, 61))


async def test_a_log_that_is_being_written_is_never_taken_for_a_broken_one(
    log: AuditLog, directory: Path
) -> None:
    """OB-05: verify and read beside a writer that rotates all the time."""
    over = threading.Event()

    def look() -> tuple[int, list[str]]:
        checks, faults = 0, list[str]()
        while not over.is_set() or checks < 5:
            verdict = query.verify(directory)
            faults += verdict.faults
            found = seqs(list(query.read(directory)))
            assert found == list(range(found[0], found[-1] + 1)) if found else True
            checks += 1
        return checks, faults

    looking = asyncio.ensure_future(asyncio.to_thread(look))
    for start in range(0, 1500, 10):
        await append(log, range(start, start + 10))
    over.set()
    checks, faults = await looking
    assert checks >= 5
    assert faults == []


async def take(stream: AsyncGenerator[str, None], count: int) -> list[str]:
    lines: list[str] = []
    async with aclosing(stream):
        async for line in stream:
            lines.append(line)
            if len(lines) == count:
                break
    return lines


async def test_a_follower_misses_nothing_across_rotations(
    log: AuditLog, directory: Path
) -> None:
    """OB-01: follow beside a writer; each record once and in order."""
    await append(log, range(40))
    streams = [query.follow(log, last) for last in (0, 1, 40, 25)]
    firsts = [await anext(stream) for stream in streams]
    assert seqs(firsts) == [1, 40, 1, 16]
    rests = [
        asyncio.create_task(take(stream, 800 - first))
        for stream, first in zip(streams, seqs(firsts), strict=True)
    ]
    for start in range(40, 800, 20):
        await append(log, range(start, start + 20))
    for rest, first in zip(rests, seqs(firsts), strict=True):
        assert seqs(await rest) == list(range(first + 1, 801))
    assert len(files.numbers(directory)) > 20


async def test_a_follower_waits_for_posted_records_too(log: AuditLog) -> None:
    follower = asyncio.create_task(take(query.follow(log), 3))
    for number in range(3):
        log.post(a_record(number))
        await asyncio.sleep(0)
    assert seqs(await follower) == [1, 2, 3]


async def test_a_follower_ends_with_the_log(directory: Path) -> None:
    log = audit_log(directory)
    await log.open()
    follower = asyncio.create_task(take(query.follow(log), 1000))
    await append(log, range(5))
    await log.close()
    assert seqs(await follower) == [1, 2, 3, 4, 5]


async def test_a_follower_that_is_too_slow_finds_the_gap_in_seq(
    directory: Path,
) -> None:
    log = audit_log(directory, file_bytes=10_000, files=3)
    await log.open()
    await append(log, range(10))
    stream = query.follow(log)
    found = [await anext(stream)]
    await append(log, range(10, 400))
    await log.close()
    found += [line async for line in stream]
    numbers = seqs(found)
    kept = records(directory)[0]["seq"]
    assert numbers[:10] == list(range(1, 11))
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 400
    assert kept in numbers


async def test_many_followers_come_and_go(log: AuditLog) -> None:
    for _ in range(20):
        stream = query.follow(log, 1)
        waiting = asyncio.ensure_future(anext(stream))
        await log.append(a_record())
        assert await waiting
        await stream.aclose()
    assert not vars(log)["_watchers"]


@pytest.mark.parametrize("name", ["20261121", "01", "0", "1.gz", "٣"])
async def test_a_copy_that_somebody_made_is_none_of_ours(
    directory: Path, name: str
) -> None:
    """OB-01: one with a date was counted up to, deleted, or stopped the log."""
    copy = directory / f"{files.CURRENT}.{name}"
    log = audit_log(directory, file_bytes=10_000, files=3)
    await log.open()
    await append(log, range(10))
    copy.write_text("mine")
    await append(log, range(10, 200))
    assert log.error == ""
    verdict = await asyncio.to_thread(query.verify, directory)
    assert verdict.intact, verdict.faults
    assert seqs(list(query.read(directory, 1))) == [200]
    await log.close()
    assert copy.read_text() == "mine"
    assert files.numbers(directory) == [1, 2]


@pytest.mark.parametrize("turn", [0, 1])
async def test_a_follower_that_leaves_keeps_no_descriptor(
    log: AuditLog, directory: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """OB-01: who leaves while a thread opens or reads files gives them all back."""
    await append(log, range(5))
    before = _descriptors(directory)
    there, go_on = threading.Event(), threading.Event()
    turns = iter(range(100))

    @contextmanager
    def slowly(directory: Path) -> Generator[Snapshot]:
        with snapshot(directory) as now:
            if next(turns) == turn:
                there.set()
                go_on.wait(20)
            yield now

    monkeypatch.setattr(cursor, "snapshot", slowly)
    follower = asyncio.create_task(take(query.follow(log), 1000))
    assert await asyncio.to_thread(there.wait, 20)
    follower.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(follower, return_exceptions=True)
    assert follower.cancelled()

    await soon(lambda: _descriptors(directory) == before, "all are given back")


def _descriptors(directory: Path) -> list[str]:
    """Return which files of the log this process has open."""
    found: list[str] = []
    for one in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.append(str(one.readlink()))
    return sorted(name for name in found if name.startswith(str(directory)))
