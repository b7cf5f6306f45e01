from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_daemon.errors import InputError
from holdfast_daemon.output.awaiting import await_text
from holdfast_daemon.output.pattern import Pattern
from holdfast_daemon.output.spool import Slice, Spool
from holdfast_daemon.output.until import Met, Until
from holdfast_daemon.streams import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB = 1024


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx():
        yield


def pattern(text: str, seconds: float = 5) -> Pattern:
    return Pattern(text, field="until", seconds=seconds)


def found(text: str, *pieces: bytes) -> str | None:
    """Return what `text` matches after the pieces came one by one."""
    until = Until(pattern=pattern(text), cols=80, now=0)
    for piece in pieces:
        until.feed(piece, 0)
        if until.look(0):
            return until.matched
    return None


@pytest.mark.parametrize(
    ("text", "printed", "matched"),
    [
        ("ready", b"not yet\r\nready now\r\n", "ready"),
        (r"\$ $", b"user@box:~$ ", "$ "),
        (r"^two$", b"one\r\ntwo\r\nthree", "two"),
        (r"one\ntwo", b"one\r\ntwo\r\n", "one\ntwo"),
        ("hello", b"\x1b[1mhel\x1b[0mlo", "hello"),
        ("100%", b" 10%\r 50%\r100%", "100%"),
        ("50%", b" 10%\r 50%\r100%", None),
        ("(?i)password: $", b"\x1b]0;t\x07Password: ", "Password: "),
        ("evil", b"\x1b]0;evil\x07", None),
        ("grüße", "grüße".encode(), "grüße"),
        ("host# echo", b"host# \x1b[K\r\x1b[6Cecho", "host# echo"),
        ("", b"x", ""),
    ],
)
def test_a_pattern_is_found_however_the_bytes_come(
    text: str, printed: bytes, matched: str | None
) -> None:
    """SE-19: in the cleaned text, on the unfinished line too."""
    assert found(text, printed) == matched
    if matched != "50%" and b"%" not in printed:
        single = [bytes([byte]) for byte in printed]
        assert found(text, *single) == matched
        for cut in range(1, len(printed)):
            assert found(text, printed[:cut], printed[cut:]) == matched


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 60_000), max_size=8))
def test_a_match_over_any_border_is_found(cuts: list[int]) -> None:
    """SE-19: the text is not searched twice as a whole, and nothing is missed."""
    data = b"noise and more\r\n" * 2000 + b"x" * 3000 + b"needle here\r\nmore"
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(edges)]
    assert found("x{50}needle", *pieces) == "x" * 50 + "needle"


def test_quiet_and_exit_come_first_where_nothing_matches() -> None:
    """SE-19: first of pattern, quiet, exit."""
    until = Until(pattern=pattern("never"), quiet_seconds=2, now=10)
    assert until.deadline == 12
    until.feed(b"something", 11)
    assert until.deadline == 13
    assert until.look(12.9) is None
    assert until.look(13) is Met.QUIET
    assert until.deadline is None
    until = Until(pattern=pattern("last"), now=0)
    until.feed(b"the last words", 1)
    until.exited()
    assert until.look(1) is Met.MATCHED
    until = Until(pattern=pattern("never"), now=0)
    until.exited()
    assert until.look(0) is Met.EXITED


def test_quiet_can_begin_with_the_first_output() -> None:
    """SE-10: who waits for output does not get nothing after a second."""
    until = Until(quiet_seconds=1, after_output=True, now=10)
    assert until.deadline is None
    assert until.look(100) is None
    until.feed(b"x", 101)
    assert until.deadline == 102
    assert until.look(102) is Met.QUIET


@pytest.mark.parametrize("text", ["(", "[a", "a**", "(?P<x>", "\\", "a" * 1001])
def test_what_is_no_pattern_is_refused(text: str) -> None:
    """SE-19: typed, before anything is waited for."""
    with pytest.raises(InputError) as caught:
        pattern(text)
    assert caught.value.metadata == {"field": "until"}


def test_a_catastrophic_pattern_has_an_end() -> None:
    """SE-19: it is told, and the wait is over."""
    until = Until(pattern=pattern(r"(\w|\w\w)+$(?!\n)(?=b)", seconds=0.2), now=0)
    until.feed(b"a" * 5000 + b"!", 0)
    begun = time.process_time()
    with pytest.raises(InputError, match="too slow") as caught:
        until.look(0)
    assert time.process_time() - begun < 10
    assert "nested repeats" in caught.value.hint


def test_a_flood_is_looked_at_from_its_end() -> None:
    """SE-19: what waits to be looked at is bounded."""
    until = Until(pattern=pattern("needle"), now=0)
    for _ in range(1000):
        until.feed(b"y\r\n" * 20_000, 0)
    until.feed(b"needle", 0)
    assert until.look(0) is Met.MATCHED


def spool_in(directory: Path) -> Spool:
    return Spool(
        directory, limit_bytes=KIB * KIB, segment_bytes=64 * KIB, backlog_bytes=64 * KIB
    )


async def test_a_wait_ends_with_what_comes(tmp_path: Path) -> None:
    """SE-19: server side; the offset after what was looked at is told."""
    spool = spool_in(tmp_path)
    spool.append(Stream.OUT, b"old prompt$ ")
    until = Until(pattern=pattern(r"\$ $"), now=0)
    task = asyncio.create_task(await_text(spool, until, offset=spool.end, seconds=20))
    await asyncio.sleep(0)
    for piece in (b"ls\r\n", b"a  b\r\nnew", b" prompt$", b" "):
        spool.append(Stream.OUT, piece)
    assert await task == (True, spool.end)
    assert until.met is Met.MATCHED
    spool.close()
    await spool.sync()


async def test_a_wait_without_time_looks_once(tmp_path: Path) -> None:
    """SE-10, SE-19: wait_seconds 0."""
    spool = spool_in(tmp_path)
    spool.append(Stream.OUT, b"here")
    until = Until(pattern=pattern("here"), now=0)
    assert (await await_text(spool, until, offset=0, seconds=0)).over
    until = Until(pattern=pattern("gone"), now=0)
    assert await await_text(spool, until, offset=0, seconds=0) == (False, 4)
    spool.close()
    until = Until(pattern=pattern("gone"), now=0)
    assert (await await_text(spool, until, offset=0, seconds=20)).over
    assert until.met is Met.EXITED
    await spool.sync()


class Flood(Spool):
    """Gets more while it is read."""

    async def read(
        self, offset: int, limit: int, stream: Stream | None = None
    ) -> Slice:
        found = await super().read(offset, limit, stream)
        self.append(Stream.OUT, b"y\r\n" * KIB)
        return found


@pytest.mark.parametrize("seconds", [0, 0.05])
async def test_a_wait_ends_although_more_comes(tmp_path: Path, seconds: float) -> None:
    """SE-10, SE-19: `yes` is never at its end."""
    spool = Flood(
        tmp_path, limit_bytes=KIB * KIB, segment_bytes=64 * KIB, backlog_bytes=64 * KIB
    )
    there = b"old\r\n" * 100_000
    for start in range(0, len(there), KIB):
        spool.append(Stream.OUT, there[start : start + KIB])
        await spool.drained()
    until = Until(pattern=pattern("never"), now=0)
    async with asyncio.timeout(30):
        told = await await_text(spool, until, offset=0, seconds=seconds)
    assert not told.over
    assert told.next_offset >= len(there)
    assert until.met is None
    await spool.remove()


async def test_quiet_is_noticed_in_time(tmp_path: Path) -> None:
    """SE-19: quiet for so long, measured from the last output."""
    spool = spool_in(tmp_path)
    loop = asyncio.get_running_loop()
    until = Until(quiet_seconds=0.2, now=loop.time())
    task = asyncio.create_task(await_text(spool, until, offset=0, seconds=20))
    spool.append(Stream.OUT, b"one")
    begun = loop.time()
    assert (await task).over
    assert until.met is Met.QUIET
    assert loop.time() - begun >= 0.2
    spool.close()
    await spool.sync()
