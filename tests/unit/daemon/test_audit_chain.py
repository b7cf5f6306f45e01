from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fakes.audit import a_record, audit_log, block, records, unblock
from holdfast_daemon.audit import files, query, store
from holdfast_daemon.audit.chain import AuditError, AuditLog
from holdfast_daemon.audit.record import Phase
from holdfast_daemon.secrets import Redactor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

RECORDS = 1200


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
async def log(directory: Path) -> AsyncIterator[AuditLog]:
    log = audit_log(directory)
    await log.open()
    yield log
    await log.close()


async def fill(directory: Path, count: int, *, file_bytes: int, keep: int) -> None:
    log = audit_log(directory, file_bytes=file_bytes, files=keep)
    await log.open()
    await asyncio.gather(*(log.append(a_record(n)) for n in range(1, count + 1)))
    await log.close()


def paths(directory: Path) -> list[Path]:
    """All files of records, oldest first."""
    numbers = [0, *files.numbers(directory)]
    return [files.rotated(directory, number) for number in reversed(numbers)]


def modes(directory: Path) -> dict[str, int]:
    return {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (directory, *directory.iterdir())
    }


async def test_a_record_is_in_the_file_when_append_returns(
    log: AuditLog, directory: Path
) -> None:
    """OB-01: write before work; JSON lines with the fields of the requirement."""
    await log.append(
        a_record(
            7,
            phase=Phase.END,
            result="exited",
            exit_code=3,
            duration_ms=12,
            error="none",
            metadata={"stdout_length": 5},
        )
    )
    line = json.loads((directory / files.CURRENT).read_text())
    assert list(line) == [
        "seq",
        "timestamp",
        "event_type",
        "phase",
        "call_id",
        "client",
        "principal",
        "tool",
        "server_name",
        "command",
        "result",
        "exit_code",
        "duration_ms",
        "error",
        "metadata",
        "prev",
        "hash",
    ]
    assert line["timestamp"].endswith("Z")
    assert line["seq"] == 1
    assert line["metadata"] == {"stdout_length": 5}


async def test_what_does_not_apply_is_left_out(log: AuditLog, directory: Path) -> None:
    await log.append(a_record(server_name=None, command=None))
    (line,) = records(directory)
    assert not {"server_name", "command", "exit_code", "result"} & line.keys()


async def test_files_are_private(log: AuditLog, directory: Path) -> None:
    """SC-11: directory 0700, files 0600."""
    await log.append(a_record())
    assert modes(directory) == {
        "audit": 0o700,
        files.CURRENT: 0o600,
        files.HEAD: 0o600,
    }


async def test_secrets_are_not_recorded(directory: Path) -> None:
    """SC-12: known secrets are cut from command, error and metadata."""
    redactor = Redactor()
    redactor.add("hunter22")
    log = audit_log(directory, redactor=redactor)
    await log.open()
    await log.append(
        a_record(
            command="mysql -phunter22",
            error="no hunter22",
            metadata={"list": ["hunter22"], "map": {"k": "hunter22"}},
        )
    )
    await log.close()
    assert "hunter22" not in (directory / files.CURRENT).read_text()


async def test_any_text_can_be_recorded(log: AuditLog, directory: Path) -> None:
    text = "\ud800 \u2028 \x00 \x1b[0m \n ü"
    await log.append(a_record(command=text))
    (line,) = records(directory)
    assert line["command"] == text
    await log.flush()
    assert query.verify(directory).intact


async def test_records_stand_in_the_order_they_were_handed_over(
    log: AuditLog, directory: Path
) -> None:
    waits = [asyncio.ensure_future(log.append(a_record(n))) for n in range(2000)]
    await asyncio.gather(*waits)
    found = records(directory)
    assert [line["seq"] for line in found] == list(range(1, 2001))
    assert [line["call_id"] for line in found] == [f"c{n}" for n in range(2000)]


async def test_a_posted_record_is_written_behind_those_before_it(
    log: AuditLog, directory: Path
) -> None:
    log.post(a_record(1))
    await log.append(a_record(2))
    assert [line["call_id"] for line in records(directory)] == ["c1", "c2"]


async def test_the_chain_goes_on_after_a_restart(directory: Path) -> None:
    for _ in range(3):
        await fill(directory, 5, file_bytes=10_000_000, keep=10)
    assert [line["seq"] for line in records(directory)] == list(range(1, 16))
    assert query.verify(directory) == query.Verdict(intact=True, records=15, faults=())


async def test_only_so_many_files_are_kept_and_the_rest_stays_verifiable(
    directory: Path,
) -> None:
    """OB-01: rotation; the first kept record is anchored, so dropping is no fault."""
    await fill(directory, 400, file_bytes=10_000, keep=3)
    kept = paths(directory)
    assert [p.name for p in kept] == ["audit.jsonl.2", "audit.jsonl.1", "audit.jsonl"]
    assert all(path.stat().st_size <= 10_000 for path in kept)
    found = records(directory)
    assert found[0]["seq"] > 1
    assert found[-1]["seq"] == 400
    assert query.verify(directory).intact


async def test_a_smaller_number_of_files_takes_effect_at_the_next_rotation(
    directory: Path,
) -> None:
    await fill(directory, 400, file_bytes=10_000, keep=8)
    await fill(directory, 60, file_bytes=10_000, keep=2)
    assert len(paths(directory)) == 2
    assert query.verify(directory).intact


async def test_a_record_larger_than_a_file_gets_one_of_its_own(directory: Path) -> None:
    log = audit_log(directory, file_bytes=10_000, files=5)
    await log.open()
    for number, size in enumerate((10, 50_000, 10)):
        await log.append(a_record(number, command="x" * size))
    await log.close()
    assert len(paths(directory)) == 3
    assert query.verify(directory).records == 3


@pytest.fixture(scope="module")
def kept_log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of more than a thousand records in several files, some dropped already."""
    directory = tmp_path_factory.mktemp("kept") / "audit"
    asyncio.run(fill(directory, RECORDS + 300, file_bytes=60_000, keep=9))
    assert query.verify(directory).intact
    assert query.verify(directory).records >= 1000
    assert len(files.numbers(directory)) == 8
    assert records(directory)[0]["seq"] > 1
    return directory


@pytest.fixture
def intact(kept_log: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "audit"
    shutil.copytree(kept_log, directory)
    return directory


def every_case(directory: Path, seed: int, count: int) -> Iterator[random.Random]:
    """Yield `count` times; whatever was changed meanwhile is put back."""
    chance = random.Random(seed)
    before = {path: path.read_bytes() for path in directory.iterdir()}
    for _ in range(count):
        yield chance
        for path, data in before.items():
            if not path.exists() or path.read_bytes() != data:
                path.write_bytes(data)
    assert query.verify(directory).intact


def test_every_flipped_bit_is_found(intact: Path) -> None:
    """OB-05: any bit of any record in any file, and of the head."""
    targets = [*paths(intact), intact / files.HEAD]
    for chance in every_case(intact, 1, 120):
        path = chance.choice(targets)
        data = bytearray(path.read_bytes())
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        path.write_bytes(data)
        assert not query.verify(intact).intact


def remove(lines: list[bytes], at: int, _: random.Random) -> None:
    del lines[at]


def double(lines: list[bytes], at: int, _: random.Random) -> None:
    lines.insert(at, lines[at])


def swap(lines: list[bytes], at: int, chance: random.Random) -> None:
    other = chance.choice([n for n in range(len(lines)) if n != at])
    lines[at], lines[other] = lines[other], lines[at]


def insert(lines: list[bytes], at: int, chance: random.Random) -> None:
    lines.insert(at, chance.choice(lines))


def insert_blank(lines: list[bytes], at: int, _: random.Random) -> None:
    lines.insert(at, b"\n")


def rewrite(lines: list[bytes], at: int, _: random.Random) -> None:
    record = json.loads(lines[at])
    record["command"] = "true"
    lines[at] = json.dumps(record, separators=(",", ":")).encode() + b"\n"


def cut_line(lines: list[bytes], at: int, chance: random.Random) -> None:
    lines[at] = lines[at][: chance.randrange(len(lines[at]) - 1)] + b"\n"


@pytest.mark.parametrize(
    "change", [remove, double, swap, insert, insert_blank, rewrite, cut_line]
)
def test_every_changed_record_is_found(
    intact: Path, change: Callable[[list[bytes], int, random.Random], None]
) -> None:
    """OB-05: removed, doubled, swapped, inserted, edited; at any place of any file."""
    for chance in every_case(intact, 2, 30):
        path = chance.choice(paths(intact))
        lines = path.read_bytes().splitlines(keepends=True)
        # the ends are where a chain is weakest
        at = chance.choice([0, len(lines) - 1, chance.randrange(len(lines))])
        change(lines, at, chance)
        path.write_bytes(b"".join(lines))
        assert not query.verify(intact).intact


def test_every_truncation_at_the_end_is_found(intact: Path) -> None:
    """OB-05: by bytes, by whole records, in any file."""
    for chance in every_case(intact, 3, 60):
        path = chance.choice(paths(intact))
        data = path.read_bytes()
        keep = chance.randrange(len(data))
        if chance.random() < 0.5:
            keep = data.rfind(b"\n", 0, keep) + 1
        path.write_bytes(data[:keep])
        assert not query.verify(intact).intact


def test_every_truncation_at_the_beginning_is_found(intact: Path) -> None:
    """OB-05: the first kept record is anchored."""
    for chance in every_case(intact, 4, 40):
        path = chance.choice(paths(intact))
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[chance.randrange(1, len(lines)) :]))
        assert not query.verify(intact).intact


def test_a_removed_or_swapped_file_is_found(intact: Path) -> None:
    """OB-05: whole files, and the head."""
    for path in [*paths(intact), intact / files.HEAD]:
        data = path.read_bytes()
        path.unlink()
        assert not query.verify(intact).intact
        path.write_bytes(data)
    first, second = paths(intact)[2:4]
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    assert not query.verify(intact).intact


async def test_a_torn_last_line_is_cut_off_and_told(directory: Path) -> None:
    """A crash in mid-write: what was never acknowledged goes, and the log says so."""
    await fill(directory, 10, file_bytes=10_000_000, keep=10)
    with (directory / files.CURRENT).open("ab") as file:
        file.write(b'{"seq":11,"timestamp":"20')
    assert "torn" in query.verify(directory).faults[0]

    await fill(directory, 1, file_bytes=10_000_000, keep=10)

    told, after = records(directory)[-2:]
    assert told["event_type"] == "recovered"
    assert told["result"] == "repaired"
    assert told["metadata"] == {"torn_bytes": 25}
    assert after["seq"] == 12
    assert query.verify(directory).intact


@pytest.mark.parametrize("cut", [1, 30, 400, 5000])
async def test_records_that_were_lost_stay_visible_after_a_restart(
    directory: Path, cut: int
) -> None:
    """OB-05: starting the daemon does not wash a truncation away."""
    await fill(directory, 50, file_bytes=10_000_000, keep=10)
    path = directory / files.CURRENT
    os.truncate(path, path.stat().st_size - cut)
    await fill(directory, 50, file_bytes=10_000_000, keep=10)
    verdict = query.verify(directory)
    assert not verdict.intact
    told = next(r for r in records(directory) if r["event_type"] == "recovered")
    assert told["result"] == "damaged"
    assert "missing" in told["error"]
    assert records(directory)[-1]["seq"] == 101


@pytest.mark.parametrize("harm", ["removed", "damaged"])
async def test_a_lost_head_stays_visible_after_a_restart(
    directory: Path, harm: str
) -> None:
    """OB-05: without the head nobody knows the end, so a removed one is a fault."""
    await fill(directory, 200, file_bytes=10_000, keep=4)
    head = directory / files.HEAD
    if harm == "removed":
        head.unlink()
    else:
        head.write_bytes(head.read_bytes().replace(b"first", b"First"))
    await fill(directory, 5, file_bytes=10_000, keep=4)
    verdict = query.verify(directory)
    assert not verdict.intact
    assert len(verdict.faults) == 1
    assert files.HEAD in verdict.faults[0]


async def test_a_damaged_last_record_does_not_stop_the_log(directory: Path) -> None:
    await fill(directory, 20, file_bytes=10_000_000, keep=10)
    path = directory / files.CURRENT
    path.write_bytes(path.read_bytes().replace(b"echo 20", b"echo 99"))
    await fill(directory, 5, file_bytes=10_000_000, keep=10)
    verdict = query.verify(directory)
    assert [fault.partition(":")[0] for fault in verdict.faults] == [
        "audit.jsonl line 20 does not match its hash",
        "audit.jsonl line 21",
    ]
    assert records(directory)[-1]["seq"] == 26


CRASHING = """
import asyncio, sys
from pathlib import Path
from fakes.audit import a_record, audit_log

async def main():
    log = audit_log(Path(sys.argv[1]), file_bytes=20_000, files=5)
    await log.open()
    number = 0
    while True:
        await asyncio.gather(*(log.append(a_record(n)) for n in range(3)))
        number += 3
        print(number, flush=True)

asyncio.run(main())
"""


def python(script: str, *arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *arguments]


def environment() -> dict[str, str]:
    tree = Path(__file__).resolve().parents[3]
    parts = [str(tree / name) for name in ("tests", "daemon", "proto", "shim")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(parts)}


def test_nothing_acknowledged_is_lost_when_the_daemon_is_killed(
    directory: Path,
) -> None:
    """A5 7: the log parses after SIGKILL; at most one record is torn, and told."""
    acknowledged = 0
    for lines in (5, 60, 150):
        with subprocess.Popen(
            python(CRASHING, str(directory)),
            stdout=subprocess.PIPE,
            env=environment(),
            text=True,
        ) as process:
            assert process.stdout is not None
            last = [process.stdout.readline() for _ in range(lines)][-1]
            os.kill(process.pid, signal.SIGKILL)
            rest = [line for line in process.stdout if line.endswith("\n")]
        acknowledged += int(rest[-1] if rest else last)
        written = [
            record
            for record in records(directory)
            if record["event_type"] == "command_execution"
        ]
        assert written[-1]["seq"] >= acknowledged
    asyncio.run(fill(directory, 1, file_bytes=20_000, keep=5))
    assert query.verify(directory).faults == ()


FULL = """
import asyncio, json, resource, sys
from pathlib import Path
from fakes.audit import a_record, audit_log
from holdfast_daemon.audit.chain import AuditError

async def main():
    log = audit_log(Path(sys.argv[1]))
    await log.open()
    await log.append(a_record(1))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    refused = 0
    for n in range(2, 20):
        try:
            await log.append(a_record(n))
        except AuditError as error:
            refused += 1
            cause = str(error)
    log.post(a_record(100))
    await log.flush()
    error = log.error
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    with log.watch() as changed:  # nobody calls: the log finds out by itself
        while log.error:
            await changed.wait()
            changed.clear()
    await log.append(a_record(101))
    await log.close()
    print(json.dumps({"refused": refused, "cause": cause, "error": error}))

asyncio.run(main())
"""


def test_a_full_disk_refuses_records_and_is_told_when_it_is_over(
    directory: Path,
) -> None:
    """Issue 2, 4: loud refusal with the cause; recovers by itself; loses no outcome."""
    done = subprocess.run(
        python(FULL, str(directory)),
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    said = json.loads(done.stdout)
    assert said["refused"] > 5
    assert "File too large" in said["cause"]
    assert said["error"] == said["cause"]
    found = records(directory)
    names = [r["call_id"] for r in found if r["event_type"] == "command_execution"]
    assert names[-2:] == ["c100", "c101"]
    assert len(names) == 18 - said["refused"] + 3
    (told,) = [r for r in found if r["event_type"] == "recovered"]
    assert told["result"] == "repaired"
    assert "File too large" in told["metadata"]["cause"]
    assert query.verify(directory).faults == ()


FULL_AT_FIRST = """
import asyncio, resource, sys
from pathlib import Path
from fakes.audit import a_record, audit_log
from holdfast_daemon.audit import query
from holdfast_daemon.audit.chain import AuditError

async def main():
    directory = Path(sys.argv[1])
    log = audit_log(directory)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    await log.open()
    try:
        await log.append(a_record(1))
    except AuditError as error:
        assert "File too large" in str(error), error
    else:
        raise AssertionError("it was taken")
    found = query.verify(directory)
    assert found.intact, found
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    await log.append(a_record(2))
    await log.close()

asyncio.run(main())
"""


def test_a_disk_that_is_full_at_the_very_first_start_is_no_tampering(
    directory: Path,
) -> None:
    """Issue 2, 4: a head of no bytes was called a changed one for ever."""
    subprocess.run(
        python(FULL_AT_FIRST, str(directory)),
        env=environment(),
        timeout=30,
        check=True,
    )
    told, record = records(directory)
    assert (told["result"], told.get("error")) == ("repaired", None)
    assert (record["call_id"], record["seq"]) == ("c2", 2)
    assert query.verify(directory).faults == ()


async def test_a_directory_that_became_a_file_refuses_records(
    log: AuditLog, directory: Path, tmp_path: Path
) -> None:
    """Issue 2, 4: what can't be written is refused; put back, it goes on unasked."""
    await log.append(a_record(1))
    aside = tmp_path / "aside"
    block(directory, aside)
    with pytest.raises(AuditError, match="not a directory"):
        await log.append(a_record(2))
    assert "not a directory" in log.error
    unblock(directory, aside)
    await log.append(a_record(3))
    assert log.error == ""
    names = [line["call_id"] for line in records(directory)]
    assert names[0] == "c1"
    assert names[-1] == "c3"


async def test_a_log_that_can_not_be_opened_says_so_and_opens_later(
    directory: Path,
) -> None:
    block(directory)
    log = audit_log(directory)
    await log.open()
    assert "not a directory" in log.error
    with pytest.raises(AuditError):
        await log.append(a_record())
    unblock(directory)
    await log.append(a_record(1))
    assert log.error == ""
    await log.close()
    assert query.verify(directory).intact


@pytest.mark.parametrize("name", [files.CURRENT, files.HEAD])
async def test_a_log_removed_under_the_daemon_goes_on_and_shows_the_loss(
    log: AuditLog, directory: Path, name: str
) -> None:
    """OB-05: the daemon remembers the chain, so evidence can't be deleted unseen."""
    await asyncio.gather(*(log.append(a_record(n)) for n in range(10)))
    (directory / name).unlink()
    await log.append(a_record(11))
    assert log.error == ""
    told, last = records(directory)[-2:]
    assert told["result"] == "damaged"
    assert f"{name} was removed" in told["error"]
    assert last["seq"] == 12
    assert not query.verify(directory).intact


def append_last_line_again(path: Path) -> None:
    with path.open("ab") as file:
        file.write(path.read_bytes().splitlines(keepends=True)[-1])


async def test_a_log_changed_under_the_daemon_shows_it(
    log: AuditLog, directory: Path
) -> None:
    await asyncio.gather(*(log.append(a_record(n)) for n in range(10)))
    append_last_line_again(directory / files.CURRENT)
    await log.append(a_record(11))
    await log.flush()
    assert "changed by somebody else" in records(directory)[-2]["error"]
    assert not query.verify(directory).intact


def plant(link: Path, elsewhere: Path) -> None:
    link.parent.mkdir(mode=0o700)
    elsewhere.touch(mode=0o600)
    link.symlink_to(elsewhere)


async def test_a_symlink_is_not_written_through(
    directory: Path, tmp_path: Path
) -> None:
    """SC-11: a planted link does not make us write elsewhere."""
    elsewhere = tmp_path / "elsewhere"
    plant(directory / files.CURRENT, elsewhere)
    log = audit_log(directory)
    await log.open()
    assert log.error
    await log.close()
    assert elsewhere.read_bytes() == b""


async def test_a_caller_that_leaves_is_recorded_as_ended(
    log: AuditLog, directory: Path
) -> None:
    tasks = [
        asyncio.create_task(
            log.append(a_record(n), otherwise=partial(a_record, n, phase=Phase.END))
        )
        for n in range(300)
    ]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    done = await asyncio.gather(*tasks, return_exceptions=True)
    left = {f"c{n}" for n, end in enumerate(done) if end is not None}
    assert left
    await log.flush()
    ended = {r["call_id"] for r in records(directory) if r["phase"] == "end"}
    assert ended == left


async def test_a_caller_that_leaves_at_the_last_moment_is_recorded_as_ended(
    log: AuditLog, directory: Path
) -> None:
    """Cancelled after its record was written and before it heard of that."""
    with log.watch() as changed:
        end = partial(a_record, 1, phase=Phase.END)
        task = asyncio.create_task(log.append(a_record(1), otherwise=end))
        await changed.wait()
        assert not task.done()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await log.flush()
    assert [r["phase"] for r in records(directory)] == ["start", "end"]


async def test_what_nobody_can_keep_is_counted(directory: Path) -> None:
    block(directory)
    log = audit_log(directory, backlog_records=10)
    await log.open()
    for n in range(25):
        log.post(a_record(n))
        await log.flush()
    unblock(directory)
    await log.append(a_record(99))
    await log.close()
    told, *others = records(directory)
    assert "15 records could not be kept" in told["error"]
    assert [r["call_id"] for r in others] == [f"c{n}" for n in range(15, 25)] + ["c99"]
    assert not query.verify(directory).intact


async def test_a_closed_log_refuses(directory: Path) -> None:
    log = audit_log(directory)
    with pytest.raises(AuditError, match="closed"):
        await log.append(a_record())
    await log.open()
    await log.close()
    with pytest.raises(AuditError, match="closed"):
        await log.append(a_record())
    await log.flush()
    await log.close()


async def test_synced_at_once_where_asked(directory: Path) -> None:
    log = audit_log(directory, sync_seconds=0)
    await log.open()
    await asyncio.gather(*(log.append(a_record(n)) for n in range(20)))
    await log.close()
    assert query.verify(directory).records == 20


async def test_a_disk_that_does_not_sync_is_not_written_full(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue 2, 4: told as an outage, and nothing that was kept is pushed out for it.

    On BUGGY code: the thread wrote that it goes on again and again, without a pause.
    """
    tries = 0
    mended = False

    def sync(descriptors: Sequence[int]) -> None:
        nonlocal tries
        tries += 1
        for descriptor in descriptors:
            os.close(descriptor)
        if not mended and tries < 500:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    log = audit_log(directory, sync_seconds=0, file_bytes=4000, files=2)
    await log.open()
    await log.append(a_record(1))
    monkeypatch.setattr(store, "sync", sync)
    with pytest.raises(AuditError, match="Input/output error"):
        await log.append(a_record(2))
    log.post(a_record(3))
    await log.flush()
    assert "Input/output error" in log.error
    mended = True
    await log.append(a_record(4))
    assert (log.error, tries < 100) == ("", True)
    await log.close()
    names = [r["call_id"] for r in records(directory) if r["client"] == "test/1"]
    assert names == ["c1", "c2", "c3", "c4"]
    assert query.verify(directory).faults == ()


async def test_a_slow_sync_goes_on_beside_the_writer(directory: Path) -> None:
    log = audit_log(directory, sync_seconds=0.001)
    await log.open()
    for n in range(200):
        await log.append(a_record(n))
    await log.close()
    assert query.verify(directory).records == 200
