from __future__ import annotations

import asyncio
import os
import tracemalloc
from typing import TYPE_CHECKING

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast_daemon.output.display import Display, Scene
from holdfast_daemon.output.flood import shorten
from holdfast_daemon.output.screen import Screen

if TYPE_CHECKING:
    from collections.abc import Iterator

COLS, ROWS = 30, 8


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    with blockbuster_ctx():
        yield


async def test_a_picture_has_all_that_was_fed() -> None:
    """SE-20: in order, sizes too, however much of it is not drawn yet."""
    display = Display(COLS, ROWS)
    for number in range(500):
        display.feed(b"line %d\r\n" % number)
    display.resize(COLS, 4)
    display.feed(b"end")
    picture = await display.picture()
    assert picture.lines == ("line 497", "line 498", "line 499", "end")
    assert not picture.partial
    assert b"line 499" in await display.redraw()
    await display.close()
    display.feed(b"more")


async def test_a_scene_says_of_how_much_it_is() -> None:
    """SE-20: who attaches goes on exactly there, however fast more comes."""
    display = Display(COLS, ROWS)
    whole = b""
    scenes: list[asyncio.Task[Scene]] = []
    for number in range(300):
        line = b"line %d \x1b[3%dm\r\n" % (number, number % 8)
        whole += line
        display.feed(line)
        if number % 30 == 0:
            scenes.append(asyncio.create_task(display.scene()))
        await asyncio.sleep(0)
    expected = Screen(COLS, ROWS)
    expected.feed(whole)
    assert display.fed == len(whole)
    for drawing, fed in await asyncio.gather(*scenes):
        screen = Screen(COLS, ROWS)
        screen.feed(drawing + whole[fed:])
        assert screen.picture().lines == expected.picture().lines
    await display.close()


async def test_answers_come_without_anybody_looking() -> None:
    """SE-20: but not while a person's terminal gives its own."""
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    display = Display(COLS, ROWS, answer=answers.put_nowait)
    display.feed(b"\x1b[6n")
    async with asyncio.timeout(30):
        assert await answers.get() == b"\x1b[1;1R"
        display.feed(b"x" * 5000 + b"\x1b[5n")
        assert await answers.get() == b"\x1b[0n"
    display.answer_to(None)
    display.feed(b"\x1b[6n")
    await display.picture()
    assert answers.empty()
    display.answer_to(answers.put_nowait)
    display.feed(b"\x1b[5n")
    await display.picture()
    assert answers.get_nowait() == b"\x1b[0n"
    await display.close()


async def test_who_looks_may_go_away() -> None:
    display = Display(COLS, ROWS)
    display.feed(b"x" * 100_000 + b"\r\n\r\nlast")
    looks = [asyncio.create_task(display.picture()) for _ in range(5)]
    await asyncio.sleep(0)
    for look in looks[:3]:
        look.cancel()
    assert (await looks[4]).lines[-1] == "last"
    await display.close()


@pytest.mark.parametrize(
    ("data", "exact"),
    [(b"y\r\n" * 10_000, True), (os.urandom(32_768), False)],
    ids=["lines", "random"],
)
async def test_a_flood_costs_neither_memory_nor_the_loop(
    data: bytes, exact: bool
) -> None:
    """NF-09: 100 MB through one screen; its end is right, or told to be partial."""
    display = Display(COLS, ROWS)
    display.feed(data)
    await display.picture()
    tracemalloc.start()
    for _ in range(100_000_000 // len(data)):
        display.feed(data)
    await asyncio.sleep(0)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 8 * 1024 * 1024
    if exact:
        picture = await display.picture()
        assert picture.lines == (*["y"] * (ROWS - 1), "")
        assert not picture.partial
    else:
        display.feed(b"\x18\x1b\\\x1bc\x1b[2Jfine")
        picture = await display.picture()
        assert picture.text == "fine"
        assert not picture.partial
    await display.close()


LINES = st.lists(
    st.one_of(
        st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=70).map(
            str.encode
        ),
        st.sampled_from([b"\x1b[31mred\x1b[0m", "grüße 日本".encode(), b"a\tb"]),
    ),
    min_size=30,
    max_size=80,
).map(lambda lines: b"\r\n".join(lines) + b"\r\n")


@settings(max_examples=100, deadline=None)
@given(LINES, LINES, st.integers(100, 2000))
def test_what_is_left_out_of_plain_lines_shows_nowhere(
    before: bytes, data: bytes, limit: int
) -> None:
    """SE-20: where it is said to be exact, it is."""
    rest = shorten(data, rows=ROWS, limit=limit)
    assert len(rest.tail) <= limit
    whole, short = Screen(COLS, ROWS), Screen(COLS, ROWS)
    whole.feed(before + data)
    short.feed(before)
    short.skip(rest.lasting, exact=rest.exact)
    short.feed(rest.tail)
    if rest.exact:
        assert short.picture() == whole.picture()
    else:
        assert short.picture().partial


@pytest.mark.parametrize("limit", [20, 60, 100, 130, 160, 200, 1000])
def test_few_lines_do_not_stand_for_a_whole_screen(limit: int) -> None:
    """SE-20: what stood there before must be gone for sure."""
    data = b"".join(b"row %03d\r\n" % number for number in range(500))
    rest = shorten(data, rows=ROWS, limit=limit)
    whole, short = Screen(COLS, ROWS), Screen(COLS, ROWS)
    for screen in (whole, short):
        screen.feed(b"old " * (COLS * ROWS // 4) + b"\x1b[H")
    whole.feed(data)
    short.skip(rest.lasting, exact=rest.exact)
    short.feed(rest.tail)
    assert rest.exact is (limit >= 160)
    assert not rest.exact or short.picture() == whole.picture()


def test_modes_outlast_what_is_left_out() -> None:
    """SE-20: a full-screen program stays one after a flood."""
    data = b"\x1b[?1049h\x1b[?1h\x1b[2;4r" + b"\x1b[3;3Hx" * 10_000
    rest = shorten(data, rows=ROWS, limit=1000)
    screen = Screen(COLS, ROWS)
    screen.skip(rest.lasting, exact=rest.exact)
    screen.feed(rest.tail)
    picture = screen.picture()
    assert picture.alternate
    assert picture.application_keys
    assert picture.partial
