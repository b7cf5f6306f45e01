from __future__ import annotations

import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast_daemon.output.text import clean
from holdfast_daemon.output.window import NOTICE, Window, share, window

LINES = b"".join(b"line %04d\n" % number for number in range(1000))


def cut(data: bytes, budget: int, held: int = 10**6) -> Window:
    """Cut `data` as a caller does who fetched `held` bytes of each end."""
    tail = data[-held:] if len(data) > held else None
    return window(
        data[:held],
        tail,
        len(data),
        budget,
        total_lines=data.count(b"\n") + (not data.endswith(b"\n") and bool(data)),
    )


def test_what_fits_is_shown_whole() -> None:
    found = cut(b"one\ntwo\n", 8)
    assert found == Window("one\ntwo\n", False, 0, 2, 0)
    assert cut(b"", 100) == Window("", False, 0, 0, 0)


@pytest.mark.parametrize("held", [600, 5000, 9999, 10**6])
def test_head_and_tail_are_shown_with_the_exact_rest_told(held: int) -> None:
    """EX-13: capped output, the notice says exactly what is missing."""
    found = cut(LINES, 1000, held)
    head, notice, tail = re.split(r"(… \[.*\] …\n)", found.text)
    assert LINES.startswith(head.encode())
    assert LINES.endswith(tail.encode())
    assert head.endswith("\n")
    assert tail.startswith("line")
    shown = len(head) + len(tail)
    assert 900 <= shown <= 1000
    assert abs(len(head) - len(tail)) <= 100
    missing = len(LINES) - shown
    assert (found.truncated, found.omitted_bytes) == (True, missing)
    assert found.omitted_lines == missing // 10 == 1000 - found.lines
    assert notice == f"… [{missing // 10} lines, {missing:,} bytes left out] …\n"


def test_the_notice_is_the_callers() -> None:
    """EX-14: the notice names the call that reads the rest."""
    found = window(
        LINES,
        None,
        len(LINES),
        100,
        notice="… [{left_out} left out: ssh_job_read job_id=j{7}] …",
    )
    assert "… [9,900 bytes left out: ssh_job_read job_id=j{7}] …" in found.text


def test_nothing_fits_a_budget_of_zero() -> None:
    """EX-13: SSH_MAX_OUTPUT_CHARS=0 shows nothing and says so."""
    assert cut(LINES, 0) == Window("", True, 10_000, 0, 1000)
    assert cut(b"", 0) == Window("", False, 0, 0, 0)


def test_only_a_head_is_cut_at_its_end() -> None:
    found = window(LINES[:500], None, len(LINES), 200)
    assert found.text.startswith("line 0000\n")
    assert found.text.endswith(f"{NOTICE[:3]}9,800 bytes left out] …\n")


def test_a_line_without_end_is_cut_inside() -> None:
    found = cut(b"x" * 10_000, 100)
    first, notice, last = found.text.split("\n")
    assert (first.strip("x"), last.strip("x")) == ("", "")
    assert len(first) + len(last) + found.omitted_bytes == 10_000
    assert notice == f"… [{found.omitted_bytes:,} bytes left out] …"


def test_binary_output_is_only_told() -> None:
    """NF-12: no bytes of an archive in an answer."""
    data = bytes(range(256)) * 1000
    found = cut(data, 1000, 5000)
    assert found.text == "[binary data, 256000 bytes]"
    assert (found.truncated, found.omitted_bytes) == (True, 256_000)
    found = cut(LINES + data, 1000, 5000)
    assert found.text.startswith("line 0000\n")
    assert found.text.endswith("bytes left out] …\n")


def test_characters_are_not_split() -> None:
    found = cut("é€😀".encode() * 5000, 101)
    assert "\ufffd" not in found.text


def test_a_progress_bar_costs_only_its_last_state() -> None:
    """NF-12: progress bars do not use up the budget."""
    bar = b"".join(b"\r%5d/9999 files" % number for number in range(10_000))
    found = cut(bar + b"\ndone\n", 100)
    assert found.text == " 9999/9999 files\ndone\n"
    assert not found.truncated


DATA = st.lists(
    st.sampled_from(
        [
            b"plain words\n",
            b"\x1b[31mred\x1b[0m\n",
            b"\r 50%\r 60%",
            b"\x1b]0;title\x07",
            b"\x1bPq~~\n~~\x1b\\",
            "größer €\n".encode(),
            b"\xff\xfe",
            b"\n\n\n",
            b"long " * 60,
            bytes(range(32)),
        ]
    ),
    max_size=60,
).map(b"".join)


@settings(max_examples=400, deadline=None)
@example(b"\xff\xfe\xff\xfe", 2, 2, False)
@given(DATA, st.integers(0, 400), st.integers(1, 2000), st.booleans())
def test_a_window_keeps_to_its_budget_whatever_it_shows(
    data: bytes, budget: int, held: int, whole: bool
) -> None:
    """EX-13: never more than the budget and the notice, and the numbers are true."""
    found = cut(data, budget, len(data) if whole else held)
    notice = max(
        (len(line) for line in found.text.split("\n") if "…" in line), default=0
    )
    told = max(notice + 2, len(f"[binary data, {len(data)} bytes]"))
    assert len(found.text) <= budget + told * found.truncated
    assert clean(found.text.encode()) == found.text
    assert 0 <= found.omitted_bytes <= len(data)
    assert found.truncated == (found.omitted_bytes > 0)
    if not found.truncated and data:
        assert clean(data) in {found.text, f"[binary data, {len(data)} bytes]"}


@pytest.mark.parametrize(
    ("budget", "out", "err", "shares"),
    [
        (1000, 100, 100, (900, 100)),
        (1000, 5000, 0, (1000, 0)),
        (1000, 5000, 100, (900, 100)),
        (1000, 5000, 5000, (750, 250)),
        (1000, 400, 5000, (400, 600)),
        (1000, 0, 5000, (0, 1000)),
        (0, 10, 10, (0, 0)),
        (3, 10, 10, (3, 0)),
    ],
)
def test_stderr_gets_at_least_a_quarter_when_it_needs_it(
    budget: int, out: int, err: int, shares: tuple[int, int]
) -> None:
    """EX-13: both streams share one budget."""
    assert share(budget, out, err) == shares
