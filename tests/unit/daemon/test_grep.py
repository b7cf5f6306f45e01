from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx

from holdfast_daemon.errors import InputError
from holdfast_daemon.output.grep import Matches, grep
from holdfast_daemon.output.spool import Spool
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

OUT, ERR = Stream.OUT, Stream.ERR
KIB = 1024


pytestmark = pytest.mark.usefixtures("collected")


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx():
        yield


async def filled(directory: Path, data: bytes, limit: int = 64 * KIB * KIB) -> Spool:
    spool = Spool(
        directory, limit_bytes=limit, segment_bytes=64 * KIB, backlog_bytes=256 * KIB
    )
    for at in range(0, len(data), 10_000):
        spool.append(OUT, data[at : at + 10_000])
        spool.append(ERR, b"noise\n")
        if spool.full:
            await spool.drained()
    spool.close()
    await spool.sync()
    return spool


async def find(spool: Spool, pattern: str, budget: int = 10_000) -> Matches:
    return await grep(spool, pattern, stream=OUT, budget=budget, seconds=20)


async def test_lines_that_match_come_with_their_numbers(tmp_path: Path) -> None:
    """EX-14: the rest of an output can be searched."""
    data = b"".join(b"line %d\n" % number for number in range(1, 20_001))
    spool = await filled(tmp_path, data + b"the open end")
    found = await find(spool, r"line 1(23|9999)$|open")
    assert found.text == "123: line 123\n19999: line 19999\n20001: the open end\n"
    assert (found.found, found.complete, found.truncated) == (3, True, False)
    assert (await find(spool, "noise")).text == ""
    errors = await grep(spool, "noise", stream=ERR, budget=50, seconds=20)
    assert errors.text.startswith("1: noise\n2: noise\n")


async def test_the_budget_cuts_and_says_so(tmp_path: Path) -> None:
    """EX-13: no answer above its budget."""
    spool = await filled(tmp_path, b"match\n" * 1000)
    found = await find(spool, "match", 50)
    assert [line.number for line in found.lines] == [1, 2, 3, 4, 5]
    assert found.text.endswith("… [995 more of 1,000 matching lines left out] …\n")
    assert found.truncated
    assert (await find(spool, "match", 0)).lines == ()


async def test_cleaned_lines_are_searched(tmp_path: Path) -> None:
    """NF-12: colours don't hide words, a terminal's strings are no text."""
    data = b"\x1b[31mer\x1b[0mror\r\n10%\r20%\n\x1b]0;error\x07\nplain\n"
    spool = await filled(tmp_path, data)
    assert (await find(spool, "^error$")).text == "1: error\n"
    assert (await find(spool, "10%|20%")).text == "2: 20%\n"


async def test_numbers_are_those_of_the_stream_as_printed(tmp_path: Path) -> None:
    data = b"one\n\x1bPq~~\n~~\n\x1b\\two\nthree\n"
    spool = await filled(tmp_path, data)
    assert (await find(spool, "three")).text == "5: three\n"


async def test_numbers_stay_true_when_the_oldest_was_discarded(tmp_path: Path) -> None:
    """EX-14: line numbers count from the stream's start."""
    data = b"".join(b"line %d\n" % number for number in range(1, 100_001))
    spool = await filled(tmp_path, data, 256 * KIB)
    assert spool.earliest > 0
    found = await find(spool, r"line \d*000$")
    assert found.lines
    assert all(line.text == f"line {line.number}" for line in found.lines)
    assert found.lines[-1].number == 100_000


async def test_a_long_line_is_shown_around_the_match(tmp_path: Path) -> None:
    data = b"x" * 300_000 + b" needle " + b"y" * 300_000 + b"\nend needle\n"
    spool = await filled(tmp_path, data)
    found = await find(spool, "needle")
    assert [line.number for line in found.lines] == [1, 2]
    assert " needle " in found.lines[0].text
    assert len(found.lines[0].text) <= 402


@pytest.mark.parametrize(
    "pattern", ["(", "[a", "*x", "(?P<n", r"\p{Nonsense}", "a{2,1}", "(?Lu)x"]
)
async def test_a_wrong_pattern_is_an_input_error(tmp_path: Path, pattern: str) -> None:
    spool = await filled(tmp_path, b"text\n")
    with pytest.raises(InputError) as caught:
        await find(spool, pattern)
    assert caught.value.metadata == {"field": "grep"}
    assert caught.value.hint


async def test_a_pattern_of_absurd_length_is_an_input_error(tmp_path: Path) -> None:
    spool = await filled(tmp_path, b"text\n")
    with pytest.raises(InputError, match="more than 1,000 characters"):
        await find(spool, "a" * 1001)


@pytest.mark.parametrize(
    "pattern",
    [
        "a{9999999}",
        "(?:x{1000}){1000}",
        "(?:(?:x{100}){100}){100}",
        "(?=a{1000}){1000}",
        "(?<=a{1000}){1000}",
        "(?:a{1000})(?#and){1000}",
        "(?x)a{1 0 0 0 0 0 0}",
        "(?x)(?:a{1000}) # and\n {1000}",
        "[" + "a-z" * 300 + "]{1000}",
        f"(?:{'ab' * 400}){{1000}}",
        "a{" + "9" * 900 + "}",
        "(?R)",
        "a(?R)?b",
        r"\\(?R)",
        "(a|(?1))",
        "(?+1)(a)",
        "(?P<a>x(?&a))",
        "(?P<a>x(?P>a))",
    ],
)
async def test_a_pattern_that_would_fill_memory_is_never_made(
    tmp_path: Path, pattern: str
) -> None:
    """EX-14: thirty characters took all the memory there was, and the daemon."""
    spool = await filled(tmp_path, b"text\n")
    with pytest.raises(InputError, match=r"repeats too much|calls a part") as caught:
        await find(spool, pattern)
    assert caught.value.metadata == {"field": "grep"}
    assert caught.value.hint


@pytest.mark.parametrize(
    "pattern",
    [
        r"\b(?:\d{1,3}\.){3}\d{1,3}\b",
        r"([0-9a-f]{8})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{4})-([0-9a-f]{12})",
        r"(?:[0-9a-f]{64}\s+){10}",
        r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{6})? .{1000}",
        r"(?i)^ {8}at .{0,5000}$",
        r"(?x) error \s \d{3}  # a code",
        r"\{100\}|\(\?R",
        r"(?P<quote>['\"]).{0,99999}(?P=quote)",
    ],
)
async def test_a_pattern_with_counts_is_taken(tmp_path: Path, pattern: str) -> None:
    """EX-14: what people look for stays far below the limit."""
    spool = await filled(tmp_path, b"text\n")
    assert (await find(spool, pattern)).found == 0


@pytest.mark.parametrize("pattern", ["(a+)+$", "(a|aa)+$", "(a+)+b"])
async def test_an_evil_pattern_ends_in_time_and_does_not_hold_the_loop(
    tmp_path: Path, pattern: str
) -> None:
    """EX-14: the loop ticks on while the pattern is tried, and the time is kept."""
    spool = await filled(tmp_path, b"fine\n" + b"a" * 50_000 + b"!\n")
    ticks: list[float] = []

    async def tick() -> None:
        while True:
            ticks.append(time.monotonic())
            await asyncio.sleep(0.005)

    ticker = asyncio.create_task(tick())
    begun = time.monotonic()
    with pytest.raises(InputError, match=r"too slow.* line 2"):
        await grep(spool, pattern, stream=OUT, budget=1000, seconds=1)
    taken = time.monotonic() - begun
    ticker.cancel()
    assert taken < 5
    gaps = [after - before for before, after in itertools.pairwise(ticks)]
    assert len(ticks) > 20
    assert max(gaps) < 0.8


async def test_time_that_is_over_before_the_end_is_told(tmp_path: Path) -> None:
    """EX-14: a search of much output gives what it found so far."""
    spool = await filled(tmp_path, b"some words on a line\n" * 100_000)
    found = await grep(spool, "words", stream=OUT, budget=100, seconds=0.02)
    assert not found.complete
    assert found.next_offset < spool.end
    assert f"over at offset {found.next_offset}" in found.text
